"""`yarrow demo`: shows the demo as it goes, and what came of it."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from yarrow.cli.output import STYLES, duration_text, print_json
from yarrow.demo import Demo, Progress, Summary

if TYPE_CHECKING:
    from rich.console import RenderableType

DEFAULT_PORT = 8080


@click.command()
@click.option("--serve", is_flag=True, help="Keep the deployment running afterwards, until Ctrl-C.")
@click.option("--home", type=click.Path(path_type=Path, file_okay=False), help="Default: a temporary folder.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: 8080 with --serve, else a free one.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, and the progress to stderr.")
def demo(serve: bool, home: Path | None, port: int | None, as_json: bool) -> None:
    """Run twelve months of real flights through Yarrow, on this machine.

    It starts the embedded deployment, lets the example DAG `late_flights` catch up on 2013 (336,776 flights that left
    New York City), and shows what came of it.
    """
    if port is None:
        port = DEFAULT_PORT if serve else 0
    with _ended_by_sigterm(), Demo(home, port) as running:
        _say(f"Starting Yarrow in {running.home} ...")
        deployment = running.wait_until_ready()
        _say(f"Ready after {running.elapsed:.1f} s: {deployment.url}")
        progress = _follow(running)
        seconds = running.elapsed
        summaries = running.summaries()
        if as_json:
            print_json({"seconds": seconds, "failed": progress.failed, "months": summaries})
        else:
            _print_summaries(summaries, seconds)
        for line in running.failures():
            click.echo(line, err=True)
        if serve:
            _say(f"Yarrow keeps running: {deployment.url}    DAG files: {running.home / 'dags'}    Ctrl-C stops")
            with contextlib.suppress(KeyboardInterrupt):
                running.wait_for_its_end()
    if progress.failed:
        raise SystemExit(1)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM end the block by way of its context managers, which stop the deployment."""

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _follow(running: Demo) -> Progress:
    """Shows the progress until the end, and returns the last one."""
    clock = _FirstResult()
    looks = _clocked(running, clock)
    last = _live(running, looks) if sys.stderr.isatty() else _lines(running, looks)
    if clock.seconds is not None:
        _say(f"First result after {clock.seconds:.1f} s.")
    return last


class _FirstResult:
    """When the first run had its result."""

    seconds: float | None = None


def _clocked(running: Demo, clock: _FirstResult) -> Iterator[Progress]:
    for progress in running.follow():
        if clock.seconds is None and any(month.run.state.value == "success" for month in progress.months):
            clock.seconds = running.elapsed
        yield progress


def _lines(running: Demo, looks: Iterator[Progress]) -> Progress:
    """A line for each task that has finished: for logs and pipes."""
    told = 0
    for progress in looks:
        for month, event in progress.finished_tasks:
            told += 1
            reason = f": {event.reason}" if event.reason else ""
            count = f"{told:>3}/{progress.tasks_total}"
            _say(f"{running.elapsed:6.1f} s  {count}  {month}  {event.task_id:<10} {event.to_state}{reason}")
        last = progress
    return last


def _live(running: Demo, looks: Iterator[Progress]) -> Progress:
    """A table that changes in place, with a bar and an ETA."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("tasks"), TimeElapsedColumn(), TextColumn("ETA"))
    bars = Bars(*columns, TimeRemainingColumn(), console=console)
    bar = bars.add_task("tasks", total=None)
    with Live(console=console, refresh_per_second=8) as live:
        for progress in looks:
            bars.update(bar, completed=progress.tasks_done, total=progress.tasks_total)
            live.update(Group(_picture(progress), bars))
            last = progress
    return last


def _picture(progress: Progress) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("MONTH", "RUN", "TASKS", "TOOK"):
        table.add_column(column)
    for month in progress.months:
        boxes = Text()
        for state, number in sorted(month.tasks.items(), key=lambda item: _ORDER.get(item[0], 9)):
            boxes.append(("■" if state != "none" else "□") * number, style=STYLES.get(state, ""))
        state, run = month.run.state.value, month.run
        took = duration_text((run.ended_at - run.started_at).total_seconds()) if run.ended_at and run.started_at else ""
        table.add_row(month.label, Text(state, style=STYLES.get(state, "")), boxes, took)
    return table


_ORDER = {"success": 0, "skipped": 1, "failed": 2, "upstream_failed": 3, "running": 4, "queued": 5, "scheduled": 6}


def _print_summaries(summaries: Sequence[Summary], seconds: float) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    flights = sum(summary.flights for summary in summaries)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_footer=True)
    table.title, table.title_justify = "Late flights, 2013", "left"
    totals = [flights, *(sum(getattr(summary, name) for summary in summaries) for name in _COUNTS[1:])]
    table.add_column("month", footer="total")
    for heading, total in zip(_HEADINGS, totals, strict=True):
        table.add_column(heading, justify="right", footer=f"{total:,}")
    table.add_column("µs a row", justify="right")
    table.add_column("wall time", justify="right", footer=duration_text(seconds))
    for summary in summaries:
        counts = (f"{getattr(summary, name):,}" for name in _COUNTS)
        latency = f"{summary.latency_us:.1f}" if summary.latency_us is not None else "-"
        table.add_row(summary.month, *counts, latency, duration_text(summary.seconds))
    console = Console()
    if not console.is_terminal:
        console = Console(width=100)
    console.print(table)
    console.print(f"{flights:,} flights in {len(summaries)} runs, {seconds:.1f} s from the start of the first process.")


_COUNTS = ("flights", "quarantined", "scored", "on_time", "at_risk", "late")
_HEADINGS = ("flights in", "quarantined", "scored", "on time", "at risk", "late")

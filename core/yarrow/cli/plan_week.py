"""`yarrow plan-week`: what the schedules of a folder would bring in a period."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import yaml

from yarrow.cli.access import open_store
from yarrow.cli.arguments import as_utc, moment
from yarrow.cli.output import duration_text, json_option, print_json, print_table
from yarrow.clock import utc_now
from yarrow.config import Config, load_config
from yarrow.errors import StoreError, UsageError
from yarrow.forecast import Capacity, Forecast, Progress, forecast
from yarrow.language.durations import parse_duration
from yarrow.language.lint import load_paths
from yarrow.language.spec import DagSpec

Recorded = Mapping[str, Mapping[str, float]]
"""dag_id -> task_id -> seconds."""

_SHOWN_MISSES = 20
_YEARS = (1900, 9900)
"""When a period may begin."""


@click.command("plan-week")
@click.option(
    "--dags",
    "folder",
    type=click.Path(path_type=Path, exists=True),
    help="The DAG folder. Default: the configured one.",
)
@click.option("--from", "start", type=moment, metavar="ISO", help="When the period begins, UTC. Default: now.")
@click.option("--days", type=click.FloatRange(0.01, 3660), default=7, show_default=True, help="How long it is.")
@click.option("--slots", type=click.IntRange(1), help="Slots of all workers. Default: as many as are wanted.")
@click.option(
    "--pool", "pools", metavar="NAME=SLOTS", multiple=True, help="The slots of a pool, over those of the configuration."
)
@click.option(
    "--durations",
    "durations_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A YAML file of durations: `dag_id: {task_id: 5m}`, over the recorded ones.",
)
@click.option("--default-duration", default="1m", show_default=True, help="Of tasks of which none is known.")
@click.option("--recorded/--no-recorded", default=True, help="Whether to take the mean durations of past runs.")
@json_option
def plan_week(
    folder: Path | None,
    start: datetime | None,
    days: float,
    slots: int | None,
    pools: tuple[str, ...],
    durations_file: Path | None,
    default_duration: str,
    recorded: bool,
    as_json: bool,
) -> None:
    """Show what the schedules of a folder would bring: what waits, what is late, and the slots it takes.

    The schedules run on a virtual clock, with the scheduler's own decisions.

    Tasks are taken to succeed at once; a branch goes all ways. Nothing is executed, and nothing is changed.
    """
    if math.isnan(days):
        raise UsageError("`--days` is a number, such as 7 or 0.5.")
    config = load_config()
    specs = _specs(folder or config.dags_folder)
    begin = as_utc(start, UTC) if start else utc_now().replace(microsecond=0)
    if not _YEARS[0] <= begin.year <= _YEARS[1]:
        raise UsageError(f"`--from` is in the years from {_YEARS[0]} to {_YEARS[1]}, not {begin.isoformat()}.")
    known = _recorded(config) if recorded else {}
    given = _given(durations_file, specs)
    otherwise = _seconds(default_duration, "--default-duration")

    def seconds(dag_id: str, task_id: str) -> float:
        for source in (given, known):
            if (found := source.get(dag_id, {}).get(task_id)) is not None:
                return found
        return otherwise

    bounds = {**config.pools, **dict(_pool(text) for text in pools)}
    end = begin + timedelta(days=days)

    def ask(available: int | None) -> Forecast:
        with progress_over(begin, end) as progress:
            capacity = Capacity(available, bounds)
            return forecast(specs, begin, end, durations=seconds, capacity=capacity, progress=progress)

    result = ask(slots)
    wanted = result if slots is None else ask(None)
    guessed = sum(
        task_id not in {**known.get(spec.dag_id, {}), **given.get(spec.dag_id, {})}
        for spec in specs
        for task_id, task in spec.tasks.items()
        if task.operator != "empty"  # which takes none
    )
    if as_json:
        print_json({**_as_object(result), "slots": slots, "slots_wanted": wanted.peak_slots, "guessed_tasks": guessed})
    else:
        _show(result, wanted, slots, guessed, default_duration)


@contextmanager
def progress_over(begin: datetime, end: datetime) -> Iterator[Progress]:
    """A bar on stderr, where a person can see it, of the days that have passed."""
    hidden = not sys.stderr.isatty()
    length = max(int((end - begin).total_seconds()), 1)
    with click.progressbar(length=length, file=sys.stderr, hidden=hidden, show_eta=True, label="planning") as bar:
        yield lambda now: bar.update(int((now - begin).total_seconds()) - bar.pos)


def _specs(folder: Path) -> list[DagSpec]:
    results, faults = load_paths([folder])
    if errors := [fault for fault in faults if fault.severity == "error"]:
        more = f"\n  and {len(errors) - 10} more" if len(errors) > 10 else ""
        listed = "\n  ".join(str(fault) for fault in errors[:10])
        raise UsageError(f"{folder} has faults:\n  {listed}{more}")
    specs = [result.spec for result in results if result.spec is not None]
    if not specs:
        raise UsageError(f"There is no DAG in {folder}.")
    return specs


def _recorded(config: Config) -> Recorded:
    """The mean durations of past runs; none when there is no database."""
    try:
        with open_store(config) as store:
            return store.history.durations()
    except (UsageError, StoreError):
        return {}


def _given(file: Path | None, specs: list[DagSpec]) -> Recorded:
    if file is None:
        return {}
    try:
        data = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{file} can't be read: {error}") from error
    known = {spec.dag_id: spec for spec in specs}
    if not isinstance(data, dict):
        raise UsageError(f"{file} is a mapping such as `my_dag: {{my_task: 5m}}`.")
    for dag_id, tasks in data.items():
        if dag_id not in known:
            raise UsageError(f"{file}: there is no DAG {dag_id!r} in the folder.")
        if not isinstance(tasks, dict):
            raise UsageError(f"{file}: `{dag_id}` is a mapping of tasks to durations, such as `my_task: 5m`.")
        if strange := [task_id for task_id in tasks if task_id not in known[dag_id].tasks]:
            raise UsageError(f"{file}: the DAG {dag_id!r} has no task {strange[0]!r}.")
    return {
        dag_id: {task_id: _seconds(str(text), f"{file}: {dag_id}.{task_id}") for task_id, text in tasks.items()}
        for dag_id, tasks in data.items()
    }


def _seconds(text: str, what: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{what}: {error}") from error


def _pool(text: str) -> tuple[str, int]:
    name, _, slots = text.partition("=")
    if not name or not slots.isdigit():
        raise UsageError(f"--pool {text!r} is not of the form NAME=SLOTS, such as --pool gpu=2.")
    return name, int(slots)


def _as_object(result: Forecast) -> dict[str, object]:
    return {
        "start": result.start,
        "end": result.end,
        "runs": result.runs,
        "tasks": result.tasks,
        "peak_slots": result.peak_slots,
        "peak_at": result.peak_at,
        "peak_pools": result.peak_pools,
        "dags": result.dags,
        "misses": result.misses,
    }


def _show(result: Forecast, wanted: Forecast, slots: int | None, guessed: int, otherwise: str) -> None:
    click.echo(f"{result.start:%Y-%m-%d %H:%M} to {result.end:%Y-%m-%d %H:%M} UTC")
    rows = [
        (
            dag.dag_id,
            dag.runs,
            dag.tasks,
            duration_text(dag.mean_run),
            duration_text(dag.longest_run),
            duration_text(dag.mean_wait),
            f"{duration_text(dag.longest_wait)} {dag.longest_wait_task}" if dag.longest_wait_task else None,
            duration_text(dag.longest_queue) if dag.longest_queue else None,
            dag.unfinished or None,
            dag.misses or None,
        )
        for dag in result.dags
        if dag.runs
    ]
    columns = ("DAG", "RUNS", "TASKS", "MEAN RUN", "LONGEST", "MEAN WAIT", "LONGEST WAIT", "RUN WAITED", "OPEN", "LATE")
    print_table(columns, rows, empty="No run is due in this time.")
    click.echo()
    for miss in result.misses[:_SHOWN_MISSES]:
        what = f"task {miss.task_id} of {miss.dag_id}" if miss.task_id else miss.dag_id
        ended = f"ends {miss.ended_at:%Y-%m-%d %H:%M}" if miss.ended_at else "does not end"
        click.echo(f"late: {what} for {miss.logical_date:%Y-%m-%d %H:%M}, due {miss.due_at:%Y-%m-%d %H:%M}, {ended}")
    if len(result.misses) > _SHOWN_MISSES:
        click.echo(f"late: {len(result.misses) - _SHOWN_MISSES} more")
    if wanted.peak_at is not None:
        have = "" if slots is None else f", of {slots} that there are"
        slots_are = "1 slot is" if wanted.peak_slots == 1 else f"{wanted.peak_slots} slots are"
        click.echo(f"At most {slots_are} wanted at once, at {wanted.peak_at:%Y-%m-%d %H:%M}{have}.")
    if wanted.peak_pools:
        listed = ", ".join(f"{name} {used}" for name, used in wanted.peak_pools.items())
        click.echo(f"Of pools: {listed}.")
    if guessed:
        click.echo(f"{guessed} {'task has' if guessed == 1 else 'tasks have'} no known duration: {otherwise} is taken.")

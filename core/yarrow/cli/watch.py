"""Watches one run: a live table on a terminal, a line for each event elsewhere."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime

import click

from yarrow.cli.output import STYLES, duration_text, instance_name
from yarrow.clock import utc_now
from yarrow.store import Store
from yarrow.store.records import EventRecord, RunRecord, TaskInstanceRecord

INTERVAL = 0.25
"""Seconds between two looks at the database."""


def watch_run(store: Store, dag_id: str, run_id: str, *, as_json: bool) -> int:
    """Shows how a run goes until it ends. Returns the exit code: 0, or 1 when it failed."""
    run = store.runs.get(dag_id, run_id)
    run = _watch_live(store, run) if sys.stdout.isatty() and not as_json else _watch_lines(store, run, as_json)
    return 0 if run.state.value == "success" else 1


def _watch_lines(store: Store, run: RunRecord, as_json: bool) -> RunRecord:
    seen = 0
    while True:
        run = store.runs.by_id(run.id)  # before its events: the last look then shows them all
        for event in store.runs.events(run.dag_id, run.run_id, after=seen):
            seen = event.id
            click.echo(json.dumps(event.to_json()) if as_json else _line(event))
        if run.state.finished:
            return run
        time.sleep(INTERVAL)


def _line(event: EventRecord) -> str:
    what = "run" if event.task_id is None else instance_name(event.task_id, event.map_index)
    reason = f": {event.reason}" if event.reason else ""
    return f"{event.at:%H:%M:%S} {what} {event.to_state or event.kind}{reason}"


def _watch_live(store: Store, run: RunRecord) -> RunRecord:
    from rich.console import Group, RenderableType
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    def picture(run: RunRecord, rows: list[_Row], now: datetime) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        for column in ("TASK", "STATE", "TRY", "TOOK", "PROGRESS", "REASON"):
            table.add_column(column, overflow="fold")
        for name, states, tries, took, progress, reason in rows:
            styled = [Text(words, style=STYLES.get(state, "")) for state, words in states.items()]
            table.add_row(name, Text(", ").join(styled), tries, took, progress, reason)
        state = run.state.value
        took = _took(run.started_at, run.ended_at, now)
        head = Text.assemble(f"{run.dag_id} {run.run_id}: ", (state, STYLES.get(state, "")), f"  {took}")
        return Group(head, table)

    with Live(refresh_per_second=8) as live:
        while True:
            run = store.runs.by_id(run.id)
            now = utc_now()
            live.update(picture(run, _rows(store, run, now), now))
            if run.state.finished:
                return run
            time.sleep(INTERVAL)


_Row = tuple[str, dict[str, str], str, str, str, str]
"""Name, words by state, tries, time, progress and reason of a task."""


def _rows(store: Store, run: RunRecord, now: datetime) -> list[_Row]:
    """A row for each task; a mapped one is one row, so that the table fits on a terminal."""
    instances = {task.task_id: task for task in store.runs.task_instances(run.id, mapped=False)}
    rows: list[_Row] = []
    for task in store.runs.task_summaries([run.id])[run.id]:
        took = _took(task.started_at, task.ended_at, now)
        one = instances.get(task.task_id)
        if task.mapped:
            states = {state.value: f"{count} {state.value}" for state, count in task.states.items()}
            rows.append((f"{task.task_id} ×{sum(task.states.values())}", states, "", took, "", ""))
        elif one is not None:
            tries = f"{one.try_number}/{one.max_tries}"
            rows.append(
                (task.task_id, {one.state.value: one.state.value}, tries, took, _progress(one), one.reason or "")
            )
    return rows


def _took(start: datetime | None, end: datetime | None, now: datetime) -> str:
    return duration_text(max(0.0, ((end or now) - start).total_seconds())) if start else ""


def _progress(task: TaskInstanceRecord) -> str:
    progress = task.progress or {}
    done, total, unit = progress.get("done"), progress.get("total"), progress.get("unit") or ""
    if not isinstance(done, int | float) or task.state.finished:
        return ""
    if isinstance(total, int | float) and total:
        return f"{done:,.0f} of {total:,.0f} {unit} ({done / total:.0%})"
    return f"{done:,.0f} {unit}"

"""`yarrow runs`: what ran, what runs and how it goes, and what is done to runs by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from yarrow.cli.access import open_store
from yarrow.cli.arguments import LIMIT
from yarrow.cli.lazy import LazyGroup
from yarrow.cli.output import instance_name, json_option, print_json, print_table, seconds_between
from yarrow.errors import NotFound
from yarrow.states import RunState

if TYPE_CHECKING:
    from yarrow.store import Store
    from yarrow.store.records import RunRecord


@click.group(
    cls=LazyGroup,
    lazy={
        "clear": ("yarrow.cli.clearing:clear_runs", "Have all tasks of runs executed again."),
        "delete": ("yarrow.cli.delete:delete_runs", "Delete runs with all that belongs to them."),
        "mark": ("yarrow.cli.marking:mark_runs", "Mark runs as success or failed."),
    },
)
def runs() -> None:
    """List, show, watch, clear, mark and delete runs."""


@runs.command("list")
@click.argument("dag_id", required=False)
@click.option("--state", type=click.Choice([state.value for state in RunState]), help="Only runs in this state.")
@click.option("--limit", type=LIMIT, default=50, show_default=True, help="How many at most.")
@json_option
def list_runs(dag_id: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """List the runs of a DAG, or of all of them, the newest first."""
    with open_store() as store:
        if dag_id:
            store.catalog.dag(dag_id)  # a typo is told, instead of an empty list
        records = store.runs.list(dag_id, state, limit)
    if as_json:
        print_json([record.to_json() for record in records])
        return
    rows = [
        (
            record.dag_id,
            record.run_id,
            record.run_type,
            record.state.value,
            record.logical_date,
            record.started_at,
            seconds_between(record.started_at, record.ended_at),
        )
        for record in records
    ]
    columns = ("DAG", "RUN", "TYPE", "STATE", "LOGICAL DATE (UTC)", "STARTED (UTC)", "TOOK")
    print_table(columns, rows, empty="There is no run.")


@runs.command()
@click.argument("dag_id")
@click.argument("run_id", required=False)
@json_option
def show(dag_id: str, run_id: str | None, as_json: bool) -> None:
    """Show a run and its tasks; without RUN_ID, or with `-`, the newest run of the DAG."""
    with open_store() as store:
        run = find_run(store, dag_id, run_id)
        tasks = store.runs.task_instances(run.id)
        of_backfill = _backfill_text(store, run)
        missed = store.deadlines.list(run.dag_id, run.run_id)
    if as_json:
        deadlines = [deadline.to_json() for deadline in missed]
        print_json({**run.to_json(), "tasks": [task.to_json() for task in tasks], "missed_deadlines": deadlines})
        return
    click.echo(f"{run.dag_id} {run.run_id}: {run.state.value}{f' ({run.reason})' if run.reason else ''}")
    interval = f"{run.data_interval_start:%Y-%m-%d %H:%M:%S} to {run.data_interval_end:%Y-%m-%d %H:%M:%S} UTC"
    facts = {
        "interval": interval,
        "took": seconds_between(run.started_at, run.ended_at) or "-",
        "params": ", ".join(f"{name}={value!r}" for name, value in run.params.items()) or "-",
        "started by": run.triggered_by or ("data sets" if run.run_type == "dataset" else "the schedule"),
    }
    if of_backfill:
        facts["backfill"] = of_backfill
    for name, value in facts.items():
        click.echo(f"  {name + ':':<11} {value}")
    for deadline in missed:
        whose = f" by {deadline.task_id}" if deadline.task_id else ""
        click.echo(f"  deadline:   missed{whose}, {deadline.due_at:%Y-%m-%d %H:%M:%S} UTC")
    click.echo()
    rows = [
        (
            instance_name(task.task_id, task.map_index),
            f"{task.state} (cached)" if task.cached else task.state.value,
            f"{task.try_number}/{task.max_tries}",
            task.queue,
            task.started_at,
            seconds_between(task.started_at, task.ended_at),
            task.reason,
        )
        for task in tasks
    ]
    print_table(("TASK", "STATE", "TRY", "QUEUE", "STARTED (UTC)", "TOOK", "REASON"), rows, empty=_no_task(run))


def _backfill_text(store: Store, run: RunRecord) -> str | None:
    """`1, run 3 of 14 (paused)`; None when it belongs to no backfill that there still is."""
    if run.backfill_id is None:
        return None
    try:
        found = store.backfills.get(run.backfill_id)
    except NotFound:
        return None
    place = f", run {run.backfill_place:,} of {found.run_count:,}" if run.backfill_place else ""
    return f"{found.id}{place}{f' ({found.state})' if found.state in ('paused', 'cancelled') else ''}"


def _no_task(run: RunRecord) -> str:
    """Why a run has no task instance."""
    if run.state is RunState.QUEUED:
        return "The run has not started: its tasks are made when it does."
    return "This run has no tasks: it never started."


@runs.command()
@click.argument("dag_id")
@click.argument("run_id", required=False)
@json_option
def watch(dag_id: str, run_id: str | None, as_json: bool) -> None:
    """Watch a run until it ends; without RUN_ID, or with `-`, the newest of the DAG. Exits with 1 if it fails.

    With --json each event is printed as a line of JSON.
    """
    from yarrow.cli.watch import watch_run  # rich, which the listings do not need

    with open_store() as store:
        raise SystemExit(watch_run(store, dag_id, find_run(store, dag_id, run_id).run_id, as_json=as_json))


def find_run(store: Store, dag_id: str, run_id: str | None) -> RunRecord:
    """The run; without an id, or with `-`, the newest one of the DAG. Raises NotFound."""
    if run_id and run_id != "-":
        return store.runs.get(dag_id, run_id)
    store.catalog.dag(dag_id)
    newest = store.runs.list(dag_id, limit=1)
    if not newest:
        raise NotFound(f"The DAG {dag_id!r} has no run yet.", hint=f"Start one with `yarrow dags trigger {dag_id}`.")
    return newest[0]

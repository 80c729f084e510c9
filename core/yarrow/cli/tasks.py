"""`yarrow tasks`: the attempts and logs of tasks, what is done to them by hand, and one task tried out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from yarrow.cli.access import open_store
from yarrow.cli.arguments import map_index_option
from yarrow.cli.lazy import LazyGroup
from yarrow.cli.output import instance_name, json_option, print_json, print_table, seconds_between, text_of
from yarrow.cli.runs import find_run
from yarrow.config import load_config
from yarrow.errors import NotFound
from yarrow.logs import LogStore
from yarrow.protocol import LogLine
from yarrow.schedules.words import join_words

if TYPE_CHECKING:
    from yarrow.store import Store
    from yarrow.store.records import AttemptRecord, TaskInstanceRecord

NEWEST_RUN = "-"


@click.group(
    cls=LazyGroup,
    lazy={
        "clear": ("yarrow.cli.clearing:clear_tasks", "Have tasks of a run executed again."),
        "mark": ("yarrow.cli.marking:mark_tasks", "Mark tasks of a run as success, failed or skipped."),
        "test": ("yarrow.cli.test:task_test", "Run one task of a DAG file in this process."),
    },
)
def tasks() -> None:
    """Show the attempts and logs of tasks; clear and mark them; test one."""


@tasks.command()
@click.argument("dag_id")
@click.argument("run_id")
@click.argument("task_id")
@map_index_option
@json_option
def show(dag_id: str, run_id: str, task_id: str, map_index: int, as_json: bool) -> None:
    """Show a task of a run with all its attempts. RUN_ID `-` is the newest run of the DAG.

    Attempts from before it was cleared or marked are there too; `yarrow tasks logs --try N` prints the log of each.
    """
    with open_store() as store:
        run = find_run(store, dag_id, None if run_id == NEWEST_RUN else run_id)
        instance = store.runs.task_instance(dag_id, run.run_id, task_id, map_index)
        attempts = store.attempts.attempts(instance.id)
    if as_json:
        print_json({**instance.to_json(), "attempts": [attempt.to_json() for attempt in attempts]})
        return
    why = f" ({text_of(instance.reason)})" if instance.reason else ""
    click.echo(f"{instance_name(task_id, map_index)} of {dag_id} {run.run_id}: {instance.state}{why}")
    click.echo()
    rows = [
        (
            attempt.try_number,
            attempt.state.value,
            attempt.started_at,
            seconds_between(attempt.started_at, attempt.ended_at),
            attempt.worker_id,
            attempt.reason,
        )
        for attempt in attempts
    ]
    columns = ("TRY", "STATE", "STARTED (UTC)", "TOOK", "WORKER", "REASON")
    print_table(columns, rows, empty="It has not been tried yet.")


@tasks.command()
@click.argument("dag_id")
@click.argument("run_id")
@click.argument("task_id")
@map_index_option
@click.option("--try", "try_number", type=click.IntRange(min=1), help="The try; the newest one if it is not given.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the try has ended.")
@json_option
def logs(
    dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int | None, follow: bool, as_json: bool
) -> None:
    """Print what a task printed and logged. RUN_ID `-` is the newest run of the DAG.

    With --json each line is an object: at, stream, text and level.
    """
    config = load_config()
    store_of_logs = LogStore(config.logs_url)
    with open_store(config) as store:
        run = find_run(store, dag_id, None if run_id == NEWEST_RUN else run_id)
        instance = store.runs.task_instance(dag_id, run.run_id, task_id, map_index)
        attempts = _attempts(store, instance, try_number)
        number = attempts[-1].try_number
        name = (dag_id, run.run_id, task_id, instance.map_index, number)

        def finished() -> bool:
            return _attempts(store, instance, number)[-1].state.finished

        if follow:
            for line in store_of_logs.follow(*name, finished=finished):
                _print(line, as_json)
            return
        offset = 0
        while True:
            lines, offset = store_of_logs.read(*name, offset=offset)
            if not lines:
                break
            for line in lines:
                _print(line, as_json)
        last = attempts[-1]
        if last.reason and last.state.value != "success":
            click.echo(f"{last.state.value}: {last.reason}", err=True)


def _attempts(store: Store, instance: TaskInstanceRecord, try_number: int | None) -> list[AttemptRecord]:
    """The attempts of a try, or all of them; at least one. Raises NotFound."""
    attempts = store.attempts.attempts(instance.id)
    if not attempts:
        reason = f": it is {instance.state.value}{f' ({instance.reason})' if instance.reason else ''}"
        raise NotFound(f"The task {instance.task_id!r} has not been started{reason}.")
    wanted = [attempt for attempt in attempts if try_number in (None, attempt.try_number)]
    if not wanted:
        tries = sorted({attempt.try_number for attempt in attempts})
        there = join_words([str(number) for number in tries])
        hint = f"There are the tries {there}." if len(tries) > 1 else f"There is try {there} alone."
        raise NotFound(f"The task {instance.task_id!r} has no try {try_number}.", hint=hint)
    return wanted


def _print(line: LogLine, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(line.to_json(), ensure_ascii=False))
        return
    level = f"{line.level} " if line.level else ""
    click.echo(f"{line.at[11:23]} {level}{line.text}")

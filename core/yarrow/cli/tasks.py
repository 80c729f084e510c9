"""`yarrow tasks`: the logs of tasks, what is done to them by hand, and one task tried out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from yarrow.cli.access import open_store
from yarrow.cli.arguments import map_index_option
from yarrow.cli.lazy import LazyGroup
from yarrow.cli.output import json_option
from yarrow.cli.runs import find_run
from yarrow.config import load_config
from yarrow.errors import NotFound
from yarrow.logs import LogStore
from yarrow.protocol import LogLine

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
    """Read the logs of tasks; clear and mark them; test one."""


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
        raise NotFound(
            f"The task {instance.task_id!r} has no try {try_number}.", hint=f"There is {', '.join(map(str, tries))}."
        )
    return wanted


def _print(line: LogLine, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(line.to_json(), ensure_ascii=False))
        return
    level = f"{line.level} " if line.level else ""
    click.echo(f"{line.at[11:23]} {level}{line.text}")

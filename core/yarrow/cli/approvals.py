"""`yarrow approvals`: what runs ask people, and the answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from yarrow.cli.access import open_store, wake_scheduler, who
from yarrow.cli.arguments import map_index_option
from yarrow.cli.output import instance_name, json_option, print_json, print_table
from yarrow.cli.runs import find_run
from yarrow.config import load_config

F = TypeVar("F", bound=Callable[..., Any])

NEWEST_RUN = "-"


@click.group()
def approvals() -> None:
    """Show what runs ask people, and answer."""


@approvals.command("list")
@click.argument("dag_id", required=False)
@json_option
def list_approvals(dag_id: str | None, as_json: bool) -> None:
    """List the questions that wait for an answer, the oldest first; of a DAG, or of all of them."""
    with open_store() as store:
        if dag_id:
            store.catalog.dag(dag_id)  # a typo is told, instead of an empty list
        records = store.approvals.open(dag_id)
    if as_json:
        print_json([record.to_json() for record in records])
        return
    rows = [
        (
            record.dag_id,
            record.run_id,
            instance_name(record.task_id, record.map_index),
            record.asked_at,
            record.due_at,
            (record.default_answer or "fail") if record.due_at else None,
            record.message,
        )
        for record in records
    ]
    columns = ("DAG", "RUN", "TASK", "ASKED (UTC)", "UNTIL (UTC)", "ELSE", "MESSAGE")
    print_table(columns, rows, empty="Nothing waits for an answer.")


def _answering(command: F) -> F:
    """Adds what both answers take."""
    for add in (
        click.option("--comment", metavar="TEXT", help="Why; it is kept with the answer, and in the task's XCom."),
        map_index_option,
        click.argument("task_id"),
        click.argument("run_id"),
        click.argument("dag_id"),
    ):
        command = add(command)
    return command


@approvals.command()
@_answering
def approve(dag_id: str, run_id: str, task_id: str, map_index: int, comment: str | None) -> None:
    """Say yes: the run goes on. RUN_ID `-` is the newest run of the DAG."""
    _answer(True, dag_id, run_id, task_id, map_index, comment)


@approvals.command()
@_answering
def reject(dag_id: str, run_id: str, task_id: str, map_index: int, comment: str | None) -> None:
    """Say no: what comes after the task is skipped, or it fails. RUN_ID `-` is the newest run of the DAG."""
    _answer(False, dag_id, run_id, task_id, map_index, comment)


def _answer(approve: bool, dag_id: str, run_id: str, task_id: str, map_index: int, comment: str | None) -> None:
    config = load_config()
    with open_store(config) as store:
        run = find_run(store, dag_id, None if run_id == NEWEST_RUN else run_id)
        record = store.approvals.answer(
            dag_id, run.run_id, task_id, map_index, approve=approve, who=who(), comment=comment
        )
    wake_scheduler(config)
    name = instance_name(record.task_id, record.map_index)
    verb = "approved" if approve else "rejected"
    click.echo(f"{name} of the run {record.run_id} of {record.dag_id} is {verb}: it ended as {record.state.value}.")

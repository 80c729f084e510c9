"""`yarrow cache`: the results that later runs take instead of coming to them anew."""

from __future__ import annotations

import click

from yarrow.cli.access import open_store
from yarrow.cli.arguments import LIMIT
from yarrow.cli.output import json_option, print_json, print_table
from yarrow.clock import utc_now
from yarrow.errors import UsageError


@click.group()
def cache() -> None:
    """List and forget the results of tasks with `cache:`."""


@cache.command("list")
@click.argument("dag_id", required=False)
@click.option("--task", "task_id", help="Only results of this task.")
@click.option("--limit", type=LIMIT, default=1000, show_default=True, help="How many at most.")
@json_option
def list_results(dag_id: str | None, task_id: str | None, limit: int, as_json: bool) -> None:
    """List the results that are kept, of a DAG or of all of them."""
    _check(dag_id, task_id)
    with open_store() as store:
        records = store.cache.entries(dag_id, task_id, limit)
    if as_json:
        print_json([record.to_json() for record in records])
        return
    rows = [
        (record.dag_id, record.task_id, record.key[:12], record.created_at, record.expires_at or "never")
        for record in records
    ]
    print_table(("DAG", "TASK", "KEY", "KEPT SINCE (UTC)", "EXPIRES (UTC)"), rows, empty="There is no result.")


@cache.command()
@click.argument("dag_id", required=False)
@click.option("--task", "task_id", help="Only results of this task.")
@click.option("--expired", is_flag=True, help="Only those that are too old to be used.")
@json_option
def clear(dag_id: str | None, task_id: str | None, expired: bool, as_json: bool) -> None:
    """Forget results, of a DAG or of all of them, so that their tasks are executed again."""
    _check(dag_id, task_id)
    with open_store() as store:
        count = store.cache.clear(dag_id, task_id, utc_now() if expired else None)
    if as_json:
        print_json({"cleared": count})
        return
    click.echo(f"{count:,} result{'' if count == 1 else 's'} forgotten.")


def _check(dag_id: str | None, task_id: str | None) -> None:
    if task_id and not dag_id:
        raise UsageError(f"The task {task_id!r} of which DAG?", hint="Name the DAG as well.")

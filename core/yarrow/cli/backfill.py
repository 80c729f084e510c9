"""`yarrow backfill`: runs of a span of time, made or run again, and how far they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import click

from yarrow.cli.access import open_store, wake_scheduler, who
from yarrow.cli.arguments import as_utc, json_object, last_moment, moment
from yarrow.cli.lazy import LazyGroup
from yarrow.cli.output import duration_text, json_option, print_json, print_table, text_of
from yarrow.cli.plan_text import backfill_of, local_text, over_text, progress_text
from yarrow.cli.planning import plan_options, propose, zone_of
from yarrow.config import load_config
from yarrow.errors import UsageError
from yarrow.jsontypes import Json
from yarrow.plans.requests import REPROCESS, BackfillRequest

if TYPE_CHECKING:
    from yarrow.store import Store

NUMBER = click.IntRange(1, 2**63 - 1)
"""The id of a backfill."""


@click.group(cls=LazyGroup)
def backfill() -> None:
    """Make runs of a span of time, and watch over them."""


@backfill.command()
@click.argument("dag_id", metavar="DAG")
@click.option(
    "--from",
    "from_date",
    type=moment,
    metavar="ISO",
    required=True,
    help="The first logical date, itself included; local to the DAG without an offset.",
)
@click.option(
    "--to",
    "to_date",
    type=last_moment,
    metavar="ISO",
    required=True,
    help="The last logical date, itself included; a date is that whole day.",
)
@click.option(
    "--reprocess",
    type=click.Choice(REPROCESS),
    default="none",
    show_default=True,
    help="Which runs that there are run again: none; failed ones, from what failed on; or all that have ended.",
)
@click.option("--whole-runs", is_flag=True, help="With `--reprocess failed`: all tasks of them, not only what failed.")
@click.option("--tasks", metavar="SELECTOR", help="Only these tasks: `task`, `+task`, `task+`, `group.*`, `tag:x`.")
@click.option(
    "--max-active-runs", type=click.IntRange(1, 100_000), default=10, show_default=True, help="How many at once."
)
@click.option("--run-backwards", is_flag=True, help="The latest first.")
@click.option("--params", type=json_object, metavar="JSON", help="The params of the runs, as a JSON object.")
@click.option(
    "--priority",
    type=click.IntRange(-100, 100),
    help="The priority class; other runs have 0, and a higher one goes first. Default: `backfill_priority`.",
)
@click.option("--while-paused", is_flag=True, help="Also if the DAG is paused: the runs wait until it is not.")
@click.option("--watch", "watching", is_flag=True, help="Watch it afterwards, and exit with 1 if a run of it fails.")
@plan_options
def create(
    dag_id: str,
    from_date: datetime,
    to_date: datetime,
    reprocess: str,
    whole_runs: bool,
    tasks: str | None,
    max_active_runs: int,
    run_backwards: bool,
    params: Mapping[str, Json] | None,
    priority: int | None,
    while_paused: bool,
    watching: bool,
    reason: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Plan a run for each data interval of a span of time, show that, and do it."""
    if watching and dry_run:
        raise UsageError("There is nothing to watch after --dry-run: leave --watch out.")
    config = load_config()
    with open_store(config) as store:
        zone = zone_of(store, dag_id)
        request = BackfillRequest(
            dag_id=dag_id,
            from_date=as_utc(from_date, zone),
            to_date=as_utc(to_date, zone),
            reprocess=reprocess,
            whole_runs=whole_runs,
            tasks=tasks,
            max_active_runs=max_active_runs,
            run_backwards=run_backwards,
            params=params or {},
            priority_class=config.backfill_priority if priority is None else priority,
            while_paused=while_paused,
            reason=reason,
        )
        plan = propose(config, store, request, dry_run=dry_run, yes=yes, as_json=as_json, quiet=watching)
        if watching and plan is not None:
            from yarrow.cli.watch_backfill import watch_backfill  # rich, which making it alone does not need

            raise SystemExit(watch_backfill(store, backfill_of(plan), as_json=as_json))


@backfill.command("list")
@click.argument("dag_id", metavar="[DAG]", required=False)
@click.option("--active", is_flag=True, help="Only those that have runs left.")
@json_option
def list_backfills(dag_id: str | None, active: bool, as_json: bool) -> None:
    """List the backfills of a DAG, or of all of them, the newest first."""
    with open_store() as store:
        if dag_id:
            store.catalog.dag(dag_id)  # a typo is told, instead of an empty list
        records = store.backfills.list(dag_id, active_only=active)
    if as_json:
        print_json([record.to_json() for record in records])
        return
    rows = [
        (
            record.id,
            record.dag_id,
            record.state,
            over_text(record),
            record.counts.get("failed") or None,
            duration_text(record.eta) if record.eta is not None else None,
            record.from_date,
            record.to_date,
            record.created_by,
        )
        for record in records
    ]
    columns = ("ID", "DAG", "STATE", "OVER", "FAILED", "TO GO", "FROM (UTC)", "TO (UTC)", "BY")
    print_table(columns, rows, empty="There is no backfill.")


@backfill.command()
@click.argument("backfill_id", type=NUMBER, metavar="ID")
@json_option
def show(backfill_id: int, as_json: bool) -> None:
    """Show a backfill: what it does, and how far it is."""
    with open_store() as store:
        record = store.backfills.get(backfill_id)
        if as_json:
            print_json(record.to_json())
            return
        zone = zone_of(store, record.dag_id)
    click.echo(f"Backfill {record.id} of {record.dag_id}: {progress_text(record)}")
    facts = {
        "from": local_text(record.from_date, zone),
        "to": local_text(record.to_date, zone),
        "reprocess": record.reprocess,
        "tasks": record.tasks or "all",
        "params": ", ".join(f"{name}={value!r}" for name, value in record.params.items()) or "-",
        "order": f"{'latest' if record.run_backwards else 'oldest'} first, {record.max_active_runs:,} at once",
        "priority": f"class {record.priority_class}; other runs have 0",
        "plan": record.plan_id,
        "begun": f"{text_of(record.created_at)} UTC by {record.created_by}",
        "cancelled": f"{text_of(record.cancelled_at)} UTC" if record.cancelled_at else "-",
    }
    for name, value in facts.items():
        click.echo(f"  {name + ':':<11} {value}")


@backfill.command()
@click.argument("backfill_id", type=NUMBER, metavar="ID")
def pause(backfill_id: int) -> None:
    """Let no more runs of a backfill start; those that run go on."""
    with _changing() as store:
        record = store.backfills.pause(backfill_id, who())
    click.echo(f"The backfill {record.id} of {record.dag_id} is paused; `yarrow backfill resume {record.id}` goes on.")


@backfill.command()
@click.argument("backfill_id", type=NUMBER, metavar="ID")
def resume(backfill_id: int) -> None:
    """Let the runs of a paused backfill start again."""
    with _changing() as store:
        record = store.backfills.resume(backfill_id, who())
    click.echo(f"The backfill {record.id} of {record.dag_id} goes on: {progress_text(record)}.")


@backfill.command()
@click.argument("backfill_id", type=NUMBER, metavar="ID")
@click.option("--reason", metavar="TEXT", help="Why; it is kept in the history.")
def cancel(backfill_id: int, reason: str | None) -> None:
    """End a backfill. What runs goes on; its queued runs are deleted, or end as failed if they ran before."""
    with _changing() as store:
        record = store.backfills.cancel(backfill_id, who(), reason)
    click.echo(f"The backfill {record.id} of {record.dag_id} is {progress_text(record)}.")


@backfill.command()
@click.argument("backfill_id", type=NUMBER, metavar="ID")
@json_option
def watch(backfill_id: int, as_json: bool) -> None:
    """Watch a backfill until it is over. Exits with 1 if a run of it failed, or it was cancelled.

    Ctrl-C ends the watching alone. With --json each change is printed as a line of JSON.
    """
    from yarrow.cli.watch_backfill import watch_backfill  # rich, which the listings do not need

    with open_store() as store:
        raise SystemExit(watch_backfill(store, backfill_id, as_json=as_json))


@contextmanager
def _changing() -> Iterator[Store]:
    """The store, for a change after which the scheduler is woken."""
    config = load_config()
    with open_store(config) as store:
        yield store
    wake_scheduler(config)

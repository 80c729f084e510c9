"""What the commands share that plan something, show it, and apply it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo

import click

from yarrow.cli.access import wake_scheduler, who
from yarrow.cli.arguments import as_utc, last_moment, moment
from yarrow.cli.output import json_option, print_json
from yarrow.cli.plan_text import outcome_lines, plan_lines
from yarrow.cli.runs import find_run
from yarrow.config import Config
from yarrow.errors import UsageError
from yarrow.schedules.zones import load_zone

if TYPE_CHECKING:
    from yarrow.plans.plan import Plan
    from yarrow.plans.requests import Request
    from yarrow.store import Store

F = TypeVar("F", bound=Callable[..., Any])

NEWEST_RUN = "-"


def plan_options(command: F) -> F:
    """Adds what every command takes that plans something: `reason`, `dry_run`, `yes` and `as_json`."""
    for add in (
        json_option,
        click.option("--yes", is_flag=True, help="Don't ask: plan it and do it, in one transaction."),
        click.option("--dry-run", is_flag=True, help="Print the plan and change nothing; it can be applied later."),
        click.option("--reason", metavar="TEXT", help="Why; it is kept in the history."),
    ):
        command = add(command)
    return command


def span_options(command: F) -> F:
    """Adds `--from` and `--to`, which stand for runs; they arrive as `from_date` and `to_date`."""
    for add in (
        click.option("--to", "to_date", type=last_moment, metavar="ISO", help="Up to it; a date is that whole day."),
        click.option(
            "--from",
            "from_date",
            type=moment,
            metavar="ISO",
            help="In place of runs: all with a logical date from it on; local to the DAG without an offset.",
        ),
    ):
        command = add(command)
    return command


def reach_options(command: F) -> F:
    """Adds the flags that widen what is selected: `upstream`, `downstream`, `past` and `future`."""
    for add in (
        click.option("--future", is_flag=True, help="Also in all runs with a later logical date."),
        click.option("--past", is_flag=True, help="Also in all runs with an earlier logical date."),
        click.option("--downstream", is_flag=True, help="Also all tasks downstream of the selected ones."),
        click.option("--upstream", is_flag=True, help="Also all tasks upstream of the selected ones."),
    ):
        command = add(command)
    return command


def instance_option(command: F) -> F:
    """Adds `--map-index`; it arrives as `map_index`, None when it is not given."""
    text = "Only this instance of a mapped task, from 0."
    return click.option("--map-index", type=click.IntRange(0, 2**31 - 1), metavar="N", help=text)(command)


def zone_of(store: Store, dag_id: str) -> ZoneInfo:
    """The time zone of a DAG. Raises NotFound."""
    return load_zone(store.catalog.spec(dag_id).timezone)


def local_span(
    store: Store, dag_id: str, from_date: datetime | None, to_date: datetime | None
) -> tuple[datetime | None, datetime | None]:
    """Both as aware UTC; naive ones are local to the DAG. Raises NotFound for an unknown DAG."""
    zone = zone_of(store, dag_id)
    return (from_date and as_utc(from_date, zone), to_date and as_utc(to_date, zone))


def named_runs(store: Store, dag_id: str, names: Sequence[str], *, spanned: bool) -> tuple[str, ...]:
    """The ids of the runs that a command names, where `-` is the newest one.

    Raises:
        UsageError: It names none, or both runs and a span.
    """
    if spanned and names:
        raise UsageError("Name runs, or a span of time with --from and --to, not both.")
    if not spanned and not names:
        raise UsageError(
            f"Which runs of {dag_id}?", hint="Name them, `-` for the newest one, or a span with --from and --to."
        )
    ids = (find_run(store, dag_id, None).run_id if name == NEWEST_RUN else name for name in names)
    return tuple(dict.fromkeys(ids))


def run_and_tasks(store: Store, dag_id: str, words: Sequence[str], *, spanned: bool) -> tuple[tuple[str, ...], str]:
    """What `RUN SELECTOR...`, or with a span `SELECTOR...`, names: run ids, and one selector. Raises UsageError."""
    if spanned and words[:1] == (NEWEST_RUN,):
        raise UsageError("Name a run, or a span of time with --from and --to, not both.")
    runs, selectors = ((), words) if spanned else (words[:1], words[1:])
    if not spanned and not runs:
        named_runs(store, dag_id, (), spanned=False)
    if not selectors:
        raise UsageError(
            "Which tasks?", hint="Name them after the run, such as `load`, `load+` or `group.*`; `*` means all."
        )
    return (() if spanned else named_runs(store, dag_id, runs, spanned=False)), " ".join(selectors)


def propose(
    config: Config, store: Store, request: Request, *, dry_run: bool, yes: bool, as_json: bool, quiet: bool = False
) -> Plan | None:
    """Plans a request, shows it, asks on a terminal, and applies exactly what was shown.

    Args:
        yes: Does not ask. Plan and deed are then one transaction, so that nothing can change in between.
        quiet: Prints nothing of it as JSON, because something else is to be.

    Returns:
        The applied plan; None when nothing was done.

    Raises:
        UsageError: It can't be planned, there is nothing to do, or something has changed since it was shown.
    """
    at_once = not dry_run and (yes or as_json)
    plan = (store.plans.carry_out if at_once else store.plans.draw)(request, who=who())
    if not as_json:
        show(store, plan)
    if dry_run:
        if as_json:
            print_json(plan.to_json())
        else:
            then = f"Apply it with `yarrow plans apply {plan.id}`." if plan.effective else "There is nothing to apply."
            click.echo(f"Nothing is changed. {then}")
        return None
    if not at_once:
        if plan.effective and _on_terminal() and not click.confirm("Apply it?"):
            click.echo(f"Nothing is changed. `yarrow plans apply {plan.id}` applies it later.")
            raise SystemExit(1)
        plan = store.plans.apply(plan.id, who=who())
    wake_scheduler(config)
    if as_json and not quiet:
        print_json(plan.to_json())
    elif not as_json:
        show_outcome(store, plan)
    return plan


def show(store: Store, plan: Plan, *, everything: bool = False) -> None:
    """Prints a plan for people."""
    for line in plan_lines(plan, zone_of(store, plan.request.dag_id), everything=everything):
        click.echo(line)


def show_outcome(store: Store, plan: Plan) -> None:
    """Prints what applying a plan did."""
    for line in outcome_lines(plan, is_paused=store.catalog.dag(plan.request.dag_id).is_paused):
        click.echo(line)


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()

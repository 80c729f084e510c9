"""`yarrow plans`: what was planned, and applying it."""

from __future__ import annotations

import click

from yarrow.cli.access import open_store, wake_scheduler, who
from yarrow.cli.arguments import LIMIT
from yarrow.cli.lazy import LazyGroup
from yarrow.cli.output import json_option, print_json, print_table
from yarrow.cli.planning import show as show_plan
from yarrow.cli.planning import show_outcome
from yarrow.config import load_config
from yarrow.plans.words import request_text


@click.group(cls=LazyGroup)
def plans() -> None:
    """List, show and apply plans to clear, to mark and to backfill."""


@plans.command("list")
@click.argument("dag_id", metavar="[DAG]", required=False)
@click.option("--limit", type=LIMIT, default=20, show_default=True, help="How many at most.")
@json_option
def list_plans(dag_id: str | None, limit: int, as_json: bool) -> None:
    """List the plans of a DAG, or of all of them, the newest first. What was not applied is kept for a week."""
    with open_store() as store:
        if dag_id:
            store.catalog.dag(dag_id)  # a typo is told, instead of an empty list
        found = store.plans.list(dag_id, limit)
    if as_json:
        print_json([{**plan.to_json(), "runs": count} for plan, count in found])
        return
    rows = [
        (
            plan.id,
            plan.request.dag_id,
            count,
            plan.planned_at,
            plan.planned_by,
            plan.applied_at,
            request_text(plan.request),
        )
        for plan, count in found
    ]
    columns = ("PLAN", "DAG", "RUNS", "PLANNED (UTC)", "BY", "APPLIED (UTC)", "WHAT")
    print_table(columns, rows, empty="There is no plan.")


@plans.command("show")
@click.argument("plan_id", metavar="PLAN")
@click.option("--all", "everything", is_flag=True, help="All runs and task instances, however many there are.")
@json_option
def show(plan_id: str, everything: bool, as_json: bool) -> None:
    """Show a plan. Six characters of its id are enough."""
    with open_store() as store:
        plan = store.plans.get(plan_id)
        if as_json:
            print_json(plan.to_json())
        else:
            show_plan(store, plan, everything=everything)


@plans.command("apply")
@click.argument("plan_id", metavar="PLAN")
@json_option
def apply(plan_id: str, as_json: bool) -> None:
    """Do exactly what a plan lists, or nothing if something has changed since."""
    config = load_config()
    with open_store(config) as store:
        plan = store.plans.apply(plan_id, who=who())
        wake_scheduler(config)
        if as_json:
            print_json(plan.to_json())
        else:
            show_outcome(store, plan)

"""`yarrow tasks mark` and `yarrow runs mark`: what counts as ended, whatever became of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from yarrow.cli.access import open_store
from yarrow.cli.planning import (
    instance_option,
    local_span,
    named_runs,
    plan_options,
    propose,
    reach_options,
    run_and_tasks,
    span_options,
)
from yarrow.config import load_config
from yarrow.plans.requests import MARKS, MarkRequest


@click.command("mark")
@click.argument("state", type=click.Choice(MARKS))
@click.argument("dag_id", metavar="DAG")
@click.argument("words", nargs=-1, metavar="[RUN] SELECTOR...")
@span_options
@instance_option
@reach_options
@plan_options
def mark_tasks(
    state: str,
    dag_id: str,
    words: tuple[str, ...],
    from_date: datetime | None,
    to_date: datetime | None,
    map_index: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Mark tasks of a run. RUN `-` is the newest one; with --from or --to there is none to name.

    What runs is stopped. The run goes on with what can run now. Selectors are those of `yarrow tasks clear`.
    """
    config = load_config()
    with open_store(config) as store:
        start, end = local_span(store, dag_id, from_date, to_date)
        run_ids, tasks = run_and_tasks(store, dag_id, words, spanned=bool(start or end))
        request = MarkRequest(
            dag_id=dag_id,
            run_ids=run_ids,
            from_date=start,
            to_date=end,
            tasks=tasks,
            map_index=map_index,
            state=state,
            **flags,
        )
        propose(config, store, request, dry_run=dry_run, yes=yes, as_json=as_json)


@click.command("mark")
@click.argument("state", type=click.Choice(["success", "failed"]))
@click.argument("dag_id", metavar="DAG")
@click.argument("run_ids", nargs=-1, metavar="RUN...")
@span_options
@plan_options
def mark_runs(
    state: str,
    dag_id: str,
    run_ids: tuple[str, ...],
    from_date: datetime | None,
    to_date: datetime | None,
    reason: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Mark runs, with all that has not ended in them. RUN `-` is the newest one.

    What runs is stopped, and teardowns do not run.
    """
    config = load_config()
    with open_store(config) as store:
        start, end = local_span(store, dag_id, from_date, to_date)
        names = named_runs(store, dag_id, run_ids, spanned=bool(start or end))
        request = MarkRequest(
            dag_id=dag_id, run_ids=names, from_date=start, to_date=end, state=state, runs=True, reason=reason
        )
        propose(config, store, request, dry_run=dry_run, yes=yes, as_json=as_json)

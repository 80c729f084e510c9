"""`yarrow tasks clear` and `yarrow runs clear`: what ran is run again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

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
from yarrow.plans.requests import ClearRequest

F = TypeVar("F", bound=Callable[..., Any])


def _which_options(command: F) -> F:
    """Adds what narrows a clear, and the version that it is done in."""
    for add in (
        click.option("--while-paused", is_flag=True, help="Also if the DAG is paused: the runs wait until it is not."),
        click.option("--latest-version", is_flag=True, help="Run them in the newest version of the DAG."),
        click.option("--only-running", is_flag=True, help="Of these, only what is running."),
        click.option("--only-failed", is_flag=True, help="Of these, only what failed or could not run."),
    ):
        command = add(command)
    return command


@click.command("clear")
@click.argument("dag_id", metavar="DAG")
@click.argument("words", nargs=-1, metavar="[RUN] SELECTOR...")
@span_options
@instance_option
@reach_options
@_which_options
@plan_options
def clear_tasks(
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
    """Have tasks of a run executed again. RUN `-` is the newest one; with --from or --to there is none to name.

    A SELECTOR is `task`, `+task` with all upstream of it, `task+` with all downstream, `group.*` or `tag:x`; several
    are a union. What runs is stopped first, and no try is used up. Attempts and logs stay.
    """
    config = load_config()
    with open_store(config) as store:
        start, end = local_span(store, dag_id, from_date, to_date)
        run_ids, tasks = run_and_tasks(store, dag_id, words, spanned=bool(start or end))
        request = ClearRequest(
            dag_id=dag_id,
            run_ids=run_ids,
            from_date=start,
            to_date=end,
            tasks=tasks,
            map_index=map_index,
            **flags,
        )
        propose(config, store, request, dry_run=dry_run, yes=yes, as_json=as_json)


@click.command("clear")
@click.argument("dag_id", metavar="DAG")
@click.argument("run_ids", nargs=-1, metavar="RUN...")
@span_options
@reach_options
@_which_options
@plan_options
def clear_runs(
    dag_id: str,
    run_ids: tuple[str, ...],
    from_date: datetime | None,
    to_date: datetime | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Have all tasks of runs executed again. RUN `-` is the newest one; in place of runs give --from and --to.

    What runs is stopped first, and no try is used up. Attempts and logs stay.
    """
    config = load_config()
    with open_store(config) as store:
        start, end = local_span(store, dag_id, from_date, to_date)
        names = named_runs(store, dag_id, run_ids, spanned=bool(start or end))
        request = ClearRequest(dag_id=dag_id, run_ids=names, from_date=start, to_date=end, **flags)
        propose(config, store, request, dry_run=dry_run, yes=yes, as_json=as_json)

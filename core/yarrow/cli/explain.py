"""`yarrow explain`: why a task instance isn't running."""

from __future__ import annotations

import click

from yarrow.cli.access import open_store
from yarrow.cli.arguments import map_index_option
from yarrow.cli.output import json_option, print_json, print_table
from yarrow.config import load_config
from yarrow.explaining.explanation import Check

_MARKS = {True: "ok", False: "NO", None: "?"}


@click.command()
@click.argument("dag_id")
@click.argument("run_id")
@click.argument("task_id")
@map_index_option
@json_option
def explain(dag_id: str, run_id: str, task_id: str, map_index: int, as_json: bool) -> None:
    """Tell why a task isn't running: every dependency and limit.

    RUN_ID `-` is the newest run of the DAG. One sentence sums it up; then comes each dependency and each limit with
    what it says, as the scheduler sees it: `ok` when it is met, `NO` when it is not, `?` when that can't be told before
    an earlier one is met.
    """
    config = load_config()
    with open_store(config) as store:
        found = store.explanations.get(
            dag_id,
            run_id,
            task_id,
            map_index,
            parallelism=config.parallelism,
            lease=config.lease,
            beat=config.heartbeat_interval,
        )
    if as_json:
        print_json(found.to_json())
        return
    click.echo(found.summary)
    click.echo()
    print_table(("", "CHECK", "WHAT IT SAYS"), [_row(check) for check in found.checks], empty="There is no check.")


def _row(check: Check) -> tuple[str, str, str]:
    return _MARKS[check.passed], check.name, check.sentence

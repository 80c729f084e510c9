"""`yarrow datasets`: what tasks publish for other DAGs to wait for."""

from __future__ import annotations

import click

from yarrow.cli.access import open_store, wake_scheduler, who
from yarrow.cli.output import json_option, print_json, print_table
from yarrow.config import load_config


@click.group()
def datasets() -> None:
    """List data sets; publish one by hand."""


@datasets.command("list")
@json_option
def list_datasets(as_json: bool) -> None:
    """List the data sets, when each was published last, and which DAGs wait for it."""
    with open_store() as store:
        records = store.datasets.list()
    if as_json:
        print_json([record.to_json() for record in records])
        return
    rows = [
        (
            record.dataset,
            record.published_at,
            record.published_by,
            [f"{one.dag_id} ({one.pending} pending)" if one.pending else one.dag_id for one in record.waiting],
        )
        for record in records
    ]
    columns = ("DATASET", "PUBLISHED (UTC)", "BY", "WAITING DAGS")
    print_table(columns, rows, empty="There is no data set: no task has `outlets`, and no schedule has `datasets`.")


@datasets.command()
@click.argument("name")
def publish(name: str) -> None:
    """Say that a data set is new, as a task does by its `outlets`: the DAGs that wait for it get a run."""
    config = load_config()
    with open_store(config) as store:
        waiting = store.datasets.publish(name, who())
    wake_scheduler(config)
    told = f"waiting: {', '.join(waiting)}" if waiting else "no DAG waits for it"
    click.echo(f"{name} is published; {told}.")

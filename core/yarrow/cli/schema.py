"""`yarrow schema`."""

from __future__ import annotations

import click

from yarrow.cli.output import print_json
from yarrow.language.schema import dag_schema


@click.command()
def schema() -> None:
    """Print the JSON Schema (2020-12) of a DAG file, for editors.

    Save it with `yarrow schema > dag.schema.json`, and begin a DAG file with
    `# yaml-language-server: $schema=dag.schema.json`.
    """
    print_json(dag_schema())

"""`yarrow dags versions`: the versions of a DAG, and what each one changed."""

from __future__ import annotations

from itertools import pairwise

import click

from yarrow.cli.access import open_store
from yarrow.cli.arguments import LIMIT
from yarrow.cli.output import json_option, print_json, print_table
from yarrow.clock import utc_now
from yarrow.differences.dag_diff import dag_diff
from yarrow.differences.words import summary


@click.command("versions")
@click.argument("dag_id")
@click.option("--limit", type=LIMIT, default=20, show_default=True, help="How many, the newest first.")
@json_option
def dag_versions(dag_id: str, limit: int, as_json: bool) -> None:
    """Show the versions of a DAG: since when there is each, how many runs have it, and what it changed.

    A run keeps its version for life. A file that is changed back gets its old version again.
    """
    now = utc_now()
    with open_store() as store:
        deployed = store.catalog.dag(dag_id).version
        versions = store.catalog.versions(dag_id)
        counts = store.versions.run_counts(dag_id)
        specs = [store.catalog.spec(dag_id, one.version) for one in versions[: limit + 1]]
    phrases = [summary(dag_diff(old, new, now)) for new, old in pairwise(specs)]
    phrases.append("the first version" if versions[-1].number == 1 else "the oldest that is kept")
    found = [
        {
            "number": one.number,
            "version": one.version,
            "created_at": one.created_at,
            "deployed": one.version == deployed,
            "runs": {state.value: count for state, count in sorted(counts.get(one.version, {}).items())},
            "change": phrase,
        }
        for one, phrase in zip(versions[:limit], phrases, strict=False)
    ]
    if as_json:
        print_json(found)
        return
    rows = [
        (
            one.number,
            one.version[:12],
            one.created_at,
            "deployed" if one.version == deployed else None,
            ", ".join(f"{count:,} {state}" for state, count in sorted(counts.get(one.version, {}).items())),
            phrase,
        )
        for one, phrase in zip(versions[:limit], phrases, strict=False)
    ]
    columns = ("VERSION", "HASH", "CREATED (UTC)", "NOW", "RUNS", "CHANGE")
    print_table(columns, rows, empty="It has no version.")
    if len(versions) > limit:
        click.echo(f"{len(versions) - limit:,} older ones are not shown; --limit shows more.", err=True)

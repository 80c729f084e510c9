"""`yarrow runs delete` and `yarrow dags delete`: with all that belongs to them, for good."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import click

from yarrow.cli.access import open_store, who
from yarrow.cli.output import json_option, print_json, print_table
from yarrow.config import load_config
from yarrow.remains import Remains

if TYPE_CHECKING:
    from yarrow.store.erasing import Deleted

_SHOWN_FAILURES = 5

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be deleted, and change nothing.")


@click.command()
@click.argument("dag_id")
@click.argument("run_ids", nargs=-1, required=True, metavar="RUN...")
@yes_option
@dry_run_option
@json_option
def delete_runs(dag_id: str, run_ids: tuple[str, ...], yes: bool, dry_run: bool, as_json: bool) -> None:
    """Delete runs that have ended, with their tasks, attempts, XComs and logs; all of them or none.

    Their lines of the history stay, and the schedule does not make them again.
    """
    config = load_config()
    with open_store(config) as store:
        remains = Remains(config)
        found = store.deletions.count_runs(dag_id, run_ids)
        names = f"the run {run_ids[0]}" if len(found.runs) == 1 else f"{len(found.runs)} runs"
        if dry_run or not yes:
            _show(found.counts, remains.log_bytes(found.runs), dry_run, as_json, asks=not dry_run)
        if dry_run:
            return
        confirm(f"Delete {names} of {dag_id}, for good?", yes)
        deleted = store.deletions.runs(dag_id, run_ids, who=who())
        failures = remains.remove(deleted.runs, deleted.references)
    _tell(f"Deleted {names} of {dag_id}.", deleted.counts, failures, as_json)


@click.command()
@click.argument("dag_id")
@yes_option
@dry_run_option
@json_option
def delete_dag(dag_id: str, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Delete a DAG whose file is gone, with its runs, versions, logs and history."""
    config = load_config()
    with open_store(config) as store:
        remains = Remains(config)
        found = store.deletions.count_dag(dag_id)
        if dry_run or not yes:
            _show(found.counts, remains.log_bytes(found.runs), dry_run, as_json, asks=not dry_run)
        if dry_run:
            return
        confirm(f"Delete the DAG {dag_id} and all of its {len(found.runs):,} runs, for good?", yes)
        counts: Counter[str] = Counter()
        failures: list[str] = []
        steps = store.deletions.dag(dag_id, who=who())
        for step in with_progress(steps, found.counts, f"deleting {dag_id}"):
            counts.update(step.counts)
            failures += remains.remove((), step.references)
        failures += remains.remove_dag(dag_id)
    _tell(f"Deleted the DAG {dag_id}.", counts, failures, as_json)


def confirm(question: str, yes: bool) -> None:
    """Asks on a terminal, and ends the command when the answer is no; elsewhere there is nobody to ask."""
    if not yes and on_terminal():
        click.confirm(question, abort=True, err=True)


def on_terminal() -> bool:
    """Whether a person sees what is said, and can answer."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def with_progress(steps: Iterable[Deleted], expected: Mapping[str, int], label: str) -> Iterable[Deleted]:
    """The steps, while a bar on stderr shows a person how much of what is expected is gone."""
    hidden = not sys.stderr.isatty()
    length = max(sum(expected.values()), 1)
    with click.progressbar(length=length, file=sys.stderr, hidden=hidden, show_eta=True, label=label) as bar:
        for step in steps:
            bar.update(sum(step.counts.values()))
            yield step


def print_counts(counts: Mapping[str, int], *, empty: str) -> None:
    """A table of how many rows of what."""
    rows = [(what.replace("_", " "), f"{count:,}") for what, count in sorted(counts.items()) if count]
    print_table(("WHAT", "COUNT"), rows, empty=empty)


def print_failures(failures: list[str]) -> None:
    """What could not be removed from the log folder and the object store."""
    for failure in failures[:_SHOWN_FAILURES]:
        click.echo(failure, err=True)
    if len(failures) > _SHOWN_FAILURES:
        click.echo(f"{len(failures) - _SHOWN_FAILURES:,} more could not be removed.", err=True)


def _show(counts: Mapping[str, int], log_bytes: int | None, dry_run: bool, as_json: bool, *, asks: bool) -> None:
    """Shows what would be deleted: as the answer, or before a person is asked."""
    if as_json:
        if dry_run:
            print_json({"dry_run": True, "deleted": counts, "log_bytes": log_bytes})
        return
    if asks and not on_terminal():
        return
    print_counts(counts, empty="There is nothing to delete.")
    if log_bytes is not None:
        click.echo(f"and {log_bytes:,} bytes of logs")
    if dry_run:
        click.echo("This would be deleted.")


def _tell(sentence: str, counts: Mapping[str, int], failures: list[str], as_json: bool) -> None:
    if as_json:
        print_json({"dry_run": False, "deleted": counts, "failures": failures})
    else:
        click.echo(sentence)
    print_failures(failures)

"""`yarrow db prune`: what has ended long ago is deleted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

import click

from yarrow.cli.access import open_store, who
from yarrow.cli.delete import (
    confirm,
    dry_run_option,
    on_terminal,
    print_counts,
    print_failures,
    with_progress,
    yes_option,
)
from yarrow.cli.output import json_option, print_json
from yarrow.clock import utc_now
from yarrow.config import Config, load_config
from yarrow.errors import UsageError
from yarrow.language.durations import format_duration, parse_duration
from yarrow.remains import Remains


@click.command()
@click.option("--older-than", metavar="AGE", help="Such as 90d. Default: the setting `retention`, if there is one.")
@yes_option
@dry_run_option
@json_option
def prune(older_than: str | None, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Delete runs that ended long ago, with all that belongs to them, and what is left over from others.

    Runs that are not over stay, and so do those that later ones depend on. It may be broken off at any time.
    """
    config = load_config()
    age = _age(older_than, config)
    now = utc_now()
    before = now - timedelta(seconds=age)
    facts = {"older_than": format_duration(age), "before": before, "dry_run": dry_run}
    with open_store(config) as store:
        if dry_run:
            _show(store.pruning.count(before, now), [], facts, as_json)
            return
        found: Counter[str] = Counter()
        if on_terminal():  # where somebody sees a bar, and is asked
            found = store.pruning.count(before, now)
            if found and not yes:
                if not as_json:
                    print_counts(found, empty="")
                confirm(f"Delete this, which is older than {format_duration(age)}, for good?", yes)
        counts: Counter[str] = Counter()
        failures: list[str] = []
        remains = Remains(config)
        for step in with_progress(store.pruning.steps(before, who=who(), now=now), found, "pruning"):
            counts.update(step.counts)
            failures += remains.remove(step.runs, step.references)
        is_file = store.dialect == "sqlite"
    _show(+counts, failures, facts, as_json)
    if counts["runs"] and is_file and not as_json:
        click.echo("The database file keeps its size and reuses the room; `VACUUM` in sqlite3 makes it smaller.")


def _show(counts: Mapping[str, int], failures: list[str], facts: Mapping[str, object], as_json: bool) -> None:
    if as_json:
        print_json({**facts, "deleted": counts, "failures": failures})
    else:
        print_counts(counts, empty=f"Nothing is older than {facts['older_than']}.")
        if counts:
            click.echo("This would be deleted." if facts["dry_run"] else "This was deleted.")
    print_failures(failures)


def _age(text: str | None, config: Config) -> float:
    if text is None:
        if config.retention <= 0:
            raise UsageError("How old?", hint="Give `--older-than`, such as 90d, or set `retention`.")
        return config.retention
    try:
        age = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--older-than: {error}.") from error
    if age <= 0:
        raise UsageError("--older-than: nothing would be kept.", hint="Give an age, such as 90d.")
    return age

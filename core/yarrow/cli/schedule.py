"""`yarrow schedule`: when a schedule is due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from yarrow.cli.arguments import as_utc, moment
from yarrow.cli.output import json_option, print_json, print_table
from yarrow.clock import utc_now
from yarrow.errors import UsageError
from yarrow.language.durations import parse_duration
from yarrow.language.spec import ScheduleSpec
from yarrow.schedules.cron import is_once
from yarrow.schedules.preview import PreviewRow, preview
from yarrow.schedules.words import describe_schedule
from yarrow.schedules.zones import load_zone
from yarrow.timetable import NO_START, check_schedule, has_moments

_COLUMNS = {
    "logical_date": "LOGICAL DATE (UTC)",
    "data_interval_start": "INTERVAL START (UTC)",
    "data_interval_end": "INTERVAL END (UTC)",
    "run_after": "RUN AFTER (UTC)",
    "local": "LOCAL",
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """The schedule that is asked about."""

    schedule: ScheduleSpec | None
    start: datetime | None
    end: datetime | None
    of_file: bool = False


@click.group()
def schedule() -> None:
    """Show when a schedule is due."""


@schedule.command("next")
@click.argument("dag_file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--cron",
    metavar="EXPR",
    multiple=True,
    help="A cron expression or a preset such as @daily, instead of a DAG file. Several of them fire in turn.",
)
@click.option("--every", metavar="DURATION", help="A fixed distance such as 15m, instead of a DAG file.")
@click.option("--timezone", metavar="TZ", help="The zone of the schedule. Default: UTC.")
@click.option("--gap", type=click.Choice(["shift", "skip"]), help="For times that don't exist. Default: shift.")
@click.option("--fold", type=click.Choice(["first", "second", "both"]), help="For times twice. Default: second.")
@click.option("--semantics", type=click.Choice(["interval", "trigger"]), help="Default: interval.")
@click.option("--start", metavar="ISO", type=moment, help="The start date; needed without a DAG file.")
@click.option("--end", metavar="ISO", type=moment, help="The end date: no logical date at or after it.")
@click.option("--after", metavar="ISO", type=moment, help="Only runs that start later than this.")
@click.option("--count", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many runs.")
@json_option
def next_runs(
    dag_file: Path | None,
    start: datetime | None,
    end: datetime | None,
    after: datetime | None,
    count: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Show what a schedule means and its next runs: of a DAG file, of cron expressions, or of a fixed distance.

    Without --after these are the runs from the start date on, or from now on for a DAG file that has none. A moment
    without an offset is a local time of the schedule's time zone. What no time decides (data sets, @continuous, runs by
    hand) has no rows.
    """
    given = {name: value for name, value in options.items() if value}
    asked = _of_file(dag_file, given) if dag_file else _of_options(given)
    try:
        rows = _rows(asked, start or asked.start, end or asked.end, after, count)
        words = describe_schedule(asked.schedule)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if as_json:
        print_json([row.to_json() for row in rows or []])
        return
    click.echo(words)
    if rows is None:
        return
    click.echo()
    with_notes = any(row.note for row in rows)
    cells = [[_cell(value) for value in row.to_json().values()][: len(_COLUMNS) + with_notes] for row in rows]
    headings = [*_COLUMNS.values(), *(["NOTE"] if with_notes else [])]
    print_table(headings, cells, empty="The schedule has no further run.")


def _rows(
    asked: _Asked, start: datetime | None, end: datetime | None, after: datetime | None, count: int
) -> list[PreviewRow] | None:
    """The coming runs; None when something else than time says when they are due. Raises ValueError."""
    spec = asked.schedule
    if spec is None:
        return None
    check_schedule(spec)
    if not has_moments(spec):
        return None
    if start is None:
        if not asked.of_file:
            raise UsageError("A start is needed: --start, such as --start 2026-01-01.")
        if is_once(spec.cron):
            return None
        start, after = NO_START, after or utc_now()
    zone = load_zone(spec.timezone)
    until, later_than = (as_utc(bound, zone) if bound else None for bound in (end, after))
    return preview(spec, as_utc(start, zone), until, later_than, count)


def _of_options(given: Mapping[str, Any]) -> _Asked:
    crons: tuple[str, ...] = given.get("cron", ())
    if bool(crons) == ("every" in given):
        raise UsageError("Name either a DAG file or a schedule with --cron or --every.")
    values: dict[str, Any] = {name: value for name, value in given.items() if name not in ("cron", "every")}
    if crons:
        values["cron"] = crons[0] if len(crons) == 1 else crons
    else:
        try:
            values["every"] = parse_duration(given["every"])
        except ValueError as error:
            raise UsageError(f"--every: {error}.") from error
    return _Asked(ScheduleSpec(**values), None, None)


def _of_file(dag_file: Path, given: Mapping[str, Any]) -> _Asked:
    from yarrow.language.loader import load_file  # the whole language, which --cron does not need

    if given:
        names = ", ".join(f"--{name}" for name in sorted(given))
        raise UsageError(f"A DAG file has a schedule of its own: it does not go with {names}.")
    result = load_file(dag_file, dag_file.parent)
    if result.spec is None:
        raise UsageError("\n  ".join([f"{dag_file} has faults.", *(str(fault) for fault in result.faults)]))
    return _Asked(result.spec.schedule, result.spec.start_date, result.spec.end_date, of_file=True)


def _cell(value: str | None) -> str:
    if value is None:
        return ""
    return value.replace("T", " ").removesuffix("+00:00") if value[:4].isdigit() else value

"""`yarrow schedule`: when a schedule is due."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from yarrow.cli.arguments import as_utc, moment
from yarrow.cli.output import json_option, print_json, print_table
from yarrow.errors import UsageError
from yarrow.language.spec import ScheduleSpec
from yarrow.timetable import preview
from yarrow.zones import load_zone


@click.group()
def schedule() -> None:
    """Show when a schedule is due."""


@schedule.command("next")
@click.argument("dag_file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--cron", metavar="EXPR", help="A cron expression or a preset such as @daily, instead of a DAG file.")
@click.option("--timezone", metavar="TZ", help="The zone of the cron expression. Default: UTC.")
@click.option("--start", metavar="ISO", type=moment, help="The start date; needed with --cron.")
@click.option("--end", metavar="ISO", type=moment, help="The end date: no logical date at or after it.")
@click.option("--semantics", type=click.Choice(["interval", "trigger"]), help="Default: interval.")
@click.option("--after", metavar="ISO", type=moment, help="Only runs that start later than this.")
@click.option("--count", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many runs.")
@json_option
def next_runs(
    dag_file: Path | None,
    cron: str | None,
    timezone: str | None,
    start: datetime | None,
    end: datetime | None,
    semantics: str | None,
    after: datetime | None,
    count: int,
    as_json: bool,
) -> None:
    """Show the next runs of a DAG file's schedule, or of a cron expression.

    Without --after these are the runs from the start date on. A moment without an offset is a local time of the
    schedule's time zone.
    """
    if (dag_file is None) == (cron is None):
        raise UsageError("Name either a DAG file or a schedule with --cron.")
    if dag_file:
        if timezone or semantics:
            raise UsageError("--timezone and --semantics go with --cron; a DAG file has its own.")
        spec, file_start, file_end = _schedule_of(dag_file)
        start, end = start or file_start, end or file_end
    else:
        spec = ScheduleSpec(cron=cron, timezone=timezone or "UTC", semantics=semantics or "interval")
    if start is None:
        raise UsageError("A start is needed: --start, such as --start 2026-01-01.")
    try:
        zone = load_zone(spec.timezone)
        until, later_than = (as_utc(bound, zone) if bound else None for bound in (end, after))
        rows = [row.to_json() for row in preview(spec, as_utc(start, zone), until, later_than, count)]
    except ValueError as error:
        raise UsageError(str(error)) from error
    if as_json:
        print_json(rows)
        return
    columns = ("logical_date", "data_interval_start", "data_interval_end", "run_after", "local")
    headings = ("LOGICAL DATE (UTC)", "INTERVAL START (UTC)", "INTERVAL END (UTC)", "RUN AFTER (UTC)", "LOCAL")
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    print_table(headings, cells, empty="The schedule has no further run.")


def _schedule_of(dag_file: Path) -> tuple[ScheduleSpec, datetime | None, datetime | None]:
    from yarrow.language.loader import load_file  # the whole language, which --cron does not need

    result = load_file(dag_file, dag_file.parent)
    if result.spec is None:
        raise UsageError("\n  ".join([f"{dag_file} has faults.", *(str(fault) for fault in result.faults)]))
    if result.spec.schedule is None:
        raise UsageError(f"{dag_file} has no schedule: its runs are started by hand.")
    return result.spec.schedule, result.spec.start_date, result.spec.end_date


def _cell(value: str) -> str:
    return value.replace("T", " ").removesuffix("+00:00")

"""What commands print: tables for people, plain JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

STYLES = {
    "success": "green",
    "failed": "red",
    "upstream_failed": "dark_orange",
    "lost": "red",
    "running": "cyan",
    "queued": "bright_black",
    "scheduled": "bright_black",
    "up_for_retry": "yellow",
    "up_for_reschedule": "cyan",
    "awaiting_input": "yellow",
    "deferred": "cyan",
    "skipped": "magenta",
    "none": "bright_black",
}
"""How a terminal shows a state."""


def json_option(command: F) -> F:
    """Adds `--json` to a command; it arrives as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def print_json(data: Any) -> None:
    """Prints data as JSON: records become objects, instants ISO 8601 in UTC, durations seconds."""
    click.echo(json.dumps(data, default=_plain, indent=2, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, set | frozenset | Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str) -> None:
    """Prints a table: with rich on a terminal, else as aligned text that `awk` and `grep` can read.

    Args:
        columns: The headings.
        rows: Cells; None is shown as `-`.
        empty: The sentence to print instead of a table without rows.
    """
    if not rows:
        click.echo(empty)
        return
    cells = [[text_of(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(columns, cells)
        return
    widths = [max(len(row[index]) for row in [list(columns), *cells]) for index in range(len(columns))]
    for row in [list(columns), *cells]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_rich(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD  # slow to import, and of no use to a pipe
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def text_of(value: Any) -> str:
    """A cell: `-` for None, seconds for instants, commas for lists."""
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple | set | frozenset):
        return _visible(", ".join(str(item) for item in value) or "-")
    return _visible(str(value))


def _visible(text: str) -> str:
    """The text with blanks for control characters: what a task says must not draw on a terminal, nor add a line."""
    return text if text.isprintable() else "".join(character if character.isprintable() else " " for character in text)


def instance_name(task_id: str, map_index: int | None) -> str:
    """A task instance for a table: `load`, or `load[3]` of a mapped task."""
    return task_id if map_index is None or map_index < 0 else f"{task_id}[{map_index}]"


def seconds_between(start: datetime | None, end: datetime | None) -> str | None:
    """A duration for a table: `0.42 s`, `12.3 s`, `4 m 05 s`; None while either end is open."""
    return None if start is None or end is None else duration_text((end - start).total_seconds())


def duration_text(seconds: float) -> str:
    """A duration for people, with as many digits as they need."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} m" if hours else f"{minutes} m {rest:02d} s"

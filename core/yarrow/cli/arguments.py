"""How arguments are read that several commands take."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, tzinfo
from typing import Any, TypeVar

import click

from yarrow.errors import UsageError
from yarrow.jsontypes import Json

F = TypeVar("F", bound=Callable[..., Any])

LIMIT = click.IntRange(1, 2**31 - 1)
"""How many rows of a list, as every database takes it."""


def moment(text: str) -> datetime:
    """A date or a moment in ISO 8601; naive when it has no offset."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        example = "2026-01-31 or 2026-01-31T06:00:00+01:00"
        raise click.BadParameter(f"{text!r} is not a date or a moment such as {example}") from None


def last_moment(text: str) -> datetime:
    """As `moment`, for the end of a span that is part of it: a date is the last moment of that day."""
    try:
        return datetime.combine(date.fromisoformat(text), time.max)
    except ValueError:
        return moment(text)


def as_utc(moment: datetime, zone: tzinfo) -> datetime:
    """A moment as aware UTC; a naive one is a local time of the zone. Raises UsageError beyond the years 1 to 9999."""
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except OverflowError:
        raise UsageError(f"The moment {moment.isoformat()} is out of the range of dates.") from None


def json_object(text: str) -> Mapping[str, Json]:
    """A JSON object."""
    try:
        data = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"{text:.80} is not JSON: {error}") from None
    except RecursionError:
        raise click.BadParameter("it is nested too deeply") from None
    if not isinstance(data, dict):
        raise click.BadParameter(f'{text:.80} is not a JSON object, such as {{"threshold": 0.5}}')
    return data


def map_index_option(command: F) -> F:
    """Adds `--map-index` to a command; it arrives as `map_index`, -1 when it is not given."""
    text = "Which instance of a mapped task, from 0."
    return click.option("--map-index", type=click.IntRange(-1, 2**31 - 1), default=-1, metavar="N", help=text)(command)

"""Moments as DAG files write them."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from yarrow import Fail

HINT = "Write it as 2013-01-01T06:00:00, with an offset such as +00:00 if it is not in the DAG's time zone."


def read_moment(text: str, timezone: str, name: str) -> datetime:
    """Returns the moment that a text names, aware, UTC; a text without an offset is in the time zone.

    Raises:
        Fail: It is not a date and time in ISO 8601.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Fail(f"`{name}` is not a date and time: {text!r:.80}.", hint=HINT) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(timezone))).astimezone(UTC)


def is_moment(text: str) -> bool:
    """Whether a text is a date, or a date and time, in ISO 8601."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True

"""The only place that reads the time of day. Everything else takes the time as an argument."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""A function that answers with an aware UTC datetime."""


def utc_now() -> datetime:
    """Returns the present instant, aware, in UTC."""
    return datetime.now(UTC)

"""Times, durations and figures in words, for the pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from jinja2 import Environment
from markupsafe import Markup, escape

_WIDTH = 80  # characters of a line of JSON
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float | None) -> str:
    """`0.3 s`, `12 s`, `1 min 20 s`, `2 h 5 min`, `3 d 4 h`: at most two units."""
    if seconds is None:
        return ""
    seconds = max(seconds, 0.0)
    if seconds < 9.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    rest = round(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
        if len(parts) == 2:
            break
    return " ".join(parts)


def between(start: datetime | None, end: datetime | None, now: datetime) -> float | None:
    """Seconds from start to end, or so far."""
    return ((end or now) - start).total_seconds() if start else None


def ago(moment: datetime | None, now: datetime) -> str:
    """`in 3 h`, `5 min ago`, `in 1 d 16 h`, `just now`: a second unit only where the first is one or two days."""
    if moment is None:
        return ""
    seconds = (moment - now).total_seconds()
    if abs(seconds) < 1:
        return "just now"
    size, unit = next((size, unit) for size, unit in _UNITS if abs(seconds) >= size)
    count, rest = divmod(int(abs(seconds)), size)
    words = f"{count} {unit}"
    if unit == "d" and count < 3 and rest >= 3600:
        words += f" {rest // 3600} h"
    return f"in {words}" if seconds > 0 else f"{words} ago"


def instant(moment: datetime | None, zone: str = "UTC") -> str:
    """`2013-01-31 19:00` in a time zone; seconds only when there are any."""
    if moment is None:
        return ""
    local = moment.astimezone(UTC if zone == "UTC" else ZoneInfo(zone))
    return local.strftime("%Y-%m-%d %H:%M:%S" if local.second else "%Y-%m-%d %H:%M")


def clock_time(iso: str) -> str:
    """The time of day of an ISO 8601 moment, in UTC, to the millisecond."""
    try:
        return datetime.fromisoformat(iso).astimezone(UTC).strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return ""


def figure(value: object) -> str:
    """A number with thousands set apart, four digits of a fraction; anything else as JSON."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, int) or value.is_integer():
        return f"{int(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return f"{value:.4g}"


def pretty(value: Any, indent: str = "") -> str:
    """JSON over several lines; what is short stays on one."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) + len(indent) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return text
    inner = indent + "  "
    if isinstance(value, dict):
        items = [f"{json.dumps(key, ensure_ascii=False)}: {pretty(item, inner)}" for key, item in value.items()]
    else:
        items = [pretty(item, inner) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return f"{opening}\n{inner}" + f",\n{inner}".join(items) + f"\n{indent}{closing}"


def listed(names: Sequence[str]) -> str:
    """`a, b, c`."""
    return ", ".join(names)


def with_code(text: str) -> Markup:
    """A sentence in which `names` stand between backquotes, with these set as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one of them has no partner: nobody can tell which
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )


def register(environment: Environment) -> None:
    """Makes the functions filters of the templates."""
    for function in (duration, ago, instant, clock_time, figure, pretty, listed, with_code):
        environment.filters[function.__name__] = function
    environment.globals["between"] = between

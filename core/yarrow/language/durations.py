"""Durations as people write them: `90s`, `5m`, `2h`, `1d`."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
MAX_SECONDS = 3650 * 86400.0
"""Ten years: anything longer is a slip, and dates stay far from overflowing."""


def parse_duration(text: str) -> float:
    """Returns the seconds of a duration such as `90s`, `5m`, `1.5h` or `1d`.

    Raises:
        ValueError: It is not a duration, or longer than ten years. The message is a sentence for the author.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(
            f"`{text[:40]}` is not a duration: write a number with a unit, such as `90s`, `5m`, `2h` or `1d`"
        )
    number, unit = match.groups()
    seconds = round(float(number) * _SECONDS[unit], 3)
    if seconds > MAX_SECONDS:
        raise ValueError(f"`{text}` is longer than ten years")
    return seconds


def format_duration(seconds: float) -> str:
    """Writes seconds as the shortest duration that `parse_duration` reads back: 5400 -> `90m`, 0.25 -> `250ms`."""
    if seconds < 0:
        raise ValueError("a duration is not negative")
    for unit in ("d", "h", "m", "s"):
        amount = seconds / _SECONDS[unit]
        if amount >= 1 and amount == int(amount):
            return f"{int(amount)}{unit}"
    if seconds == 0:
        return "0s"
    milliseconds = round(seconds * 1000)
    return f"{milliseconds}ms" if seconds < 1 else f"{milliseconds / 1000:.3f}".rstrip("0").rstrip(".") + "s"

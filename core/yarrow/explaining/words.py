"""Numbers, moments and names as the sentences of an explanation have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from yarrow.states import TaskState

_STATES: Mapping[TaskState, str] = {
    TaskState.NONE: "waiting",
    TaskState.AWAITING_INPUT: "awaiting input",
    TaskState.UP_FOR_RETRY: "up for retry",
    TaskState.UP_FOR_RESCHEDULE: "up for reschedule",
    TaskState.UPSTREAM_FAILED: "upstream failed",
}


def countdown(seconds: float) -> str:
    """`00:12`, `1:02:03` with hours, `3 d 04:05:06` with days: how long it still takes; nothing is less than 0."""
    rest = max(round(seconds), 0)
    minutes, rest = divmod(rest, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02d}:{minutes:02d}:{rest:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def due(moment: datetime, now: datetime) -> str:
    """`due in 00:12`, or `due now`."""
    seconds = (moment - now).total_seconds()
    return f"due in {countdown(seconds)}" if seconds > 0 else "due now"


def at(moment: datetime) -> str:
    """`2026-01-31 06:00:00 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def since(moment: datetime | None, now: datetime) -> str:
    """` since 2026-01-31 06:00:00 UTC (02:10)`, with a blank before it; empty when nobody knows."""
    return "" if moment is None else f" since {at(moment)} ({countdown((now - moment).total_seconds())})"


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th`, `11th`."""
    if number % 100 in (11, 12, 13):
        return f"{number:,}th"
    return f"{number:,}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def count(number: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], more: int = 0) -> str:
    """`a`, `a and b`, `a, b and 3 more`."""
    every = [*names, f"{more:,} more"] if more > 0 else list(names)
    *others, last = every or ["none"]
    return f"{', '.join(others)} and {last}" if others else last


def state_words(state: TaskState) -> str:
    """A state as an adjective."""
    return _STATES.get(state, state.value)


def state_counts(states: Mapping[TaskState, int]) -> str:
    """`3 success, 1 running`; `none` when there is nothing to count."""
    return ", ".join(f"{number:,} {state_words(state)}" for state, number in states.items() if number) or "none"


def ended(text: str) -> str:
    """A text as the end of a sentence: with one full stop."""
    return text if text.endswith((".", "!", "?")) else f"{text}."

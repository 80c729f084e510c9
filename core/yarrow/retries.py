"""Computes whether a failed task is tried again, and how long it waits before that."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection
from datetime import UTC, datetime

from yarrow.language.spec import TaskSpec

LONGEST_DELAY = 24 * 3600.0
"""Seconds. No backoff grows beyond a day; `max_retry_delay` may set a lower bound."""


def ruled_out_by(task: TaskSpec, kinds: Collection[str]) -> str | None:
    """Returns which setting of the task rules out another try after an error of these kinds; None: none does.

    An error has a kind for its class and for each class above it, so that a setting may name any of them.
    """
    if not set(task.no_retry_on).isdisjoint(kinds):
        return "no_retry_on"
    if task.retry_on and set(task.retry_on).isdisjoint(kinds):
        return "retry_on"
    return None


def retry_delay(task: TaskSpec, dag_id: str, logical_date: datetime, try_number: int, map_index: int = -1) -> float:
    """Returns the seconds between the end of the failed try `try_number` (1 for the first) and the next one.

    Without backoff it is `retry_delay` itself. With backoff m it is `retry_delay * m ** (try_number - 1)` plus a jitter
    of less than as much again, so that tasks that failed together do not come back together. The jitter is
    a hash of the names, and of the index of a mapped task instance: always the same for the same try.
    """
    if not task.retry_exponential_backoff:
        return _capped(max(task.retry_delay, 0.0), task)
    least = _least_backoff(task, try_number)
    name = f"{dag_id}#{task.task_id}#{logical_date.astimezone(UTC).isoformat()}#{try_number}"
    if map_index >= 0:
        name += f"#{map_index}"
    digest = int.from_bytes(hashlib.sha1(name.encode(), usedforsecurity=False).digest(), "big")
    return _capped(float(least + digest % least), task)


def _least_backoff(task: TaskSpec, try_number: int) -> int:
    """The backoff without its jitter, in whole seconds, at least one."""
    try:
        backoff = task.retry_delay * task.retry_exponential_backoff ** (max(try_number, 1) - 1)
    except OverflowError:
        return int(LONGEST_DELAY)
    return max(1, math.ceil(min(backoff, LONGEST_DELAY)))


def _capped(seconds: float, task: TaskSpec) -> float:
    if task.retry_exponential_backoff:
        seconds = min(seconds, LONGEST_DELAY)
    return seconds if task.max_retry_delay is None else min(seconds, task.max_retry_delay)

"""The interface of an executor: how the scheduler wakes a worker for an attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Wakeup:
    """A message to the workers of a queue: this attempt is waiting, and here is the token that claims it."""

    attempt_id: str
    token: str
    queue: str


class Executor(Protocol):
    """Carries wake-ups to workers. It keeps no state: what is queued is a row in the store."""

    @property
    def error(self) -> str | None:
        """Why the last publish failed; None when it did not."""

    def publish(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        """Sends the wake-ups and returns those that certainly went out.

        Any other may or may not have been delivered; nothing depends on it. Never blocks for more than a few seconds.
        """

    def close(self) -> None:
        """Gives back connections."""

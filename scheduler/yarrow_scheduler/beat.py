"""Step `beat`: the scheduler says that it is alive, and how it does."""

from __future__ import annotations

import os
import socket
from datetime import datetime, timedelta

from yarrow.store import Store


class Beat:
    """The scheduler's own row in the store."""

    def __init__(self, store: Store, scheduler_id: str, interval: float) -> None:
        """Args:
        interval: Seconds between two beats.
        """
        self._store = store
        self._id = scheduler_id
        self._interval = interval
        self._beaten_at: datetime | None = None

    def register(self) -> None:
        """Announces the scheduler. Raises SecondScheduler when this database has one already and allows no other."""
        self._store.workers.register_scheduler(self._id, socket.gethostname(), os.getpid(), beat=self._interval)

    def beat(self, now: datetime, loop_seconds: float, broker_error: str | None) -> None:
        """Beats when it is time. Raises SecondScheduler when another scheduler has taken its place."""
        if self._beaten_at is not None and timedelta() <= now - self._beaten_at < timedelta(seconds=self._interval):
            return
        self._beaten_at = now
        self._store.workers.beat_scheduler(self._id, loop_seconds=loop_seconds, broker_error=broker_error)

    def unregister(self) -> None:
        """Takes leave."""
        self._store.workers.unregister_scheduler(self._id)

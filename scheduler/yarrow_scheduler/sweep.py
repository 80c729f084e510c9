"""Step `sweep`: what got lost, or can't ever go on, is given up for good or started anew."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta

from yarrow.config import Config
from yarrow.store import Store

_EVERY = timedelta(seconds=1)
_FORGET_EVERY = timedelta(seconds=60)
_FORGET_AFTER = 10  # leases; until then a lost worker is still shown
_MISSED_HEARTBEATS = 3

_log = logging.getLogger(__name__)


class Sweeper:
    """Looks for lost attempts, once a second at most.

    After a gap in its own life (it has just started, the machine slept, the database was away) it gives the workers
    the time of some heartbeats to report before it judges anything.
    """

    def __init__(self, store: Store, config: Config) -> None:
        self._store = store
        self._config = config
        self._grace = timedelta(seconds=min(config.lease, _MISSED_HEARTBEATS * config.heartbeat_interval))
        self._longest_gap = timedelta(seconds=config.lease / 2)
        self._judge_from: datetime | None = None
        self._alive_at: datetime | None = None
        self._swept_at: datetime | None = None
        self._forgot_at: datetime | None = None

    def sweep(self, now: datetime, served: Collection[str]) -> None:
        """Declares attempts lost whose lease has run out, and fails what nothing can take."""
        if self._judge_from is None or _due(self._alive_at, now, self._longest_gap):
            self._judge_from = now + self._grace
        self._alive_at = now
        if now < self._judge_from or not _due(self._swept_at, now, _EVERY):
            return
        self._swept_at = now
        lost = self._store.attempts.expire_leases(
            infra_budget=self._config.infra_budget, queued_timeout=self._config.queued_timeout
        )
        if lost:
            _log.warning("%d attempts were lost with their workers", lost, extra={"action": "attempts_lost"})
        failed = self._store.attempts.fail_unserved(self._config.queued_timeout, served=served, now=now)
        if failed:
            _log.warning("%d tasks failed because nothing can take them", failed, extra={"action": "tasks_unserved"})
        if _due(self._forgot_at, now, _FORGET_EVERY):
            self._forgot_at = now
            self._store.workers.forget_stale(now - timedelta(seconds=_FORGET_AFTER * self._config.lease))
            self._store.cache.clear(before=now)


def _due(last: datetime | None, now: datetime, every: timedelta) -> bool:
    """Whether so much time has passed, or the clock was put back."""
    return last is None or not timedelta() <= now - last < every

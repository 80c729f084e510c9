"""Keeps what `retention` says: deletes what is older, in a thread of its own, little by little."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from yarrow.clock import Clock
from yarrow.config import Config
from yarrow.errors import YarrowError
from yarrow.remains import Remains
from yarrow.store import Store
from yarrow.store.erasing import Deleted

EVERY = timedelta(hours=1)
_RUNS_AT_ONCE = 50  # a step of so many takes some 10 ms; on SQLite a pass of the loop may have to wait for it
_SHARE = 0.1  # of the time; the rest is the loop's, and that of the workers' reports
_SHORTEST_PAUSE = 0.05  # seconds between two steps
_LONGEST_SLEEP = 60.0  # seconds; a clock may be put forward
_CLOSE_SECONDS = 3.0

_log = logging.getLogger(__name__)


class Pruner:
    """Prunes once an hour, in short transactions with long pauses. It may be ended, or killed, at any moment.

    Several schedulers may prune at once: what one has locked the others leave alone.
    """

    def __init__(self, store: Store, config: Config, clock: Clock) -> None:
        self._store = store
        self._remains = Remains(config)
        self._retention = timedelta(seconds=config.retention)
        self._clock = clock
        self._steps: Iterator[Deleted] | None = None
        self._total: Counter[str] = Counter()
        self._began_at: datetime | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="yarrow-pruner", daemon=True)

    def start(self) -> None:
        """Begins, if anything is ever too old."""
        if self._retention:
            self._thread.start()

    def close(self) -> None:
        """Ends after the step under way."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)

    def step(self, now: datetime) -> float:
        """Takes one step if it is time. Returns for how many seconds to leave the database alone."""
        if self._steps is None:
            if self._began_at is not None and timedelta() <= now - self._began_at < EVERY:
                return (self._began_at + EVERY - now).total_seconds()
            self._began_at = now
            self._total.clear()
            self._steps = self._store.pruning.steps(now - self._retention, who="retention", now=now, size=_RUNS_AT_ONCE)
        started = time.monotonic()
        done = next(self._steps, None)
        if done is None:
            self._end()
            return (self._began_at + EVERY - now).total_seconds() if self._began_at else 0.0
        self._total.update(done.counts)
        pause = max((time.monotonic() - started) / _SHARE, _SHORTEST_PAUSE)
        for failure in self._remains.remove(done.runs, done.references):
            _log.warning("%s", failure, extra={"action": "remains_left"})
        return pause

    def _end(self) -> None:
        self._steps = None
        if counted := ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in sorted((+self._total).items())):
            _log.info("deleted what is older than `retention`: %s", counted, extra={"action": "pruned"})

    def _run(self) -> None:
        while not self._closed.is_set():
            try:
                pause = self.step(self._clock())
            except Exception as error:  # noqa: BLE001 - the thread must live on; it is tried again in an hour
                self._steps = None
                trace = None if isinstance(error, YarrowError) else error
                _log.error("pruning failed: %s", error, exc_info=trace, extra={"action": "prune_failed"})
                continue
            self._closed.wait(min(pause, _LONGEST_SLEEP))

"""Publishes wake-ups in a thread of its own, so that a broker that hangs never holds the loop."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from yarrow.clock import Clock
from yarrow.executor import Executor, Wakeup
from yarrow.store.attempts import Attempts
from yarrow.store.records import PublishRow
from yarrow.tokens import attempt_token

_LARGEST_BATCH = 500
_PAUSES = (1, 2, 4, 8)  # seconds between tries while the broker is down
_CLOSE_SECONDS = 5.0

_log = logging.getLogger(__name__)

Batch = Sequence[tuple[PublishRow, str]]
"""Attempts to publish, each with the executor's queue."""


class Publisher:
    """Takes over one batch at a time. What it could not send for certain stays as it is, and is handed over again."""

    def __init__(
        self,
        executor: Executor,
        attempts: Attempts,
        key: bytes,
        clock: Clock,
        *,
        dispatch_timeout: float,
        on_idle: Callable[[], None],
    ) -> None:
        """Args:
        key: Signs the tokens of the attempts.
        dispatch_timeout: Seconds until a message that nobody has claimed is sent again.
        on_idle: Called when a batch is done and somebody asked meanwhile whether it was `ready`.
        """
        self._executor = executor
        self._attempts = attempts
        self._key = key
        self._clock = clock
        self._timeout = timedelta(seconds=dispatch_timeout)
        self._on_idle = on_idle
        self._work: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._in_flight = 0
        self._asked = False
        self._failures = 0
        self._retry_at: datetime | None = None
        self._error: str | None = None
        self._thread: threading.Thread | None = None

    @property
    def error(self) -> str | None:
        """Why the last batch did not go out; None: it did."""
        return self._error

    @property
    def retry_at(self) -> datetime | None:
        """When to try again after a failure."""
        return self._retry_at

    def ready(self, now: datetime) -> bool:
        """Whether a batch may be handed over."""
        with self._changed:
            self._asked = self._in_flight > 0
            if self._in_flight or self._retry_at is None:
                return not self._in_flight
            # A pause longer than any there is means that the clock was put back.
            return not timedelta() < self._retry_at - now <= timedelta(seconds=_PAUSES[-1])

    def hand_over(self, batch: Batch) -> None:
        """Publishes a batch, in the background. Call it only when `ready`."""
        if not batch:
            return
        with self._changed:
            self._asked = len(batch) > _LARGEST_BATCH
            batch = batch[:_LARGEST_BATCH]
            self._in_flight = len(batch)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="yarrow-publisher", daemon=True)
                self._thread.start()
        self._work.put(batch)

    def flush(self, timeout: float) -> bool:
        """Waits until nothing is in flight. Returns whether that came true."""
        with self._changed:
            return self._changed.wait_for(lambda: self._in_flight == 0, timeout)

    def close(self) -> None:
        """Finishes the batch under way, for a few seconds at most."""
        if self._thread is not None:
            self._work.put(None)
            self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        while (batch := self._work.get()) is not None:
            try:
                self._publish(batch)
            finally:
                with self._changed:
                    self._in_flight = 0
                    asked, self._asked = self._asked, False
                    self._changed.notify_all()
                if asked:
                    self._on_idle()

    def _publish(self, batch: Batch) -> None:
        rows = {row.attempt_id: row for row, _ in batch}
        error: str | None = None
        sent: Sequence[Wakeup] = ()
        try:
            sent = self._executor.publish([self._wakeup(row, queue) for row, queue in batch])
            if len(sent) < len(rows):
                error = self._executor.error or f"{len(rows) - len(sent)} of {len(rows)} messages may not have gone out"
        except Exception as failure:  # noqa: BLE001 - whatever goes wrong in an executor, the answer is to try again
            error = str(failure) or type(failure).__name__
        try:
            if sent:
                now = self._clock()
                self._attempts.mark_published([rows[wakeup.attempt_id] for wakeup in sent], now + self._timeout, now)
        except Exception as failure:  # noqa: BLE001 - the thread must live on
            # They went out, but look as if they had not: they go out again, and the second claim is refused.
            _log.warning("could not note what was published: %s", failure, extra={"action": "mark_published_failed"})
            error = error or f"what was published could not be noted: {failure}"
        self._note(error)

    def _wakeup(self, row: PublishRow, queue_name: str) -> Wakeup:
        return Wakeup(row.attempt_id, attempt_token(self._key, row.attempt_id, row.nonce), queue_name)

    def _note(self, error: str | None) -> None:
        if error is None:
            if self._failures:
                _log.info("the broker takes messages again", extra={"action": "broker_back"})
            self._failures, self._retry_at, self._error = 0, None, None
            return
        pause = _PAUSES[min(self._failures, len(_PAUSES) - 1)]
        if not self._failures:
            _log.warning("could not wake workers, trying again: %s", error, extra={"action": "publish_failed"})
        self._failures += 1
        self._retry_at, self._error = self._clock() + timedelta(seconds=pause), error

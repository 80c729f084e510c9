"""Delivers reports that are not delivered yet: those of the minder itself, and those that pool children have spooled.

A report is repeated until the Execution API accepts or refuses it. It lies in the spool once the first try has failed.
"""

from __future__ import annotations

import logging
import threading

from yarrow.errors import Refused
from yarrow_executor.client import ApiClient, Rejected, Unreachable
from yarrow_executor.slots import ticks
from yarrow_executor.spool import Envelope, Spool

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0  # seconds

_log = logging.getLogger(__name__)


class Reporter:
    """The queue of reports, and the thread that works it off."""

    def __init__(self, client: ApiClient, spool: Spool) -> None:
        self._client = client
        self._spool = spool
        self._waiting: dict[str, Envelope] = {}
        self._changed = threading.Condition()
        self._finish_by: float | None = None

    def send(self, envelope: Envelope) -> None:
        """Takes over a report that only this process knows of."""
        with self._changed:
            self._waiting[envelope.key] = envelope
            self._changed.notify()

    def look(self) -> None:
        """There is something new in the spool."""
        found = {envelope.key: envelope for envelope in self._spool.pending()}
        with self._changed:
            self._waiting = {**found, **self._waiting}
            self._changed.notify()

    def undelivered(self) -> list[str]:
        """The attempts whose reports are on their way: this worker still answers for them."""
        with self._changed:
            return [envelope.report.attempt_id for envelope in self._waiting.values()]

    def run(self) -> None:
        """Delivers until `finish` was called and everything is delivered or its time is over."""
        pause = _FIRST_PAUSE
        while True:
            with self._changed:
                while not self._waiting and self._finish_by is None:
                    self._changed.wait()
                todo = list(self._waiting.values())
                if not todo:
                    return
            delivered = [self._deliver(envelope) for envelope in todo]
            if all(delivered):
                pause = _FIRST_PAUSE
                continue
            with self._changed:
                if self._finish_by is not None and ticks() + pause > self._finish_by:
                    return
                self._changed.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def finish(self, seconds: float) -> None:
        """Lets `run` end once all is delivered, or after so many seconds: the rest stays in the spool."""
        with self._changed:
            self._finish_by = ticks() + seconds
            self._changed.notify()

    def _deliver(self, envelope: Envelope) -> bool:
        attempt_id = envelope.report.attempt_id
        try:
            self._client.finish(envelope.report, envelope.token, envelope.worker_id)
        except Unreachable as error:
            _log.debug("the report on attempt %s waits: %s", attempt_id, error)
            self._keep(envelope)
            return False
        except Refused as error:
            _log.info("the report on attempt %s was refused: %s", attempt_id, error)
        except Rejected as error:
            _log.error("the report on attempt %s was not taken: %s", attempt_id, error)
            if error.other_version:  # left for the next worker, which will speak the server's version
                self._keep(envelope)
                self._forget(envelope)
                return True
        self._spool.remove(envelope)
        self._forget(envelope)
        return True

    def _forget(self, envelope: Envelope) -> None:
        with self._changed:
            self._waiting.pop(envelope.key, None)

    def _keep(self, envelope: Envelope) -> None:
        try:
            self._spool.put(envelope)
        except OSError as error:
            _log.warning("the report on attempt %s can't be kept on disk: %s", envelope.report.attempt_id, error)

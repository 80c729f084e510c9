"""Sends the worker's heartbeats: one request for all its attempts renews their leases and brings stop requests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from yarrow import version
from yarrow.errors import Refused
from yarrow.protocol import Heartbeat, RunningAttempt
from yarrow_executor.client import ApiClient, Rejected, Unreachable
from yarrow_executor.reporter import Reporter
from yarrow_executor.slots import Occupant, SlotState, SlotTable, ticks

_RETRY = (0.1, 0.2, 0.3, 0.5, 1.0)  # seconds between tries while the web server does not answer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a worker is."""

    worker_id: str  # new at every start
    hostname: str
    pid: int  # of the main process
    queues: tuple[str, ...]


class Heart:
    """The heartbeat of a worker. `run` is a thread; the leases are for the loop that enforces them."""

    def __init__(
        self,
        identity: Identity,
        table: SlotTable,
        client: ApiClient,
        reporter: Reporter,
        *,
        interval: float,
        on_stop: Callable[[Mapping[str, str]], None],
        on_rejected: Callable[[Rejected], None],
    ) -> None:
        """Args:
        interval: Seconds between heartbeats until the server names others.
        on_stop: Called with attempt_id -> reason when attempts are to be stopped.
        on_rejected: Called when the server wants nothing to do with this worker (its token, its version).
        """
        self._identity = identity
        self._table = table
        self._client = client
        self._reporter = reporter
        self._interval = interval
        self._on_stop = on_stop
        self._on_rejected = on_rejected
        self._beat_now = threading.Event()
        self._ended = False
        self.accepted = False
        """Whether the server has ever taken a heartbeat of this worker."""
        self._leases: dict[str, float] = {}

    def lease_until(self, attempt_id: str) -> float:
        """The tick until which heartbeats have renewed the lease of an attempt; 0 when none has yet."""
        return self._leases.get(attempt_id, 0.0)

    def beat(self) -> None:
        """Asks for a heartbeat now."""
        self._beat_now.set()

    def end(self) -> None:
        """Lets `run` end after a last heartbeat."""
        self._ended = True
        self._beat_now.set()

    def run(self) -> None:
        """Sends heartbeats until the end."""
        failures = 0
        while True:
            ended = self._ended
            if self._once():
                failures = 0
                pause = self._interval
            else:
                pause = min(_RETRY[min(failures, len(_RETRY) - 1)], self._interval)
                failures += 1
            if ended:
                return
            self._beat_now.wait(pause)
            self._beat_now.clear()

    def _once(self) -> bool:
        executing = [occupant for occupant in self._table.occupants() if occupant.state >= SlotState.RUNNING]
        attempts = {
            occupant.attempt_id: RunningAttempt(occupant.attempt_id, occupant.done, occupant.total, occupant.unit)
            for occupant in executing
        }
        for attempt_id in self._reporter.undelivered():
            attempts.setdefault(attempt_id, RunningAttempt(attempt_id))
        sent = ticks()
        try:
            reply = self._client.heartbeat(self._message(tuple(attempts.values())))
        except Unreachable as error:
            _log.debug("heartbeat: %s", error)
            return False
        except Refused as error:
            _log.warning("heartbeat: %s", error)
            return False
        except Rejected as error:
            self._on_rejected(error)
            return True  # not worth a quick retry
        self.accepted = True
        self._interval = reply.interval
        self._leases = {
            occupant.attempt_id: sent + occupant.lease
            for occupant in executing
            if occupant.attempt_id not in reply.stop
        }
        if stop := self._wanted(reply.stop, executing):
            self._on_stop(stop)
        return True

    def _wanted(self, stop: Mapping[str, str], executing: Sequence[Occupant]) -> dict[str, str]:
        """The stops that still mean what runs here: an attempt may have been put off meanwhile and be here again."""
        now = {(occupant.attempt_id, occupant.token) for occupant in self._table.occupants()}
        same = {occupant.attempt_id for occupant in executing if (occupant.attempt_id, occupant.token) in now}
        return {attempt_id: reason for attempt_id, reason in stop.items() if attempt_id in same}

    def _message(self, attempts: tuple[RunningAttempt, ...]) -> Heartbeat:
        identity = self._identity
        return Heartbeat(
            worker_id=identity.worker_id,
            hostname=identity.hostname,
            pid=identity.pid,
            queues=identity.queues,
            slots=self._table.size,
            version=version.__version__,
            attempts=attempts,
            stopping=self._ended or self._table.stopping,
        )

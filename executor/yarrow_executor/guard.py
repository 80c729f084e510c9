"""Stops attempts that are beyond their execution timeout, unwanted by the server, or without a lease.

It decides from the slot table and the time it is given, and touches processes only through `kill`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass

from yarrow.language.durations import format_duration
from yarrow.states import AttemptState
from yarrow_executor.slots import Occupant, SlotState, SlotTable, Stop

GRACE = 3.0  # seconds between SIGTERM and SIGKILL

TIMEOUT_KINDS = ("Timeout",)
"""What `retry_on` calls a task that took longer than its `execution_timeout`."""

Kill = Callable[[Occupant, signal.Signals], None]


@dataclass(slots=True)
class Stopping:
    """An attempt that is being stopped, and what will be reported of it."""

    occupant: Occupant
    state: AttemptState
    reason: str
    kill_at: float
    kinds: tuple[str, ...] = ()  # of the failure
    killed: bool = False


class Guard:
    """Enforces deadlines on the slots of one worker."""

    def __init__(self, table: SlotTable, kill: Kill, lease_until: Callable[[str], float], grace: float = GRACE) -> None:
        """Args:
        kill: Sends a signal to the process group of an occupant.
        lease_until: Until which tick heartbeats have renewed the lease of an attempt (0: not yet).
        grace: Seconds between SIGTERM and SIGKILL.
        """
        self._table = table
        self._kill = kill
        self._lease_until = lease_until
        self._grace = grace
        self._stopping: dict[int, Stopping] = {}

    def tick(self, now: float) -> float | None:
        """Stops what has to be stopped by now, and returns the next tick at which there is something to do."""
        moments: list[float | None] = []
        for occupant in self._table.occupants():
            watched = None
            if occupant.slot not in self._stopping and occupant.state == SlotState.RUNNING:
                watched = self._watch(occupant, now)
            stopping = self._stopping.get(occupant.slot)
            moments.append(self._escalate(stopping, now) if stopping else watched)
        return min((moment for moment in moments if moment), default=None)

    def stop(self, attempt_id: str, reason: str, now: float) -> None:
        """Stops an attempt because somebody wants it cancelled. Does nothing when it does not run here (any more)."""
        for occupant in self._table.occupants():
            if occupant.attempt_id == attempt_id:
                self._begin(occupant, AttemptState.CANCELLED, reason, now)

    def stop_all(self, reason: str, now: float) -> None:
        """Stops everything, because the worker has to end."""
        for occupant in self._table.occupants():
            self._begin(occupant, AttemptState.CANCELLED, reason, now)

    def gone(self, slot: int, pid: int) -> Stopping | None:
        """The pool child of a slot has ended. Returns what was being stopped there."""
        stopping = self._stopping.get(slot)
        if stopping is None or stopping.occupant.pid != pid:
            return None
        return self._stopping.pop(slot)

    def _watch(self, occupant: Occupant, now: float) -> float:
        """Stops an attempt whose time is over; returns when it will be."""
        lease_until = max(occupant.lease_until, self._lease_until(occupant.attempt_id)) - fence_margin(occupant.lease)
        if occupant.deadline and now >= occupant.deadline:
            limit = format_duration(occupant.timeout)
            self._begin(occupant, AttemptState.FAILED, f"execution_timeout of {limit} exceeded", now, TIMEOUT_KINDS)
        elif now >= lease_until:
            reason = "stopped by its worker, which could not reach the Execution API to renew the lease"
            self._begin(occupant, AttemptState.LOST, reason, now)
        return min(lease_until, occupant.deadline or lease_until)

    def _begin(
        self, occupant: Occupant, state: AttemptState, reason: str, now: float, kinds: tuple[str, ...] = ()
    ) -> None:
        slot = self._table.slots[occupant.slot]
        if occupant.state != SlotState.RUNNING or occupant.slot in self._stopping:
            return
        slot.stop = Stop.ASKED
        again = slot.read()
        if again.state != SlotState.RUNNING or again.attempt_id != occupant.attempt_id:
            slot.stop = Stop.NO  # it ended at this moment, and its child reports it
            return
        slot.stop = Stop.SURE
        grace = self._grace if state != AttemptState.LOST else min(self._grace, fence_margin(occupant.lease) / 2)
        self._stopping[occupant.slot] = Stopping(occupant, state, reason, now + grace, kinds)
        self._kill(occupant, signal.SIGTERM)

    def _escalate(self, stopping: Stopping, now: float) -> float | None:
        if stopping.killed:
            return None
        if now < stopping.kill_at:
            return stopping.kill_at
        stopping.killed = True
        self._kill(stopping.occupant, signal.SIGKILL)
        return None


def fence_margin(lease: float) -> float:
    """How long before the end of its lease a worker stops an attempt, so that it is gone when another one starts."""
    return min(lease / 4, 10.0)

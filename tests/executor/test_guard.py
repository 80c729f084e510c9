"""When attempts are stopped. No process is involved: the guard is told the time and says whom to signal."""

from __future__ import annotations

import signal

import pytest

from yarrow.states import AttemptState
from yarrow_executor.guard import GRACE, Guard, fence_margin
from yarrow_executor.slots import Occupant, SlotTable, Stop, ticks


class Bench:
    """A table with one running attempt, and a record of the signals."""

    def __init__(self, *, timeout: float = 0.0, lease: float = 60.0) -> None:
        self.table = SlotTable(2)
        self.now = ticks()
        self.slot = self.table.slots[1]
        self.slot.run(100, "a1", "token", started=0.0, timeout=timeout, lease=lease, claimed=self.now)
        self.signals: list[tuple[int, signal.Signals]] = []
        self.leases: dict[str, float] = {}
        self.guard = Guard(self.table, self.kill, lambda attempt_id: self.leases.get(attempt_id, 0.0))

    def kill(self, occupant: Occupant, number: signal.Signals) -> None:
        self.signals.append((occupant.pid, number))


def test_nothing_is_stopped_while_its_time_is_not_over() -> None:
    bench = Bench(timeout=5.0)
    deadline = bench.slot.read().deadline
    assert bench.guard.tick(bench.now) == deadline
    assert bench.guard.tick(deadline - 0.01) == deadline
    assert bench.signals == []


def test_a_timeout_sends_sigterm_and_after_a_grace_sigkill() -> None:
    bench = Bench(timeout=5.0)
    deadline = bench.slot.read().deadline
    assert bench.guard.tick(deadline) == deadline + GRACE
    assert bench.signals == [(100, signal.SIGTERM)]
    assert bench.slot.stop == Stop.SURE
    bench.guard.tick(deadline + GRACE - 0.1)
    assert len(bench.signals) == 1
    assert bench.guard.tick(deadline + GRACE) is None
    bench.guard.tick(deadline + GRACE + 1)
    assert bench.signals == [(100, signal.SIGTERM), (100, signal.SIGKILL)]
    assert bench.guard.gone(1, 99) is None, "another process"
    stopping = bench.guard.gone(1, 100)
    assert stopping is not None
    assert (stopping.state, stopping.reason) == (AttemptState.FAILED, "execution_timeout of 5s exceeded")
    assert stopping.kinds == ("Timeout",)
    assert bench.guard.gone(1, 100) is None


def test_an_attempt_without_a_lease_is_stopped_before_somebody_else_may_start_it() -> None:
    bench = Bench(lease=60.0)
    end = bench.now + 60
    assert bench.guard.tick(bench.now) == end - fence_margin(60.0)
    bench.leases["a1"] = end + 5  # a heartbeat went through
    bench.guard.tick(end - fence_margin(60.0))
    assert bench.signals == []
    bench.guard.tick(end + 5 - fence_margin(60.0))
    assert bench.signals == [(100, signal.SIGTERM)]
    bench.guard.tick(end + 5 - fence_margin(60.0) / 2)
    assert bench.signals[-1] == (100, signal.SIGKILL), "it is gone before the lease is"
    stopping = bench.guard.gone(1, 100)
    assert stopping is not None
    assert stopping.state == AttemptState.LOST


@pytest.mark.parametrize("moment", ["reporting", "next attempt", "idle"])
def test_an_attempt_that_has_ended_is_not_stopped(moment: str) -> None:
    bench = Bench()
    if moment == "reporting":
        bench.slot.report()
    elif moment == "next attempt":
        bench.slot.run(100, "a2", "token", started=0.0, timeout=0.0, lease=60.0, claimed=bench.now)
    else:
        bench.slot.occupy(100)
    bench.guard.stop("a1", "cancelled", bench.now)
    assert bench.signals == []
    assert bench.slot.stop == Stop.NO


def test_a_cancelled_attempt_is_stopped_once_and_the_first_reason_stays() -> None:
    bench = Bench()
    bench.guard.stop("a1", "cancelled by ada", bench.now)
    bench.guard.stop("a1", "not this worker's any more", bench.now)
    bench.guard.stop_all("the worker was stopped", bench.now)
    assert bench.signals == [(100, signal.SIGTERM)]
    stopping = bench.guard.gone(1, 100)
    assert stopping is not None
    assert (stopping.state, stopping.reason) == (AttemptState.CANCELLED, "cancelled by ada")


def test_stopping_the_worker_stops_every_slot() -> None:
    bench = Bench()
    bench.table.slots[0].run(200, "a2", "token", started=0.0, timeout=0.0, lease=60.0, claimed=bench.now)
    bench.guard.stop_all("the worker was stopped", bench.now)
    assert sorted(bench.signals) == [(100, signal.SIGTERM), (200, signal.SIGTERM)]

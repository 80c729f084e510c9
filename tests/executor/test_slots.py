"""The slot table: what one process writes, another one reads."""

from __future__ import annotations

import os

from yarrow_executor.slots import SlotState, SlotTable, Stop, ticks


def test_a_child_is_seen_claiming_running_and_reporting() -> None:
    table = SlotTable(2)
    slot = table.slots[1]
    slot.occupy(4711)
    assert (slot.read().state, slot.read().pid, slot.read().attempt_id) == (SlotState.IDLE, 4711, "")

    slot.claim(4711, "a" * 32, "token")
    assert (slot.read().state, slot.read().attempt_id, slot.read().token) == (SlotState.CLAIMING, "a" * 32, "token")

    now = ticks()
    slot.run(4711, "b" * 32, "other", started=1.5, timeout=5.0, lease=60.0, claimed=now)
    running = slot.read()
    assert running.state == SlotState.RUNNING
    assert running.started == 1.5
    assert now + 5 <= running.deadline <= ticks() + 5
    assert running.lease_until == now + 60
    assert (running.done, running.total, running.unit) == (None, None, None)

    slot.progress(3.0, None, "rows")
    assert (slot.read().done, slot.read().total, slot.read().unit) == (3.0, None, "rows")
    slot.progress(4.0, 9.0, "Zeilen mit äöü")
    assert slot.read().total == 9.0
    assert (slot.read().unit or "").startswith("Zeilen mit ä")

    slot.report()
    assert (slot.read().state, slot.read().attempt_id) == (SlotState.REPORTING, "b" * 32)
    slot.resume()
    assert slot.read().state == SlotState.IDLE
    assert table.slots[0].read().pid == 0


def test_no_timeout_is_no_deadline() -> None:
    slot = SlotTable(1).slots[0]
    slot.run(1, "a", "t", started=0.0, timeout=0.0, lease=60.0, claimed=0.0)
    assert slot.read().deadline == 0.0


def test_other_processes_see_the_same_table() -> None:
    table = SlotTable(1)
    if os.fork() == 0:
        table.slots[0].run(9, "attempt", "token", started=0.0, timeout=0.0, lease=1.0, claimed=0.0)
        os._exit(0)
    os.wait()
    assert table.slots[0].read().attempt_id == "attempt"
    table.slots[0].stop = Stop.SURE
    table.stop()
    if os.fork() == 0:
        os._exit(0 if table.stopping and table.slots[0].stop == Stop.SURE else 1)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0


def test_a_successor_of_a_child_that_died_while_writing_repairs_the_slot() -> None:
    table = SlotTable(1)
    slot = table.slots[0]
    slot.run(7, "attempt", "token", started=0.0, timeout=0.0, lease=1.0, claimed=0.0)
    slot._memory[slot._base + 4] += 1  # as if it had been killed in the middle of a change
    assert slot.read().state == SlotState.IDLE
    assert slot.read().pid == 7
    slot.occupy(8)
    slot.claim(8, "next", "token")
    assert (slot.read().pid, slot.read().attempt_id) == (8, "next")

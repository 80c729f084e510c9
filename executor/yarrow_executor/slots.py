"""The slots of a worker: a table in shared memory that says what each pool child executes at this moment.

A child writes its own slot; the minder and the main process read it. The one field that the minder writes is `stop`.
No lock is held across processes, so a process that is killed in the middle leaves nothing locked: a sequence number
that is odd during a change tells a reader to read again.
"""

from __future__ import annotations

import dataclasses
import mmap
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

_HEADER = 64
_SIZE = 512
_FIELDS = struct.Struct("=Iddddddd16s64s192s")  # pid and what follows it in `Occupant`, then attempt id and token
_SEQUENCE = struct.Struct("=I")
_AT_STATE, _AT_STOP, _AT_SEQUENCE, _AT_FIELDS = 0, 1, 4, 12  # every number lies at a multiple of its size
_AT_DONE = _AT_FIELDS + 4 + 5 * 8
_PROGRESS = struct.Struct("=dd16s")

UNKNOWN = float("nan")


def ticks() -> float:
    """Seconds of a clock that never jumps, is the same in all processes of a host, and goes on while it sleeps."""
    return time.clock_gettime(_CLOCK)


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SlotState(IntEnum):
    """What a pool child does."""

    IDLE = 0
    CLAIMING = 1
    RUNNING = 2  # between the claim and the end of the task's own code
    REPORTING = 3  # the task's code has ended; its report is on the way


class Stop(IntEnum):
    """The minder's wish to stop what runs in a slot.

    The minder asks, looks whether the attempt still runs, and then makes sure of it or takes it back. A child that
    has ended its task while it was asked waits for that answer, so an attempt is either reported by its child or
    stopped and reported by the minder, and a kill never meets the slot's next attempt.
    """

    NO = 0
    ASKED = 1
    SURE = 2


@dataclass(frozen=True, slots=True)
class Occupant:
    """A reading of one slot."""

    slot: int
    state: SlotState
    pid: int  # of the pool child; 0 before the first one started
    attempt_id: str
    token: str
    started: float  # seconds since the epoch
    timeout: float  # seconds, the execution timeout; 0 without one
    deadline: float  # in `ticks`, when the timeout is over; 0 without one
    lease: float  # seconds
    lease_until: float  # in `ticks`, as the claim gave it; heartbeats move it on
    done: float | None
    total: float | None
    unit: str | None


class SlotTable:
    """The table. Make it before forking: every process of the worker sees the same memory."""

    def __init__(self, slots: int) -> None:
        self.size = slots
        self._memory = mmap.mmap(-1, _HEADER + _SIZE * slots)
        self.slots = tuple(Slot(self._memory, number) for number in range(slots))

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots)

    @property
    def stopping(self) -> bool:
        """Whether the worker takes no more work and wants tasks to stop where they can go on later."""
        return self._memory[0] != 0

    def stop(self) -> None:
        """Tells all children that the worker is stopping."""
        self._memory[0] = 1

    def occupants(self) -> list[Occupant]:
        """What every slot does now."""
        return [slot.read() for slot in self.slots]


class Slot:
    """One slot of the table."""

    def __init__(self, memory: mmap.mmap, number: int) -> None:
        self.number = number
        self._memory = memory
        self._base = _HEADER + _SIZE * number
        self._sequence = 0

    # Written by the pool child.

    def occupy(self, pid: int) -> None:
        """A new pool child takes the slot over, whatever its predecessor left."""
        (self._sequence,) = _SEQUENCE.unpack_from(self._memory, self._base + _AT_SEQUENCE)
        self._sequence += self._sequence % 2
        self._memory[self._base + _AT_STOP] = Stop.NO
        self._write(SlotState.IDLE, pid=pid)

    def claim(self, pid: int, attempt_id: str, token: str) -> None:
        """The child is about to claim an attempt."""
        self._write(SlotState.CLAIMING, pid=pid, attempt_id=attempt_id, token=token)

    def run(
        self, pid: int, attempt_id: str, token: str, *, started: float, timeout: float, lease: float, claimed: float
    ) -> None:
        """The child begins to execute an attempt that it asked for at the tick `claimed`; see `Occupant`."""
        deadline = ticks() + timeout if timeout else 0.0
        self._write(SlotState.RUNNING, pid, attempt_id, token, (started, timeout, deadline, lease, claimed + lease))

    def progress(self, done: float, total: float | None, unit: str) -> None:
        """How far the attempt has got."""
        _PROGRESS.pack_into(
            self._memory, self._base + _AT_DONE, done, UNKNOWN if total is None else total, _short(unit, 16)
        )

    def report(self) -> None:
        """The task's own code has ended."""
        self._memory[self._base + _AT_STATE] = SlotState.REPORTING

    def resume(self) -> None:
        """Back from REPORTING to IDLE."""
        self._memory[self._base + _AT_STATE] = SlotState.IDLE

    # Written by the minder.

    @property
    def stop(self) -> Stop:
        return Stop(self._memory[self._base + _AT_STOP])

    @stop.setter
    def stop(self, value: Stop) -> None:
        self._memory[self._base + _AT_STOP] = value

    # Read by everybody.

    @property
    def state(self) -> SlotState:
        return SlotState(self._memory[self._base + _AT_STATE])

    def read(self) -> Occupant:
        """A consistent reading, also of a slot whose child was killed while it wrote."""
        for _ in range(1000):
            before = _SEQUENCE.unpack_from(self._memory, self._base + _AT_SEQUENCE)[0]
            occupant = self._read()
            if before % 2 == 0 and before == _SEQUENCE.unpack_from(self._memory, self._base + _AT_SEQUENCE)[0]:
                return occupant
            time.sleep(0)
        # Its writer died in the middle. It changes a slot only when no user code runs.
        return dataclasses.replace(occupant, state=SlotState.IDLE, attempt_id="", token="")

    def _read(self) -> Occupant:
        state = SlotState(self._memory[self._base + _AT_STATE])
        pid, started, timeout, deadline, lease, lease_until, done, total, unit, attempt_id, token = _FIELDS.unpack_from(
            self._memory, self._base + _AT_FIELDS
        )
        return Occupant(
            slot=self.number,
            state=state,
            pid=pid,
            attempt_id=_text(attempt_id),
            token=_text(token),
            started=started,
            timeout=timeout,
            deadline=deadline,
            lease=lease,
            lease_until=lease_until,
            done=None if done != done else done,  # NaN is the one value that differs from itself
            total=None if total != total else total,
            unit=_text(unit) or None,
        )

    def _write(
        self,
        state: SlotState,
        pid: int,
        attempt_id: str = "",
        token: str = "",
        times: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0),
    ) -> None:
        memory, base = self._memory, self._base
        _SEQUENCE.pack_into(memory, base + _AT_SEQUENCE, self._sequence + 1)
        memory[base + _AT_STATE] = state
        _FIELDS.pack_into(
            memory, base + _AT_FIELDS, pid, *times, UNKNOWN, UNKNOWN, b"", attempt_id.encode(), token.encode()
        )
        self._sequence = (self._sequence + 2) % 2**32
        _SEQUENCE.pack_into(memory, base + _AT_SEQUENCE, self._sequence)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode()


def _short(text: str, size: int) -> bytes:
    """At most `size` bytes, never half a character."""
    return text.encode()[:size].decode(errors="ignore").encode()

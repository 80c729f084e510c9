"""The minder: the process of a worker that looks after the pool children and never runs anybody's code.

It reads what they print, keeps their deadlines, reports those that died, and outlives the main process for as long as
it takes to leave nothing behind.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from yarrow.clock import Clock, utc_now
from yarrow.protocol import LogLine, Report
from yarrow.secrets import Masker, masker_for
from yarrow.states import AttemptState
from yarrow_executor import leftovers
from yarrow_executor.client import ApiClient, Rejected
from yarrow_executor.guard import Guard
from yarrow_executor.heart import Heart, Identity
from yarrow_executor.output import STREAMS, Frame, Pipe, Pipes, Splitter, readable
from yarrow_executor.reporter import Reporter
from yarrow_executor.shipper import LogShipper, note
from yarrow_executor.slots import Occupant, SlotState, SlotTable, ticks
from yarrow_executor.spool import Envelope, Spool

EXIT_REJECTED = 2  # the server wants nothing to do with this worker

DIED_KINDS = ("ProcessDied",)
"""What `retry_on` calls a task that took its whole process with it, or ran out of memory."""

_CHUNK = 256 * 1024
_SMALL = 4096
_PAUSE = 0.02  # seconds; busy children write a few bytes hundreds of times a second, which are read together
_FLUSH = 5.0  # seconds for the last logs and reports

_log = logging.getLogger("yarrow.worker")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the minder is told about the deployment."""

    api_url: str
    worker_token: str
    heartbeat_interval: float
    log_limit: int
    worker_grace: float


@dataclass(slots=True)
class _Source:
    """One pipe, and the attempt whose output comes out of it at present."""

    pipe: Pipe
    splitter: Splitter
    attempt_id: str = ""
    token: str = ""
    masker: Masker | None = None


class Minder:
    """Runs in a process of its own, forked from the worker's main process before that becomes heavy."""

    def __init__(
        self,
        identity: Identity,
        settings: Settings,
        table: SlotTable,
        pipes: Pipes,
        control: socket.socket,
        spool: Spool,
        clock: Clock = utc_now,
    ) -> None:
        """Args: control: Where the main process writes its messages; its end means that the main process is gone."""
        self._settings = settings
        self._table = table
        self._control = control
        self._spool = spool
        self._clock = clock
        self._identity = identity
        self._sources = [_Source(pipe, Splitter(pipes.key)) for pipe in pipes.pipes]
        self._reporter = Reporter(self._client(), spool)
        self._shipper = LogShipper(self._client(), settings.log_limit)
        self._heart = Heart(
            identity,
            table,
            self._client(),
            self._reporter,
            interval=settings.heartbeat_interval,
            on_stop=lambda reasons: self._call(lambda: self._stop(reasons)),
            on_rejected=lambda error: self._call(lambda: self._rejected(error)),
        )
        self._heart_thread = threading.Thread(target=self._heart.run, name="heart", daemon=True)
        self._guard = Guard(table, self._kill, self._heart.lease_until)
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._waker, self._wake = socket.socketpair()
        self._messages = b""
        self._grace_over: float | None = None
        self._main_alive = True
        self._ending = False
        self._exit_code = 0

    def run(self) -> int:
        """Works until the main process says goodbye or is gone. Returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # it ends with the main process, after the last report
        if adopted := self._spool.adopt():
            _log.info("delivering %d reports that an earlier worker has left", adopted)
        self._reporter.look()
        threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (("reporter", self._reporter.run), ("shipper", self._shipper.run))
        ]
        for thread in threads:
            thread.start()
        self._loop()
        self._end(threads)
        return self._exit_code

    # The loop.

    def _loop(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ, self._read_control)
            selector.register(self._waker, selectors.EVENT_READ, self._read_calls)
            for source in self._sources:
                selector.register(source.pipe.reader, selectors.EVENT_READ, source)
            while not self._ending:
                moment = self._tick()
                amount = 0
                events = selector.select(None if moment is None else max(0.0, moment - ticks()))
                for key, _ in events:
                    if isinstance(key.data, _Source):
                        amount += self._read(key.data)
                    else:
                        key.data()
                if events and amount <= _SMALL and not self._ending:
                    time.sleep(_PAUSE)

    def _tick(self) -> float | None:
        now = ticks()
        if self._grace_over is not None and now >= self._grace_over:
            self._grace_over = None
            self._guard.stop_all("the worker was stopped", now)
        moments = (self._guard.tick(now), self._grace_over)
        return min((moment for moment in moments if moment is not None), default=None)

    def _read_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._waker.recv(4096, socket.MSG_DONTWAIT)
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()()

    def _call(self, function: Callable[[], None]) -> None:
        """Has a function called by the loop. For the threads."""
        self._calls.put(function)
        with contextlib.suppress(OSError):
            self._wake.send(b"!", socket.MSG_DONTWAIT)

    def _stop(self, reasons: Mapping[str, str]) -> None:
        for attempt_id, reason in reasons.items():
            self._guard.stop(attempt_id, reason, ticks())

    def _rejected(self, error: Rejected) -> None:
        """A wrong token or version will not mend itself: the worker ends, and says why."""
        if self._exit_code:
            return
        _log.error("The web server at %s refuses this worker: %s", self._settings.api_url, error)
        self._exit_code = EXIT_REJECTED
        if self._heart.accepted:
            os.kill(self._identity.pid, signal.SIGTERM)  # its tasks may have been running for hours: an orderly end
        else:
            self._ending = True

    # What the main process says.

    def _read_control(self) -> None:
        data = self._control.recv(65536)
        if not data:
            self._main_alive = False
            self._ending = True
            return
        *messages, self._messages = (self._messages + data).split(b"\n")
        for message in map(json.loads, messages):
            match message["kind"]:
                case "ready" if self._heart_thread.ident is None:  # again after each reconnection to the broker
                    self._heart_thread.start()
                case "stopping":
                    moment = ticks() + (self._settings.worker_grace if message["warm"] else 0.0)
                    self._grace_over = min(moment, self._grace_over or moment)
                    self._heart.beat()
                case "down":
                    self._down(Occupant(**message["occupant"]), message["exitcode"])
                case "bye":
                    self._ending = True

    def _down(self, occupant: Occupant, exitcode: int) -> None:
        """A pool child has ended. What it was doing is reported, and nothing that it started goes on."""
        stopping = self._guard.gone(occupant.slot, occupant.pid)
        if stopping is None and occupant.state == SlotState.IDLE:
            return
        leftovers.signal_group(occupant.pid, signal.SIGKILL)
        attempt_id = stopping.occupant.attempt_id if stopping else occupant.attempt_id
        leftovers.kill_all(leftovers.marked(attempt_id))
        if stopping:
            self._conclude(stopping.occupant, stopping.state, stopping.reason, stopping.kinds)
        elif occupant.state == SlotState.RUNNING:
            self._conclude(occupant, AttemptState.FAILED, how_it_died(exitcode), DIED_KINDS)
        else:
            self._conclude_unreported(occupant, f"its worker process {how_it_died(exitcode)}, outside the task")

    def _conclude_unreported(self, occupant: Occupant, reason: str) -> None:
        """The child died between claim and execution, or while it reported: a report that came through stands."""
        if all(envelope.token != occupant.token for envelope in self._spool.pending()):
            self._conclude(occupant, AttemptState.LOST, reason)

    def _conclude(self, occupant: Occupant, state: AttemptState, reason: str, kinds: tuple[str, ...] = ()) -> None:
        for source in self._of(occupant.slot):
            self._read(source, everything=True)
        for source in self._of(occupant.slot):
            if source.attempt_id == occupant.attempt_id:
                self._close(source)
        now = self._clock()
        if occupant.state == SlotState.RUNNING:
            self._shipper.add(occupant.token, [note(reason, now, "ERROR")])
            self._shipper.close(occupant.token)
        report = Report(
            attempt_id=occupant.attempt_id,
            state=state,
            reason=reason,
            started_at=datetime.fromtimestamp(occupant.started, UTC).isoformat() if occupant.started else None,
            ended_at=now.isoformat(),
            kinds=kinds,
        )
        self._reporter.send(Envelope(report, occupant.token, self._identity.worker_id))

    # What the children print.

    def _read(self, source: _Source, *, everything: bool = False) -> int:
        amount = 0
        while True:
            try:
                data = os.read(source.pipe.reader, _CHUNK)
            except BlockingIOError:
                return amount
            if not data:
                return amount
            amount += len(data)
            self._take(source, data)
            if not everything:
                return amount

    def _take(self, source: _Source, data: bytes) -> None:
        at = self._clock().isoformat(timespec="microseconds")
        lines: list[LogLine] = []
        for piece in source.splitter.feed(data):
            if isinstance(piece, bytes):
                lines.append(LogLine(at, STREAMS[source.pipe.stream], readable(piece)))
            elif piece.kind == "log":
                lines += _records(piece)
            else:
                self._add(source, lines)
                lines = []
                self._mark(source, piece)
        self._add(source, lines)

    def _mark(self, source: _Source, frame: Frame) -> None:
        if frame.kind in ("begin", "end"):
            self._close(source)
        if frame.kind == "begin":
            source.attempt_id, source.token = frame.payload["attempt_id"], frame.payload["token"]
            masker = masker_for(frame.payload["connections"], frame.payload["variables"])
            source.masker = masker or None
        elif frame.kind == "spooled":
            self._reporter.look()

    def _close(self, source: _Source) -> None:
        """The attempt whose output this was has ended."""
        at = self._clock().isoformat(timespec="microseconds")
        stream = STREAMS[source.pipe.stream]
        self._add(source, [LogLine(at, stream, readable(rest)) for rest in source.splitter.flush()])
        token, source.attempt_id, source.token, source.masker = source.token, "", "", None
        if token and all(other.token != token for other in self._of(source.pipe.slot)):
            self._shipper.close(token)

    def _add(self, source: _Source, lines: list[LogLine]) -> None:
        if not lines:
            return
        if not source.attempt_id:  # between attempts: the child's own affairs
            for line in lines:
                _log.info("slot %d: %s", source.pipe.slot, line.text)
        elif not self._shipper.full(source.token):
            if source.masker is not None:
                lines = [LogLine(x.at, x.stream, source.masker.mask(x.text), x.level) for x in lines]
            self._shipper.add(source.token, lines)

    def _of(self, slot: int) -> list[_Source]:
        return self._sources[2 * slot : 2 * slot + 2]

    # The end.

    def _kill(self, occupant: Occupant, number: signal.Signals) -> None:
        below = leftovers.descendants(occupant.pid) if number == signal.SIGKILL else []
        leftovers.signal_group(occupant.pid, number)
        leftovers.kill_all(below)

    def _end(self, threads: list[threading.Thread]) -> None:
        """Leaves nothing running, and gives the last logs and reports a few seconds."""
        if not self._main_alive:
            _log.error("The worker's main process is gone: ending what it has left behind.")
            for occupant in self._table.occupants():
                if occupant.pid:
                    self._kill(occupant, signal.SIGKILL)
                if occupant.state != SlotState.IDLE:
                    leftovers.kill_all(leftovers.marked(occupant.attempt_id))
                stopping = self._guard.gone(occupant.slot, occupant.pid)
                if stopping:
                    self._conclude(stopping.occupant, stopping.state, stopping.reason, stopping.kinds)
                elif occupant.state == SlotState.RUNNING:
                    self._conclude(occupant, AttemptState.LOST, "the worker was killed")
                elif occupant.state != SlotState.IDLE:
                    self._conclude_unreported(occupant, "the worker was killed")
        for source in self._sources:
            self._read(source, everything=True)
            self._close(source)
        deadline = ticks() + _FLUSH
        self._reporter.look()
        self._reporter.finish(_FLUSH)
        self._shipper.finish()
        for thread in threads:
            thread.join(max(0.0, deadline - ticks()))
        if self._heart_thread.is_alive():
            self._heart.end()
            self._heart_thread.join(max(0.5, deadline - ticks()))
        self._spool.close()

    def _client(self) -> ApiClient:
        return ApiClient(self._settings.api_url, self._settings.worker_token)


def how_it_died(exitcode: int) -> str:
    """A sentence for a pool child that ended in the middle of a task."""
    if exitcode >= 0:
        return f"ended its process with exit code {exitcode}"
    number = -exitcode
    try:
        name = f"{number} ({signal.Signals(number).name})"
    except ValueError:
        name = str(number)
    return f"killed by signal {name}" + ("; out of memory?" if number == signal.SIGKILL else "")


def _records(frame: Frame) -> Iterator[LogLine]:
    payload: Mapping[str, Any] = frame.payload
    for line in str(payload["text"]).splitlines() or [""]:
        yield LogLine(payload["at"], "log", line, payload["level"])

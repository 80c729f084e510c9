"""Ships the lines that tasks print to the log store, through the Execution API, while the tasks run.

The minder's reading loop hands lines in and never waits; a thread sends them in batches. Buffers are bounded: what
does not fit because the web server does not take it is counted, and the log says how much is missing.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

from yarrow.errors import Refused
from yarrow.protocol import LogLine
from yarrow_executor.client import ApiClient, Rejected, Unreachable
from yarrow_executor.slots import ticks

DELAY = 0.25  # seconds that a line may wait for others to travel with
BATCH = 64 * 1024  # bytes of one attempt after which they travel at once
_REQUEST = 512 * 1024  # bytes of one request
_BUFFER = 8 * 1024 * 1024  # bytes kept of one attempt while the web server does not take them
_OVERHEAD = 100  # bytes that a line costs besides its text
_BACKOFF = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Buffer:
    """The lines of one attempt that have not been sent yet."""

    lines: list[LogLine] = field(default_factory=list)
    size: int = 0
    since: float = 0.0  # the tick of the oldest line
    total: int = 0  # bytes of the whole log so far
    missing: int = 0  # lines that did not fit
    closed: bool = False

    def take(self, most: int) -> list[LogLine]:
        """The oldest lines, up to `most` bytes of them but at least one."""
        count = size = 0
        for line in self.lines:
            if count and size + _size(line) > most:
                break
            size += _size(line)
            count += 1
        taken, self.lines = self.lines[:count], self.lines[count:]
        self.size -= size
        return taken

    def put_back(self, lines: list[LogLine]) -> None:
        self.lines[:0] = lines
        self.size += sum(map(_size, lines))


class LogShipper:
    """Buffers and sends. `add` and `close` are for the reading loop, `run` is the thread."""

    def __init__(self, client: ApiClient, limit: int) -> None:
        """Args: limit: Bytes kept of the log of one attempt."""
        self._client = client
        self._limit = limit
        self._buffers: dict[str, _Buffer] = {}  # by token: an attempt that was put off has another one each time
        self._changed = threading.Condition()
        self._finishing = False

    def add(self, token: str, lines: list[LogLine]) -> None:
        """Hands in lines of the attempt that has this token."""
        if not lines:
            return
        with self._changed:
            buffer = self._buffers.get(token)
            if buffer is None:
                buffer = self._buffers[token] = _Buffer()
            if not buffer.lines:
                buffer.since = ticks()
            was_due = buffer.size >= BATCH
            for line in lines:
                self._add(buffer, line)
            if len(buffer.lines) == len(lines) or (buffer.size >= BATCH and not was_due):
                self._changed.notify()

    def full(self, token: str) -> bool:
        """Whether the log of an attempt has reached its limit, so that its lines need not even be read."""
        buffer = self._buffers.get(token)
        return buffer is not None and buffer.total > self._limit

    def close(self, token: str) -> None:
        """No further line will come."""
        with self._changed:
            if buffer := self._buffers.get(token):
                buffer.closed = True
                self._changed.notify()

    def run(self) -> None:
        """Sends until `finish` was called and nothing is left."""
        failures = 0
        while True:
            with self._changed:
                while not (batch := self._due()) and not self._finishing:
                    self._changed.wait(self._patience())
                if not batch and self._finishing:
                    return
            if self._send(batch):
                failures = 0
                continue
            with self._changed:
                for token, lines in batch.items():
                    self._buffers[token].put_back(lines)
                if self._finishing and failures >= 1:
                    return
                self._changed.wait(_BACKOFF[min(failures, len(_BACKOFF) - 1)])
            failures += 1

    def finish(self) -> None:
        """Lets `run` send what is there and end. With the web server away it gives up after a second try."""
        with self._changed:
            self._finishing = True
            self._changed.notify()

    def _add(self, buffer: _Buffer, line: LogLine) -> None:
        size = _size(line)
        if buffer.total > self._limit:
            return
        if buffer.size + size > _BUFFER:
            buffer.missing += 1
            return
        if buffer.missing:
            self._note(buffer, f"{buffer.missing} lines are missing here: the web server did not take them in time.")
            buffer.missing = 0
        buffer.total += size
        if buffer.total > self._limit:
            self._note(buffer, f"The log is cut off here: it has reached its limit of {self._limit:,} bytes.")
            return
        buffer.lines.append(line)
        buffer.size += size

    def _note(self, buffer: _Buffer, text: str) -> None:
        line = note(text, datetime.now(UTC))
        buffer.lines.append(line)
        buffer.size += _size(line)

    def _due(self) -> dict[str, list[LogLine]]:
        """What to send now. Takes it out of the buffers."""
        now = ticks()
        batch: dict[str, list[LogLine]] = {}
        room = _REQUEST
        for token, buffer in list(self._buffers.items()):
            if buffer.closed and not buffer.lines:
                del self._buffers[token]
            elif buffer.lines and room > 0 and (self._finishing or now >= _due_at(buffer)):
                lines = batch[token] = buffer.take(min(room, BATCH * 2))
                room -= sum(map(_size, lines))
                buffer.since = now - DELAY  # the rest of a full buffer goes at once
        return batch

    def _patience(self) -> float | None:
        """How long to wait for the next line to become due; None: until something changes."""
        waits = [_due_at(buffer) for buffer in self._buffers.values() if buffer.lines]
        return max(0.0, min(waits) - ticks()) if waits else None

    def _send(self, batch: dict[str, list[LogLine]]) -> bool:
        try:
            self._client.logs(list(batch.items()))
        except Unreachable as error:
            _log.debug("logs wait: %s", error)
            return False
        except (Rejected, Refused) as error:
            _log.warning("%d lines of task logs were not taken: %s", sum(map(len, batch.values())), error)
        return True


def note(text: str, at: datetime, level: str = "WARNING") -> LogLine:
    """A line that the worker adds to a task's log."""
    return LogLine(at.isoformat(timespec="microseconds"), "log", text, level)


def _due_at(buffer: _Buffer) -> float:
    if buffer.size >= BATCH:
        return buffer.since
    return buffer.since + (DELAY / 5 if buffer.closed else DELAY)


def _size(line: LogLine) -> int:
    return len(line.text) + _OVERHEAD

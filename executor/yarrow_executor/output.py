"""How a task's output travels from a pool child to the minder: two pipes a slot, with frames of ours in between.

Everything that the task and its subprocesses print goes into the pipes as it is. A frame is a line of its own that
begins with a record separator and a key that is new at every start of the worker, so no output can be taken for a frame
by accident. Frames say which attempt the bytes after them belong to, and carry log records with their level.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

STDOUT, STDERR = 1, 2
STREAMS = {STDOUT: "stdout", STDERR: "stderr"}

PIPE_SIZE = 1 << 20
"""What a child may print before it has to wait for the minder, where the system grants it. Bytes."""

LINE_LIMIT = 64 * 1024
"""A longer line is cut into pieces. Bytes."""

_SEPARATOR = b"\x1e"
_PART = 3500  # bytes of a frame's payload: what is written at once to a pipe below 4 KiB is never interleaved

Kind = Literal["begin", "end", "log", "spooled"]


@dataclass(frozen=True, slots=True)
class Pipe:
    """One stream of one slot."""

    slot: int
    stream: int  # STDOUT or STDERR
    reader: int
    writer: int


@dataclass(frozen=True, slots=True)
class Pipes:
    """All pipes of a worker, made before anything forks."""

    key: bytes
    pipes: Sequence[Pipe]

    @classmethod
    def make(cls, slots: int) -> Pipes:
        """Two pipes for each slot."""
        pipes = []
        for slot in range(slots):
            for stream in (STDOUT, STDERR):
                reader, writer = os.pipe()
                os.set_blocking(reader, False)
                _enlarge(writer)
                pipes.append(Pipe(slot, stream, reader, writer))
        return cls(secrets.token_hex(8).encode(), pipes)

    def of(self, slot: int) -> tuple[Pipe, Pipe]:
        """The stdout and the stderr of a slot."""
        return self.pipes[2 * slot], self.pipes[2 * slot + 1]

    def close_readers(self) -> None:
        """In every process but the minder."""
        for pipe in self.pipes:
            os.close(pipe.reader)

    def close_writers(self, *, but: int | None = None) -> None:
        """In the minder; in a pool child those of the other slots."""
        for pipe in self.pipes:
            if pipe.slot != but:
                os.close(pipe.writer)


def _enlarge(descriptor: int) -> None:
    if set_size := getattr(fcntl, "F_SETPIPE_SZ", None):
        try:
            fcntl.fcntl(descriptor, set_size, PIPE_SIZE)
        except OSError:  # the user's share of pipe memory is used up: the usual size will do
            return


class FrameWriter:
    """Writes frames into one pipe. Threads may share it."""

    def __init__(self, descriptor: int, key: bytes) -> None:
        self._descriptor = descriptor
        self._prefix = _SEPARATOR + key
        self._lock = threading.Lock()

    def write(self, kind: Kind, payload: Mapping[str, Any]) -> None:
        """Writes one frame. A closed pipe (the minder is gone, and so will be this process) is not an error."""
        data = json.dumps({"kind": kind, **payload}, separators=(",", ":")).encode()
        with self._lock:
            while data:
                part, data = data[:_PART], data[_PART:]
                more = b"+" if data else b"."
                if not _write_all(self._descriptor, b"%b%b%b\n" % (self._prefix, more, part)):
                    return


def _write_all(descriptor: int, data: bytes) -> bool:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BrokenPipeError:
            return False
    return True


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that was read."""

    kind: str
    payload: Mapping[str, Any]


class Splitter:
    """Takes the bytes of one pipe apart into frames and lines of text (without their line ends)."""

    def __init__(self, key: bytes) -> None:
        self._mark = _SEPARATOR + key
        self._rest = b""
        self._frame = b""

    def feed(self, data: bytes) -> Iterator[Frame | bytes]:
        """What the bytes complete, in order."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = b""  # a frame among the lines may have its reader flush: what comes after it is not meant
        for line in lines:
            yield from self._line(line)
        self._rest = rest
        while len(self._rest) > LINE_LIMIT:
            at = self._rest.find(_SEPARATOR)
            if at == 0 and self._rest.startswith(self._mark):
                return  # a frame that is not complete yet: these have a small size
            cut = min(LINE_LIMIT, at) if at > 0 else LINE_LIMIT
            piece, self._rest = self._rest[:cut], self._rest[cut:]
            yield piece

    def flush(self) -> Iterator[bytes]:
        """A last line without its end, when its writer is gone."""
        rest, self._rest, self._frame = self._rest, b"", b""
        if rest and not rest.startswith(self._mark):
            yield rest

    def _line(self, line: bytes) -> Iterator[Frame | bytes]:
        at = line.find(self._mark) if _SEPARATOR in line else -1
        text = line if at < 0 else line[:at]
        if at != 0:  # no frame, or one after an unfinished line
            yield text
        if at < 0:
            return
        more, part = line[at + len(self._mark) :][:1], line[at + len(self._mark) + 1 :]
        self._frame += part
        if more == b"+":
            return
        frame, self._frame = self._frame, b""
        try:
            payload = json.loads(frame)
            yield Frame(payload.pop("kind"), payload)
        except (ValueError, KeyError, AttributeError):  # torn: its writer was killed in the middle
            return


def readable(line: bytes) -> str:
    """A line as text: what is not UTF-8 is replaced, and of a line that draws itself anew the last state stays."""
    text = line.decode("utf-8", errors="replace").rstrip("\r")
    if "\r" in text:
        text = next((part for part in reversed(text.split("\r")) if part), "")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")

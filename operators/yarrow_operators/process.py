"""A process and all that it starts, which end together with the task."""

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""

MAX_LINE = 64 * 1024
"""Characters; a longer line is cut into several."""

_POLL = 0.2  # seconds between looks at whether the task is to stop
_CHUNK = 64 * 1024  # bytes


class ProcessTree:
    """A program in a session of its own, so that a signal reaches it and all that it started.

    However the task ends, nothing of the tree stays: `with` kills what is left of it, and should this very process be
    killed, a guard does it. The guard is a shell that waits at a pipe which only this process holds open. (A signal
    on the parent's death, which Linux can send, would reach the program alone and not its children.)
    """

    def __init__(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str]) -> None:
        """Starts it. Raises OSError when it can't be started."""
        self._process = subprocess.Popen(  # noqa: S603 - a command that the DAG's author wrote is what is asked for
            list(argv),
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            self._guard = subprocess.Popen(  # noqa: S603 - a constant but for the number
                ["/bin/sh", "-c", f"read -r line || kill -s KILL -- -{self.pid}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            self._kill(signal.SIGKILL)
            self._process.wait()
            raise

    @property
    def pid(self) -> int:
        """Of the program, and of its process group."""
        return self._process.pid

    @property
    def returncode(self) -> int:
        """Once `lines` is exhausted: the exit code, or the negative number of the signal that ended it."""
        assert self._process.returncode is not None
        return self._process.returncode

    def lines(self, check: Callable[[], None]) -> Iterator[tuple[str, str]]:
        """Yields (stream, line) as they are printed until the program has ended.

        Calls `check` several times a second, which may raise to stop. What the program left running in the background
        is killed when the program has ended.
        """
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        with selectors.DefaultSelector() as selector:
            for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ, _LineSplitter(name))
            ended = False
            while selector.get_map():
                check()
                ready = selector.select(0 if ended else _POLL)
                for key, _ in ready:
                    yield from self._read(selector, key)
                if ended and not ready:  # all that was printed has been read; a runaway child may hold the pipe
                    break
                ended = ended or self._ended()
            for key in list(selector.get_map().values()):
                yield from key.data.rest()
        pause = 0.001
        while not self._ended():  # it closed its output and goes on
            check()
            time.sleep(pause)
            pause = min(2 * pause, _POLL)

    def _read(self, selector: selectors.BaseSelector, key: selectors.SelectorKey) -> Iterator[tuple[str, str]]:
        try:
            data = os.read(key.fd, _CHUNK)
        except BlockingIOError:
            return
        if data:
            yield from key.data.feed(data)
        else:
            selector.unregister(key.fileobj)
            yield from key.data.rest()

    def _ended(self) -> bool:
        """Whether the program has ended; its children are killed before its number can be given to another process."""
        if self._process.returncode is not None:
            return True
        if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return False
        self._kill(signal.SIGKILL)
        self._process.wait()
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stop()
        finally:
            self._dismiss_guard()
            for pipe in (self._process.stdout, self._process.stderr):
                assert pipe is not None
                pipe.close()

    def _stop(self) -> None:
        if self._ended():
            return
        self._kill(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            self._drain()  # a full pipe would keep it from ending
            if self._ended():
                return
            time.sleep(0.02)
        self._kill(signal.SIGKILL)
        self._process.wait()

    def _drain(self) -> None:
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            with contextlib.suppress(BlockingIOError):
                while os.read(pipe.fileno(), _CHUNK):
                    pass

    def _kill(self, number: signal.Signals) -> None:
        # Nothing may be left of it; macOS answers EPERM for a group of zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _dismiss_guard(self) -> None:
        pipe: IO[bytes] | None = self._guard.stdin
        assert pipe is not None
        with contextlib.suppress(BrokenPipeError):  # somebody killed the guard
            pipe.write(b"done\n")
            pipe.close()
        self._guard.wait()


class _LineSplitter:
    """Bytes in, lines out. What is not UTF-8 is shown as `\\xff`; carriage returns of progress bars end a line."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._pending = ""

    def feed(self, data: bytes) -> Iterator[tuple[str, str]]:
        text = self._pending + self._decoder.decode(data).replace("\r\n", "\n").replace("\r", "\n")
        *lines, self._pending = text.split("\n")
        for line in lines:
            yield from self._cut(line)
        while len(self._pending) > MAX_LINE:
            yield self._stream, self._pending[:MAX_LINE]
            self._pending = self._pending[MAX_LINE:]

    def rest(self) -> Iterator[tuple[str, str]]:
        text = self._pending + self._decoder.decode(b"", final=True)
        self._pending = ""
        if text:
            yield from self._cut(text)

    def _cut(self, line: str) -> Iterator[tuple[str, str]]:
        for start in range(0, max(len(line), 1), MAX_LINE):
            yield self._stream, line[start : start + MAX_LINE]

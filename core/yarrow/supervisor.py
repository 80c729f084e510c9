"""The supervisor: runs a fixed set of programs, restarts what dies, forwards what they print and stops them in order.

One thread and one `select`: it wakes for output, for a signal, for a child's death and for a restart that is due, and
otherwise sleeps. It imports next to nothing, because it stays in memory for as long as the deployment runs.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType

from yarrow.processes import die_with_parent

RESTART_SECONDS = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
"""How long to wait before the first, second, ... restart in a row."""
STEADY_SECONDS = 60.0
"""A program that ran for so long starts again from the first restart when it dies."""
TAIL_LINES = 20
LONGEST_LINE = 64 * 1024
USAGE_ERROR = 2
"""The exit code of a program that can't work with what it was given: to start it again would change nothing."""

Say = Callable[[str, str], None]
"""Prints a line of a program: (its name, the text)."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program of the deployment."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    stop_rank: int
    """The lower ones are stopped first; the next rank waits until they are gone."""
    grace: float = 10.0
    """Seconds between the request to stop and the kill."""
    mend: Callable[[], str | None] | None = None
    """Called when it has ended with an error, before it starts again; returns what it has done about it."""


@dataclass(slots=True)
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float | None = None
    deaths: int = 0
    rest: bytes = b""
    tail: list[str] = field(default_factory=list)


class ProgramFailed(Exception):
    """A program can't be kept running; the message says which and why, and ends with what it printed last."""


class Supervisor:
    """Keeps programs running until a signal asks for the end.

    Args:
        programs: In the order they start.
        say: Prints what they say.
        fragile_until_ready: Before `ready` was true once, this many deaths of one program end everything.
    """

    def __init__(self, programs: Sequence[Program], say: Say, *, fragile_until_ready: int = 3) -> None:
        self._children = {program.name: _Child(program) for program in programs}
        self._say = say
        self._fragile = fragile_until_ready
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._asked_to_stop = 0
        self._ready = False

    def run(self, *, ready: Callable[[], bool], on_ready: Callable[[], None], every: float = 0.05) -> None:
        """Starts everything and returns when a signal has ended it.

        Args:
            ready: Asked `every` so many seconds until it is true, and never again.
            on_ready: Called once, then.

        Raises:
            ProgramFailed: A program can't work at all. Everything has been stopped.
        """
        with self._signals():
            try:
                for child in self._children.values():
                    self._start(child)
                while not self._asked_to_stop:
                    self._wait(every)
                    self._look_after_children()
                    if not self._ready and ready():
                        self._ready = True
                        on_ready()
            finally:
                self._stop()

    def _stop(self) -> None:
        """Stops what runs, rank by rank: a polite signal, then the kill when the grace is over or at a second one."""
        running = [child for child in self._children.values() if child.process]
        self._say("yarrow", "stopping" if self._asked_to_stop > 1 else "stopping; a second signal does not wait")
        for rank in sorted({child.program.stop_rank for child in running}):
            members = [child for child in running if child.program.stop_rank == rank]
            for child in members:
                _signal(child, signal.SIGTERM)
            deadline = time.monotonic() + max(child.program.grace for child in members)
            asked = self._asked_to_stop
            while any(_alive(child) for child in members):
                if time.monotonic() > deadline or self._asked_to_stop > max(asked, 1):
                    break
                self._read_output(0.05)
            for child in members:
                if _alive(child):
                    self._say("yarrow", f"{child.program.name} did not stop in time and is killed")
                _signal_group(child, signal.SIGKILL)  # also what it may have left behind
                if child.process:
                    child.process.wait()
        self._read_output(0)
        for child in running:
            self._forget(child)

    # Starting, and what comes of it.

    def _start(self, child: _Child) -> None:
        program = child.program
        child.process = subprocess.Popen(  # noqa: S603 - our own commands
            program.command,
            env=dict(program.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,  # a signal to the deployment's group reaches the supervisor alone, which knows the order
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - this process has one thread
        )
        child.started_at, child.restart_at = time.monotonic(), None
        child.tail.clear()
        assert child.process.stdout is not None
        os.set_blocking(child.process.stdout.fileno(), False)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)

    def _look_after_children(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            if child.process is not None and child.process.poll() is not None:
                self._bury(child, now)
            if child.restart_at is not None and now >= child.restart_at and not self._asked_to_stop:
                self._start(child)

    def _bury(self, child: _Child, now: float) -> None:
        assert child.process is not None
        code, name = child.process.returncode, child.program.name
        self._read_output(0)
        _signal_group(child, signal.SIGKILL)  # it may have left children of its own, which hold ports and files
        self._forget(child)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        steady = now - child.started_at >= STEADY_SECONDS
        child.deaths = 1 if steady else child.deaths + 1
        if not self._ready and (code == USAGE_ERROR or child.deaths >= self._fragile):
            raise ProgramFailed("\n".join([f"The {name} {how}.", *child.tail]).rstrip())
        if code > 0 and child.program.mend and (mended := child.program.mend()):
            self._say("yarrow", mended)
        delay = RESTART_SECONDS[min(child.deaths, len(RESTART_SECONDS)) - 1]
        child.restart_at = now + delay
        self._say("yarrow", f"{name} {how}; it starts again in {delay:g} s")

    def _forget(self, child: _Child) -> None:
        if child.rest:
            self._print(child, [child.rest])
        if child.process and child.process.stdout:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(child.process.stdout)
            child.process.stdout.close()
        child.process, child.rest = None, b""

    # Waiting and reading.

    def _wait(self, every: float) -> None:
        """Sleeps until there is something to do."""
        due = [child.restart_at for child in self._children.values() if child.restart_at is not None]
        timeout = None if self._ready else every
        if due:
            until_restart = max(0.0, min(due) - time.monotonic())
            timeout = until_restart if timeout is None else min(timeout, until_restart)
        self._read_output(timeout)

    def _read_output(self, timeout: float | None) -> None:
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(4096)
            else:
                self._forward(key.data)

    def _forward(self, child: _Child) -> None:
        if child.process is None or child.process.stdout is None:
            return
        try:
            data = os.read(child.process.stdout.fileno(), 65536)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(child.process.stdout)  # closed; its death is told by the signal
        *lines, child.rest = (child.rest + data).split(b"\n")
        if len(child.rest) > LONGEST_LINE:
            lines, child.rest = [*lines, child.rest], b""
        self._print(child, lines)

    def _print(self, child: _Child, lines: Sequence[bytes]) -> None:
        for line in lines:
            text = line.decode(errors="replace").rstrip()
            child.tail = [*child.tail[-TAIL_LINES + 1 :], text]
            self._say(child.program.name, text)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM, SIGINT and SIGHUP ask for the end; SIGCHLD wakes the loop."""

        def ask_to_stop(_number: int, _frame: FrameType | None) -> None:
            self._asked_to_stop += 1

        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        handlers = dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), ask_to_stop)
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        fd_before = signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._selector.close()
            self._wake_read.close()
            self._wake_write.close()


def _alive(child: _Child) -> bool:
    return child.process is not None and child.process.poll() is None


def _signal(child: _Child, number: signal.Signals) -> None:
    if child.process and child.process.poll() is None:
        child.process.send_signal(number)


def _signal_group(child: _Child, number: signal.Signals) -> None:
    if child.process:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, number)

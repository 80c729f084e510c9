"""A pool child: the process that executes the attempts of one slot, and keeps each of them to itself."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import FrameType
from typing import NoReturn

from yarrow.protocol import Assignment
from yarrow_executor import leftovers
from yarrow_executor.output import STDERR, STDOUT, FrameWriter, Pipes
from yarrow_executor.slots import Slot, SlotTable, Stop
from yarrow_executor.user_code import UserCode

EXIT_STOPPED = 73  # of a child that was stopped in the middle of a task

_LIBRARY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


class Stopped(BaseException):
    """The attempt has to end now. Raised in the task's code by SIGTERM, so that its `finally` blocks run."""


class Child:
    """The surroundings of the attempts of one slot. Made after the fork, in the pool child."""

    def __init__(
        self, table: SlotTable, number: int, pipes: Pipes, *, cpus: int, level: str, python_path: Sequence[str] = ()
    ) -> None:
        """Args:
        cpus: How many threads libraries may use.
        level: From which level on log records are taken; INFO at least.
        python_path: Where users' modules are.
        """
        self.slot: Slot = table.slots[number]
        self.pid = os.getpid()
        self._out, self._err = (pipe.writer for pipe in pipes.of(number))
        self._frames = FrameWriter(self._out, pipes.key), FrameWriter(self._err, pipes.key)
        self._interruptible = False
        # Its own group, so that all that a task starts can be killed with it; and a signal for the main process alone
        # never reaches a task.
        os.setpgid(0, 0)
        leftovers.adopt_orphans()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pipes.close_writers(but=number)
        self._attach_output()
        self._attach_log(level)
        for name in _LIBRARY_THREADS:
            os.environ.setdefault(name, str(cpus))
        self._home = os.getcwd()
        self._environment = dict(os.environ)
        self._user_code = UserCode(python_path)
        self.slot.occupy(self.pid)

    def begin(self, assignment: Assignment, claimed: float) -> None:
        """What is printed from now on belongs to this attempt, and the minder may stop it. `claimed` is a tick."""
        self._user_code.refresh()
        self._attach_output()
        frame = {
            "attempt_id": assignment.attempt_id,
            "token": assignment.token,
            "connections": assignment.connections,
            "variables": assignment.variables,
        }
        os.environ[leftovers.ATTEMPT_VARIABLE] = assignment.attempt_id
        signal.signal(signal.SIGTERM, self._on_sigterm)
        self.slot.run(
            self.pid,
            assignment.attempt_id,
            assignment.token,
            started=time.time(),
            timeout=assignment.execution_timeout or 0.0,
            lease=assignment.lease,
            claimed=claimed,
        )
        for frames in self._frames:
            frames.write("begin", frame)
        self._interruptible = True

    def end(self) -> None:
        """The task's code has ended. Does not return when the minder is stopping the attempt and will report it."""
        self._interruptible = False
        self.slot.report()
        while (stop := self.slot.stop) == Stop.ASKED:
            time.sleep(0.001)
        self._flush()
        if stop == Stop.SURE:
            self._leave()
        for pid in leftovers.end_children():
            logging.getLogger("yarrow.task").warning("ended process %d, which the task had left running", pid)
        self._restore()

    def rest(self) -> None:
        """Nothing more to execute for now."""
        for frames in self._frames:
            frames.write("end", {})
        self.slot.resume()

    def spooled(self) -> None:
        """Tells the minder that there is a report to deliver."""
        self._frames[0].write("spooled", {})

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        # One that the minder did not send is not meant for the task: some process managers signal every process.
        if self._interruptible and self.slot.stop == Stop.SURE:
            self._interruptible = False
            raise Stopped

    def _leave(self) -> NoReturn:
        # Once this process is gone, nobody could tell which orphans were its own. The minder has been polite already.
        leftovers.kill_all(leftovers.descendants(self.pid))
        os._exit(EXIT_STOPPED)

    def _attach_output(self) -> None:
        """Points stdout and stderr at the pipes, whatever the last task did to them."""
        os.dup2(self._out, STDOUT)
        os.dup2(self._err, STDERR)
        if sys.stdout is None or sys.stdout is not getattr(self, "_stdout", None):
            self._stdout = sys.stdout = _text_stream(STDOUT)
        if sys.stderr is None or sys.stderr is not getattr(self, "_stderr", None):
            self._stderr = sys.stderr = _text_stream(STDERR)

    def _attach_log(self, level: str) -> None:
        root = logging.getLogger()
        root.handlers[:] = [_FrameHandler(self._frames[0])]
        root.setLevel(min(logging.getLevelNamesMapping()[level], logging.INFO))
        self._handlers = list(root.handlers)

    def _flush(self) -> None:
        for stream in {sys.stdout, sys.stderr, self._stdout, self._stderr}:
            with contextlib.suppress(OSError, ValueError, AttributeError):  # the task may have closed or replaced it
                stream.flush()

    def _restore(self) -> None:
        """Takes back what a task may have changed for the next one."""
        self._user_code.note()
        with contextlib.suppress(OSError):
            os.chdir(self._home)
        logging.getLogger().handlers[:] = self._handlers
        if os.environ != self._environment:
            _set_environment(self._environment)


class _FrameHandler(logging.Handler):
    """Sends log records to the minder, with their level."""

    def __init__(self, frames: FrameWriter) -> None:
        super().__init__()
        self._frames = frames
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
            self._frames.write("log", {"at": at, "level": record.levelname, "text": self.format(record)})
        except Exception:  # noqa: BLE001 - a record that can't be formatted must not fail the task
            self.handleError(record)


def _text_stream(descriptor: int) -> io.TextIOWrapper:
    raw = open(descriptor, "wb", buffering=io.DEFAULT_BUFFER_SIZE, closefd=False)  # noqa: SIM115 - lives as long as the process
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _set_environment(wanted: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(wanted):
        del os.environ[name]
    for name, value in wanted.items():
        if os.environ.get(name) != value:
            os.environ[name] = value

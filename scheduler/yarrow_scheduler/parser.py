"""Has DAG files proved in child processes, so that no file can stall, break or bloat the scheduler."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

from yarrow.config import Config
from yarrow.errors import YarrowError
from yarrow_scheduler.parsed import Parsed, Request, broken

_MANY = 40  # files that are worth the start of a second process
_GROUP = 20  # files handed to a process at a time
_TRIES = 2  # a process may be killed for no fault of the file, by a machine that is short of memory


class ParserUnavailable(YarrowError):
    """The process that parses DAG files can't be started."""


class ParserClosed(YarrowError):
    """The parser was closed in the middle of its work."""


class Parser:
    """Child processes that prove files. They are started when there is something to parse, and stay until `rest`."""

    def __init__(self, config: Config, *, processes: int | None = None) -> None:
        self._config = config
        self._processes = processes or min(2, os.cpu_count() or 1)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        self._closed = threading.Event()

    def parse(self, paths: Sequence[str]) -> Iterator[Parsed]:
        """Proves files, and yields the outcomes in the order of the paths.

        Raises:
            ParserUnavailable: No process could be started.
            ParserClosed: It was closed meanwhile.
        """
        groups = [paths[start : start + _GROUP] for start in range(0, len(paths), _GROUP)]
        lanes = self._processes if len(paths) >= _MANY else 1
        if lanes == 1:
            for group in groups:
                yield from self._parse_group(group)
            return
        with ThreadPoolExecutor(lanes, thread_name_prefix="yarrow-parser") as pool:
            try:
                for outcomes in pool.map(self._parse_group, groups):
                    yield from outcomes
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def rest(self) -> None:
        """Ends the processes until there is something to parse again: an idle scheduler has none."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.end()

    def close(self) -> None:
        """Ends everything at once; a `parse` that is under way comes to an end."""
        with self._lock:
            self._closed.set()
            busy = list(self._busy)
        for child in busy:
            child.kill()  # whoever waits for its answer sees that it has ended
        self.rest()

    def _parse_group(self, paths: Sequence[str]) -> list[Parsed]:
        outcomes: list[Parsed] = []
        deaths = 0
        while len(outcomes) < len(paths):
            child = self._take()
            before = len(outcomes)
            try:
                child.parse(self._request(paths[before:]), outcomes)
                self._give_back(child)
            except (EOFError, OSError):
                code = self._bury(child)
                if self._closed.is_set():
                    raise ParserClosed from None
                deaths = deaths + 1 if len(outcomes) == before else 1
                if deaths >= _TRIES or code == -signal.SIGALRM:
                    outcomes.append(_crash(paths[len(outcomes)], code))
                    deaths = 0
        return outcomes

    def _request(self, paths: Sequence[str]) -> Request:
        config = self._config
        return Request(config.dags_folder, tuple(paths), tuple(config.queues), dict(config.pools))

    def _take(self) -> _Child:
        with self._lock:
            if self._closed.is_set():
                raise ParserClosed
            child = self._idle.pop() if self._idle else _Child()
            self._busy.add(child)
        try:
            child.wait_until_ready()
        except (EOFError, OSError) as error:
            code = self._bury(child)
            if self._closed.is_set():
                raise ParserClosed from error
            message = f"The process that parses DAG files ended at once with exit code {code}."
            raise ParserUnavailable(message) from error
        return child

    def _give_back(self, child: _Child) -> None:
        with self._lock:
            self._busy.discard(child)
            if not self._closed.is_set():
                self._idle.append(child)
                return
        child.end()

    def _bury(self, child: _Child) -> int:
        with self._lock:
            self._busy.discard(child)
        return child.bury()


class _Child:
    """One process of `yarrow_scheduler.parse`."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", "yarrow_scheduler.parse", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.__stderr__,  # what an operator's module prints when it is imported
                env={**os.environ, "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in sys.path if path)},
            )
        self._connection = Connection(ours.detach())
        self._ready = False

    def wait_until_ready(self) -> None:
        """Raises EOFError when the process has ended instead."""
        if not self._ready:
            self._connection.recv()
            self._ready = True

    def parse(self, request: Request, outcomes: list[Parsed]) -> None:
        """Appends the outcomes as they come. Raises EOFError or OSError when the process dies on the next one."""
        self._connection.send(request)
        for _ in request.paths:
            outcomes.append(self._connection.recv())

    def end(self) -> None:
        """Ends an idle process."""
        self._connection.close()
        self.bury()

    def kill(self) -> None:
        """Ends a busy process."""
        self._process.kill()

    def bury(self) -> int:
        """Gives everything back once the process is ending. Returns the exit code; -N for signal N."""
        self._connection.close()
        try:
            return self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _crash(path: str, code: int) -> Parsed:
    if code == -signal.SIGALRM:
        return broken(path, "Yarrow's parser did not come to an end on this file.", "Make it smaller.")
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return broken(path, f"Yarrow's parser died on this file with {how}.", "Please report it; the file is not run.")

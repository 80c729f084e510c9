"""The child process that proves DAG files: whatever a file does to the parser, it does it here and not to the loop."""

from __future__ import annotations

import contextlib
import gc
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

from yarrow.language.deployment import Known
from yarrow.language.loader import load_file
from yarrow_scheduler.parsed import Parsed, Request, broken

FILE_SECONDS = 10
"""How long one file may take."""
MEMORY_BYTES = 2 * 1024**3
"""How much address space the process may take, installed operators included."""

Guard: TypeAlias = Callable[[int], object]
"""Ends the process unless it is called again within so many seconds; 0 calls that off."""


def parse(root: Path, path: str, known: Known) -> Parsed:
    """Proves one file. Never raises."""
    try:
        result = load_file(root / path, root, known=known)
        if result.spec is not None:
            _ = result.spec.version  # computed here, so that the scheduler need not
        prefix = f"{root}/"
        faults = tuple(replace(fault, file=fault.file.removeprefix(prefix)) for fault in result.faults)
        return Parsed(path, result.spec, faults, result.source, result.included, result.dag_id_place)
    except Exception as error:  # noqa: BLE001 - a fault of the parser is a fault of this file alone
        return broken(path, f"Yarrow's parser failed on this file with {type(error).__name__}: {error}")


def serve(connection: Connection, guard: Guard) -> None:
    """Answers every request with one Parsed for each of its paths, until the other end is closed."""
    connection.send("ready")
    while True:
        try:
            request: Request = connection.recv()
        except EOFError:
            return
        known = Known(request.queues, request.pools)
        for path in request.paths:
            guard(FILE_SECONDS)
            parsed = parse(request.root, path, known)
            guard(0)
            connection.send(parsed)


def main() -> None:
    """Serves on the socket that the parent has handed down as the file descriptor in the first argument."""
    # The parent decides when this process ends: a signal to the whole process group must not look like a bad file.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with contextlib.suppress(ValueError, OSError):
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MEMORY_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    gc.disable()  # a short life of building trees, most of which are kept until they are sent
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(Connection(int(sys.argv[1])), signal.alarm)


if __name__ == "__main__":
    main()

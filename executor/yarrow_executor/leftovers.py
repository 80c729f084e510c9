"""Ends processes that a task has started: none may go on when its task is over.

A pool child leads a process group of its own, so most of them die with the group. Those that made a session of their
own are found as descendants (the pool child adopts orphans) or by the attempt's id in their environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable

ATTEMPT_VARIABLE = "YARROW_ATTEMPT_ID"
"""Set in the environment of a task. Tasks may read it; it also marks their processes."""

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE = 0.5  # seconds between asking a leftover process to end and ending it
_LONGEST_WAIT = 5.0  # seconds; a process that hangs in the kernel must not hold a slot


def adopt_orphans() -> None:
    """Makes this process the parent of every descendant whose own parent ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def signal_group(leader: int, number: signal.Signals) -> None:
    """Sends a signal to a process group, if it is there."""
    if leader > 1:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader, number)


def kill_all(pids: Iterable[int]) -> None:
    """Kills these processes, if they are there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """All processes below one, as far as the system tells (Linux)."""
    children: dict[int, list[int]] = {}
    for process in _processes():
        children.setdefault(_parent(process), []).append(process)
    found: list[int] = []
    wanted = [pid]
    while wanted:
        below = children.get(wanted.pop(), [])
        found += below
        wanted += below
    return found


def marked(attempt_id: str) -> list[int]:
    """The processes that were started by an attempt, by their environment (Linux)."""
    mark = f"{ATTEMPT_VARIABLE}={attempt_id}".encode()
    found = []
    for process in _processes():
        with contextlib.suppress(OSError), open(f"/proc/{process}/environ", "rb") as file:
            if mark in file.read().split(b"\0"):
                found.append(process)
    return [process for process in found if process != os.getpid()]


def end_children() -> list[int]:
    """Ends what is still below this process, politely at first, and returns the pids of those that were there.

    Costs one system call when there is nothing.
    """
    if not _has_children():
        return []
    _reap()
    found = _below()
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    began = time.monotonic()
    while (left := _below()) and time.monotonic() < began + _LONGEST_WAIT:
        if time.monotonic() > began + _PATIENCE:
            kill_all(left)
        _reap()
        time.sleep(0.005)
    return found


def _below() -> list[int]:
    """The descendants of this process, without the one that Python's multiprocessing keeps for its own use."""
    return [pid for pid in descendants(os.getpid()) if b"multiprocessing.resource_tracker" not in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except FileNotFoundError:
        return []


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # pid (name) state ppid ...: the name may contain anything
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0

"""Child processes that end with their parent, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1


def die_with_parent(deadly: signal.Signals = signal.SIGKILL) -> Callable[[], None] | None:
    """A `preexec_fn` by which the kernel sends the child a signal as soon as its parent is gone.

    Linux alone can do that; elsewhere it is None, and a child outlives a parent that was killed.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork: the child does next to nothing
    parent = os.getpid()

    def set_death_signal() -> None:
        prctl(_PR_SET_PDEATHSIG, int(deadly), 0, 0, 0)
        if os.getppid() != parent:  # it was gone before the call
            os.kill(os.getpid(), deadly)

    return set_death_signal

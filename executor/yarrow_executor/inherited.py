"""What a pool child inherits and must not keep: the connections of the worker's main process."""

from __future__ import annotations

import contextlib
import os
import stat

_OPEN_FILES = "/dev/fd"
_STANDARD_ERROR = 2


def let_go_of_sockets() -> None:
    """Ends this process's hold on every socket that it was forked with.

    A task's code has no business with the broker. And as long as any process has a socket open, its main process hears
    of it: of one that it has lost and closed long ago for ever, which keeps a whole processor busy.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in map(int, os.listdir(_OPEN_FILES)):
        with contextlib.suppress(OSError):  # the folder's own, which is closed by now
            if descriptor > _STANDARD_ERROR and stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                # Not closed: the number may not stand for another file when an object that has it is thrown away.
                os.dup2(nothing, descriptor, inheritable=False)
    os.close(nothing)

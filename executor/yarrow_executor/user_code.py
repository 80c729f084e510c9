"""The Python modules of users: found in `worker_python_path`, and loaded anew when their files have changed."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence


class UserCode:
    """What a pool child has loaded from the folders of `worker_python_path`."""

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = tuple(os.path.abspath(folder) + os.sep for folder in folders)
        self._files: dict[str, tuple[str, int]] = {}  # module -> file, and its time of change
        self._seen = 0
        sys.path[:0] = [folder for folder in folders if folder not in sys.path]

    def refresh(self) -> None:
        """Before an attempt: forgets all of these modules when the file of one of them has changed.

        A pool child lives for hundreds of attempts, and nobody wants to restart a worker to see an edit take effect.
        """
        if not self._folders:
            return
        importlib.invalidate_caches()
        if any(_changed(file) != changed for file, changed in self._files.values()):
            for name in self._files:
                sys.modules.pop(name, None)
            self._files.clear()

    def note(self) -> None:
        """After an attempt: remembers what it has loaded."""
        if not self._folders or len(sys.modules) == self._seen:
            return
        self._seen = len(sys.modules)
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if name not in self._files and isinstance(file, str) and file.startswith(self._folders):
                self._files[name] = (file, _changed(file))


def _changed(file: str) -> int:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return -1

"""Reports that wait for delivery, each a file: a report survives the worker, whatever happens to it.

Every worker has a folder of its own under `HOME/worker-spool`, locked while it lives. What a dead worker has left
is delivered by the next one that starts on the host.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from yarrow.errors import ConfigError
from yarrow.protocol import Report

FOLDER = "worker-spool"
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A report with what its delivery needs."""

    report: Report
    token: str
    worker_id: str

    @property
    def key(self) -> str:
        """What it is kept under: an attempt that was put off makes a report each time, with another token."""
        return f"{self.report.attempt_id}-{hashlib.sha256(self.token.encode()).hexdigest()[:12]}"


class Spool:
    """The folder of one worker."""

    def __init__(self, home: Path, worker_id: str) -> None:
        self.folder = home / FOLDER / worker_id
        self._root = home / FOLDER
        self._lock: int | None = None

    def open(self) -> None:
        """Makes the folder, and locks it as long as this process and its forks live. Raises ConfigError."""
        try:
            while self._lock is None:  # one that starts at this moment may have taken it for an abandoned one
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._lock = _try_lock(self.folder)
        except OSError as error:
            raise ConfigError(
                f"The worker can't write to {self._root}: {error.strerror}.",
                hint="Set YARROW_HOME to a folder of this user.",
            ) from error

    def put(self, envelope: Envelope) -> None:
        """Keeps a report: on disk when this returns. Raises OSError."""
        path = self.folder / f"{envelope.key}.json"
        fresh = path.with_suffix(".new")
        content = {"report": envelope.report.to_json(), "token": envelope.token, "worker_id": envelope.worker_id}
        with open(fresh, "w", encoding="utf-8", opener=_private) as file:
            json.dump(content, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)

    def remove(self, envelope: Envelope) -> None:
        """Forgets a report, if it is there."""
        (self.folder / f"{envelope.key}.json").unlink(missing_ok=True)

    def pending(self) -> list[Envelope]:
        """The reports that are kept."""
        return [envelope for path in sorted(self.folder.glob("*.json")) if (envelope := _read(path))]

    def adopt(self) -> int:
        """Moves the reports of dead workers here, and returns how many there are."""
        adopted = 0
        for folder in self._abandoned():
            for path in folder.glob("*.json"):
                path.replace(self.folder / path.name)
                adopted += 1
            shutil.rmtree(folder, ignore_errors=True)
        return adopted

    def close(self) -> None:
        """Removes the folder if nothing waits in it, and gives up its lock."""
        if not any(self.folder.glob("*.json")):
            shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _abandoned(self) -> Iterator[Path]:
        for folder in self._root.iterdir():
            if folder == self.folder or not folder.is_dir():
                continue
            lock = _try_lock(folder)
            if lock is not None:
                yield folder
                os.close(lock)


def _try_lock(folder: Path) -> int | None:
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read(path: Path) -> Envelope | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Envelope(Report.from_json(content["report"]), content["token"], content["worker_id"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not a report, or delivered at this moment
        return None

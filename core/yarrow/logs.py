"""The log store: keeps what tasks print, line by line, in files or in an object store.

A log is JSON lines. In a local folder each attempt has one file that is appended to; an object store can't append, so
there each batch is an object of its own in a folder of the attempt.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from yarrow import urls
from yarrow.protocol import LogLine

LIMIT = 64 * 1024 * 1024
"""Bytes kept of the log of one attempt. Workers stop earlier (`log_limit`); this holds against one that does not."""

_LONGEST_NAME = 180  # bytes of a file name; file systems allow 255
_INDEX_STEP = 1 << 32  # an offset into a log of several objects is the object's number times this, plus bytes
_LINGER = 1.5  # seconds that the last lines of a finished task may need to arrive

_log = logging.getLogger(__name__)


class _Files(Protocol):
    """Where the bytes lie."""

    def append(self, path: str, data: bytes, limit: int) -> bool:
        """Adds bytes, whole or not at all. Returns whether the log has reached its limit. Raises OSError."""

    def read(self, path: str, offset: int, size: int) -> tuple[bytes, int]:
        """Whole lines from an offset on, about `size` bytes of them, and the offset after them."""

    def remove(self, folder: str) -> None:
        """Removes all logs below a folder, if there are any. Raises OSError."""

    def size(self, folder: str) -> int | None:
        """The bytes of all logs below a folder; None where counting them is slow."""


class LogStore:
    """The logs of all attempts. Threads and processes may share one place."""

    def __init__(self, logs_url: str, *, limit: int = LIMIT) -> None:
        """Args:
        logs_url: A folder as an fsspec URL or a path.
        limit: Bytes kept of the log of one attempt.
        """
        folder = urls.local_path(logs_url)
        self._files: _Files = _LocalFiles(folder) if folder is not None else _Objects(logs_url)
        self._limit = limit
        self._missing: dict[str, int] = {}
        self._cut: set[str] = set()
        self._lock = threading.Lock()

    def append(
        self, dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int, lines: Sequence[LogLine]
    ) -> None:
        """Adds lines to the log of an attempt.

        Never raises because of the place they go to: what could not be written is counted, and the log says how much
        is missing as soon as it can be written to again.
        """
        path = log_path(dag_id, run_id, task_id, map_index, try_number)
        with self._lock:
            missing = self._missing.get(path, 0)
            if path in self._cut:
                return
        if missing:
            lines = [_note(f"{missing} lines are missing here: the log store could not be written to."), *lines]
        data = b"".join(_encode(line) for line in lines)
        try:
            full = self._files.append(path, data, self._limit)
            if full:
                self._files.append(path, _encode(_note(f"The log is cut off here: {self._limit:,} bytes.")), 0)
        except OSError as error:
            if not missing:
                _log.error("the log %s can't be written: %s", path, error)
            with self._lock:
                self._missing[path] = missing + len(lines) - bool(missing)
            return
        with self._lock:
            self._missing.pop(path, None)
            if full:
                self._cut.add(path)

    def read(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int,
        try_number: int,
        *,
        offset: int = 0,
        limit: int = 1000,
    ) -> tuple[list[LogLine], int]:
        """Reads at most `limit` lines of a log.

        Args:
            offset: 0, or what an earlier call returned. It means something to this function alone.

        Returns:
            The lines, none when there is no (more) log, and the offset after them.
        """
        path = log_path(dag_id, run_id, task_id, map_index, try_number)
        lines: list[LogLine] = []
        while len(lines) < limit:
            data, after = self._files.read(path, offset, 256 * 1024)
            if after == offset:
                break
            offset = after - len(data)
            for raw in data.splitlines(keepends=True):
                if len(lines) == limit:
                    return lines, offset
                offset += len(raw)
                if line := _decode(raw):
                    lines.append(line)
        return lines, offset

    def follow(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int,
        try_number: int,
        *,
        finished: Callable[[], bool],
        wait: Callable[[float], None] = time.sleep,
        interval: float = 0.5,
    ) -> Iterator[LogLine]:
        """Yields the lines of a log as they come, until the attempt is finished and its last lines must have arrived.

        Args:
            finished: Whether the attempt is finished.
            wait: Waits for so many seconds.
            interval: Seconds between looks.
        """
        offset = 0
        quiet = 0.0
        while quiet < _LINGER:
            done = finished()
            lines, offset = self.read(dag_id, run_id, task_id, map_index, try_number, offset=offset)
            yield from lines
            if lines:
                quiet = 0.0
                continue
            wait(interval)
            quiet = quiet + interval if done else 0.0

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Deletes the logs of a run, if there are any.

        Raises:
            OSError: They can't be deleted. An object store may raise something else.
        """
        self._files.remove(_folder(dag_id, run_id))

    def delete_dag(self, dag_id: str) -> None:
        """Deletes the logs of all runs of a DAG, if there are any. Raises as `delete_run` does."""
        self._files.remove(_folder(dag_id))

    def size_of_run(self, dag_id: str, run_id: str) -> int | None:
        """The bytes of the logs of a run; None where counting them is slow."""
        return self._files.size(_folder(dag_id, run_id))


def log_path(dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int) -> str:
    """The relative path of a log: every name in it is safe as a file name, and different names stay different."""
    task = _safe(task_id) if map_index < 0 else f"{_safe(task_id)}/{map_index}"
    return f"{_safe(dag_id)}/{_safe(run_id)}/{task}/try-{try_number}.jsonl"


def _folder(*names: str) -> str:
    if not all(names):
        raise ValueError("a DAG or a run without a name has no logs")
    return "/".join(map(_safe, names))


def _safe(name: str) -> str:
    encoded = quote(name, safe="+").replace("~", "%7E")
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    if len(encoded) > _LONGEST_NAME:
        encoded = f"{encoded[: _LONGEST_NAME - 33].rstrip('%')}~{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return encoded


def _encode(line: LogLine) -> bytes:
    record = {"at": line.at, "stream": line.stream, "text": line.text}
    if line.level:
        record["level"] = line.level
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def _decode(raw: bytes) -> LogLine | None:
    try:
        return LogLine.from_json(json.loads(raw))
    except (ValueError, TypeError, AttributeError):  # a line that a full disk has cut off
        return None


def _note(text: str) -> LogLine:
    return LogLine(datetime.now(UTC).isoformat(timespec="microseconds"), "log", text, "WARNING")


class _LocalFiles:
    """One file a log. What is appended at once stays together, also with several processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, path: str, data: bytes, limit: int) -> bool:
        file = self._folder / path
        try:
            descriptor = self._open(file)
        except FileNotFoundError:
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = self._open(file)
        try:
            before = os.fstat(descriptor).st_size
            if limit and before >= limit:
                return True
            try:
                written = os.write(descriptor, data)
                while written < len(data):
                    written += os.write(descriptor, data[written:])
            except OSError:
                os.ftruncate(descriptor, before)  # half of it would be taken for the lines that are missing
                raise
            return bool(limit) and before + len(data) >= limit
        finally:
            os.close(descriptor)

    def read(self, path: str, offset: int, size: int) -> tuple[bytes, int]:
        try:
            with (self._folder / path).open("rb") as file:
                file.seek(offset)
                data = file.read(size)
                while data and b"\n" not in data and (more := file.read(size)):
                    data += more
        except FileNotFoundError:
            return b"", offset
        data = data[: data.rfind(b"\n") + 1]
        return data, offset + len(data)

    def remove(self, folder: str) -> None:
        path = self._folder / folder
        if not path.parent.resolve().is_relative_to(self._folder.resolve()):
            raise OSError(f"{path.parent} is a link that leads out of the log folder")
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            shutil.rmtree(path)  # which follows no link

    def size(self, folder: str) -> int | None:
        files = (Path(where, name) for where, _, names in os.walk(self._folder / folder) for name in names)
        return sum(file.lstat().st_size for file in files)

    @staticmethod
    def _open(file: Path) -> int:
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)


class _Objects:
    """A folder of objects a log, each a batch of lines, in the order of their names."""

    def __init__(self, url: str) -> None:
        self._url = url

    def append(self, path: str, data: bytes, limit: int) -> bool:
        folder = urls.join(self._url, path)
        names = urls.names(folder)
        # The size so far stands in the name, so that nobody has to add up.
        before = int(names[-1].split("-")[1]) if names else 0
        if limit and before >= limit:
            return True
        after = before + len(data)
        urls.write_bytes(urls.join(folder, f"{time.time_ns():020d}-{after}-{uuid.uuid4().hex[:8]}"), data)
        return bool(limit) and after >= limit

    def read(self, path: str, offset: int, size: int) -> tuple[bytes, int]:
        index, start = divmod(offset, _INDEX_STEP)
        folder = urls.join(self._url, path)
        names = urls.names(folder)[index:]
        for name in names:
            data = urls.read_bytes(urls.join(folder, name))[start:]
            if data:
                return data, index * _INDEX_STEP + start + len(data)
            index, start = index + 1, 0
        return b"", offset

    def remove(self, folder: str) -> None:
        filesystem, key = urls.remote(urls.join(self._url, folder))
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm(key, recursive=True)

    def size(self, folder: str) -> int | None:
        return None

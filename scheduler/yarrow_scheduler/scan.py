"""Looks through the DAG folder: which DAG files there are, without reading any of them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from yarrow.language.files import is_dag_file

_LONGEST_PATH = 1024  # what the store keeps
_TEMPORARY_PREFIXES = (".", "~", "#")
_TEMPORARY_SUFFIXES = tuple(f"{mark}{suffix}" for mark in ("~", ".tmp", ".swp", ".bak") for suffix in (".yaml", ".yml"))


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells without reading whether a file may have changed."""

    size: int
    mtime_ns: int
    inode: int  # a file that was moved into place may be as old and as large as the one before


@dataclass(frozen=True, slots=True)
class Scan:
    """What one look through the folder found."""

    files: dict[str, Stamp] = field(default_factory=dict)  # by path relative to the folder, sorted
    unreadable: dict[str, str] = field(default_factory=dict)  # relative folder -> why; "" is the DAG folder itself
    misnamed: list[str] = field(default_factory=list)  # files whose name is not UTF-8, or whose path is too long

    def hides(self, path: str) -> bool:
        """Whether the path lies where this scan could not look, so that it is not known to be gone."""
        return any(folder == "" or path.startswith(f"{folder}/") for folder in self.unreadable)


def stamp_of(path: str | Path) -> Stamp | None:
    """The stamp of a regular file; None when there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return _stamp(found) if stat.S_ISREG(found.st_mode) else None


def scan(root: Path) -> Scan:
    """Finds every `*.yaml` and `*.yml` below the folder but those of tests. Hidden and temporary names are ignored.

    Symbolic links are followed, but no folder is looked through twice, so that a link to a parent ends.
    """
    result = Scan()
    found: dict[str, Stamp] = {}
    for path, stamp in _walk(str(root), result.unreadable):
        if len(path) <= _LONGEST_PATH and _is_utf8(path):
            found[path] = stamp
        else:
            result.misnamed.append(ascii(path))
    result.files.update(sorted(found.items()))
    return result


def is_dag_file_name(name: str) -> bool:
    """Whether a file of this name is a DAG file: no file of tests, and not one that an editor is still busy with."""
    return is_dag_file(name) and not name.startswith(_TEMPORARY_PREFIXES) and not name.endswith(_TEMPORARY_SUFFIXES)


def _walk(root: str, unreadable: dict[str, str]) -> Iterator[tuple[str, Stamp]]:
    seen: set[tuple[int, int]] = set()
    folders = [(root, "")]
    links: list[tuple[str, str]] = []  # come last, so that a file goes by its own path and not by that of a link
    while folders or links:
        folder, relative = folders.pop() if folders else links.pop()
        try:
            identity = os.stat(folder)
            if (identity.st_dev, identity.st_ino) in seen:
                continue
            seen.add((identity.st_dev, identity.st_ino))
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError as error:
            unreadable[relative] = error.strerror or str(error)
            continue
        for entry in listed:
            if entry.name.startswith("."):
                continue
            path = f"{relative}/{entry.name}" if relative else entry.name
            try:
                if is_dag_file_name(entry.name) and not entry.is_dir():
                    found = entry.stat()
                    if stat.S_ISREG(found.st_mode):
                        yield path, _stamp(found)
                elif entry.is_dir():
                    (links if entry.is_symlink() else folders).append((entry.path, path))
            except OSError:
                continue  # a dangling link, or gone since it was listed


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ino)


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True

"""Reads DAG files from disk, and follows `!file` within the DAG folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from yarrow.language import codes
from yarrow.language.faults import Fault
from yarrow.language.nodes import BrokenNode, Node, ScalarNode
from yarrow.language.reader import read
from yarrow.language.source import Source

MAX_FILE: Final = 1024 * 1024
"""Bytes of a DAG file, and of a file that it includes."""
MAX_INCLUDE_DEPTH: Final = 10
_SUFFIXES: Final = (".yaml", ".yml")
TESTS_SUFFIXES: Final = (".tests.yaml", ".tests.yml")
"""How the file of the tests of a DAG is called: `late_flights.tests.yaml` beside `late_flights.yaml`."""
_BOMS: Final = ((b"\xff\xfe\x00\x00", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))


def shown_path(path: str | os.PathLike[str]) -> str:
    """A path as it can be printed: file names may hold bytes that are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")


def is_yaml(path: str | os.PathLike[str]) -> bool:
    """Whether a file is YAML by its name."""
    return os.fspath(path).endswith(_SUFFIXES)


def is_dag_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file may hold a DAG by its name: it is YAML, and not the tests of another one."""
    return is_yaml(path) and not os.fspath(path).endswith(TESTS_SUFFIXES)


def dag_files(folder: Path, faults: list[Fault]) -> list[Path]:
    """Returns the YAML files in a folder and its subfolders, sorted; without hidden ones, and files of tests.

    A subfolder that can't be read is a fault, and the others are still looked through.
    """
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: faults.append(_unreadable(error))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found.extend(Path(parent, name) for name in names if is_dag_file(name) and not name.startswith("."))
    return sorted(found)


def read_bytes(path: Path) -> bytes:
    """Returns the content of a regular file of at most `MAX_FILE` bytes.

    Raises:
        OSError: It can't be read, or is a folder, a pipe or a device.
        ValueError: It is too large, or its path is not one; the message is a sentence.
    """
    # Without O_NONBLOCK, opening a pipe would wait for somebody to write to it.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is not a regular file")
        content = file.read(MAX_FILE + 1)
    if len(content) > MAX_FILE:
        raise ValueError(f"it is larger than {MAX_FILE // 1024 // 1024} MiB")
    return content


def decode(content: bytes, file: str) -> Source | Fault:
    """Returns the text of a file, or the fault when it is not UTF-8 text."""
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            message = f"The file is {encoding}; a DAG file is UTF-8."
            return Fault(file, 1, 1, codes.NOT_TEXT, message, "Save it as UTF-8 in your editor.")
    if (place := content.find(b"\0")) >= 0:
        return Fault(
            file, *_place(content, place), codes.NOT_TEXT, "The file is binary, not text: it holds a NUL byte."
        )
    try:
        return Source(file, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        message = f"The file is not UTF-8: byte 0x{content[error.start]:02x} can't be read."
        return Fault(file, *_place(content, error.start), codes.NOT_TEXT, message, "Save it as UTF-8 in your editor.")


class Includes:
    """Follows the `!file` references of one DAG file. Each file is read once, however often it is named."""

    def __init__(self, root: Path, path: Path, file: str) -> None:
        """`root` is the DAG folder, `path` that of the DAG file, `file` what the file is called in faults."""
        self.root = os.path.realpath(root)
        self.contents: dict[str, bytes] = {}  # real path -> content
        self.named: set[str] = set()  # real paths, those of files that are missing too: they may come yet
        self.path = os.path.realpath(path)
        self._folders = {file: os.path.realpath(path.parent)}
        self._open = [self.path]  # the files that are being read
        self._done: dict[str, Node] = {}

    def follow(self, node: ScalarNode, faults: list[Fault]) -> Node:
        """Returns what stands in the file that a node names; faults are added."""
        reference = str(node.value)
        broken = BrokenNode(node.source, node.line, node.column)
        if problem := self._refuse(reference):
            faults.append(node.fault(codes.FILE_REFERENCE, f"`!file {reference[:100]}`: {problem}"))
            return broken
        path = os.path.realpath(os.path.join(self._folders[node.source.file], reference))
        if path != self.root and not path.startswith(os.path.join(self.root, "")):
            message = f"`!file {reference}` leads outside of the DAG folder."
            hint = f"Only files below `{shown_path(self.root)}` can be included."
            faults.append(node.fault(codes.FILE_REFERENCE, message, hint))
            return broken
        if path in self._open or len(self._open) >= MAX_INCLUDE_DEPTH:
            why = "the file includes itself" if path in self._open else "includes are nested too deeply"
            faults.append(node.fault(codes.FILE_REFERENCE, f"`!file {reference}`: {why}."))
            return broken
        self.named.add(path)
        if path not in self._done:
            self._done[path] = self._load(node, path, reference, faults) or broken
        return self._done[path]

    def _refuse(self, reference: str) -> str | None:
        if not reference.strip():
            return "a path is missing."
        if "{{" in reference:
            return "the path can't be a template, because the file is read when the DAG is loaded."
        if "\0" in reference or len(reference) > 1000:
            return "that is not a path."
        if os.path.isabs(reference):
            return "the path must be relative to the file it is written in."
        return None

    def _load(self, node: ScalarNode, path: str, reference: str, faults: list[Fault]) -> Node | None:
        try:
            content = read_bytes(Path(path))
        except FileNotFoundError:
            message = f"`!file {reference}`: there is no such file."
            faults.append(node.fault(codes.FILE_REFERENCE, message, f"It was looked for at `{shown_path(path)}`."))
            return None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            faults.append(node.fault(codes.FILE_REFERENCE, f"`!file {reference}` can't be read: {reason}."))
            return None
        self.contents[path] = content
        name = os.path.normpath(os.path.join(os.path.dirname(node.source.file), reference))
        source = decode(content, name)
        if isinstance(source, Fault):
            faults.append(source)
            return None
        if not is_yaml(path):
            return ScalarNode(source, 1, 1, source.text, "file")
        self._folders[name] = os.path.dirname(path)
        self._open.append(path)
        before = len(faults)
        try:
            tree = read(source, faults, self.follow)
        finally:
            self._open.pop()
        if tree is None and len(faults) == before:
            faults.append(source.fault((1, 1), codes.EMPTY, "The file is empty."))
        return tree


def _place(content: bytes, offset: int) -> tuple[int, int]:
    return content.count(b"\n", 0, offset) + 1, offset - content.rfind(b"\n", 0, offset)


def _unreadable(error: OSError) -> Fault:
    return Fault(
        shown_path(error.filename or ""), 1, 1, codes.UNREADABLE, f"The folder can't be read: {error.strerror}."
    )

"""What became of one DAG file: the answer of the process that parses to the catalog that asked."""

from __future__ import annotations

from dataclasses import dataclass

from yarrow.language.faults import Fault
from yarrow.language.spec import DagSpec

CRASH_CODE = "YRW000"
"""The code of a fault that is not the file's alone: the parser broke on it."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What became of one file."""

    path: str  # relative to the DAG folder
    spec: DagSpec | None  # None: it has an error
    faults: tuple[Fault, ...]
    source: str
    included: tuple[str, ...] = ()  # absolute paths of the files that it names with `!file`


def broken(path: str, message: str, hint: str | None = None) -> Parsed:
    """The outcome of a file on which the parser itself broke."""
    return Parsed(path, None, (Fault(path, 1, 1, CRASH_CODE, message, hint),), "")

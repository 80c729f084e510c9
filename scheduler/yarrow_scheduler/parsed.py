"""What the catalog and the process that parses say to each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yarrow.language import codes
from yarrow.language.faults import Fault
from yarrow.language.spec import DagSpec


@dataclass(frozen=True, slots=True)
class Request:
    """Files to parse."""

    root: Path
    paths: Sequence[str]  # relative to the DAG folder
    queues: Collection[str]  # what the deployment has
    pools: Mapping[str, int]  # with their slots


@dataclass(frozen=True, slots=True)
class Parsed:
    """What became of one file."""

    path: str  # relative to the DAG folder
    spec: DagSpec | None  # None: it has an error
    faults: tuple[Fault, ...]
    source: str
    included: tuple[str, ...] = ()  # the files that it names with `!file`, relative to the DAG folder
    dag_id_place: tuple[int, int] = (1, 1)  # line and column


def broken(path: str, message: str, hint: str | None = None) -> Parsed:
    """The outcome of a file on which the parser itself broke."""
    return Parsed(path, None, (Fault(path, 1, 1, codes.PARSER_BROKE, message, hint),), "")

"""A fault: one thing that is wrong with a DAG file, where it is and how to mend it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


MAX_FAULTS = 200
"""How many faults of one file are named; nobody mends more at a time."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a DAG file. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    code: str  # stable, such as YRW012
    message: str
    hint: str | None = None
    severity: Severity = "error"

    def __lt__(self, other: Fault) -> bool:
        """In the order of the files and of the places in them."""
        return self._key() < other._key()

    def _key(self) -> tuple[str, int, int, str, str]:
        return self.file, self.line, self.column, self.code, self.message

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.severity} {self.code}: {self.message}"
        return f"{text} {self.hint}" if self.hint else text


class TooManyFaults(Exception):
    """A file has so many faults that it is not looked at any further. They are in its `FaultList`."""


class FaultList(list[Fault]):
    """The faults of one file: up to `MAX_FAULTS` errors, and no warnings beyond that. Raises TooManyFaults."""

    def __init__(self) -> None:
        super().__init__()
        self._errors = 0

    def append(self, fault: Fault) -> None:
        if fault.severity == "warning":  # a file with many warnings is still a good file
            if len(self) < MAX_FAULTS:
                super().append(fault)
            return
        super().append(fault)
        self._errors += 1
        if self._errors >= MAX_FAULTS:
            raise TooManyFaults

    def extend(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            self.append(fault)

"""A fault: one thing that is wrong with a DAG file, where it is and how to mend it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault of a DAG file. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    code: str  # stable, such as YRW012
    message: str
    hint: str | None = None
    severity: Severity = "error"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}:{self.column}: {self.severity} {self.code}: {self.message}"
        return f"{text} {self.hint}" if self.hint else text

"""A comparison of two versions of a DAG, with all that a reader of it wants to know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from yarrow.differences.dag_diff import DagDiff
from yarrow.differences.impact import Impact
from yarrow.differences.words import summary
from yarrow.language.spec import DagSpec


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two versions that are compared."""

    spec: DagSpec
    number: int | None = None  # of a version that is deployed, or was
    file: str | None = None  # that it was read from

    @property
    def name(self) -> str:
        """What to call it: the file, or the DAG with the number of its version."""
        return self.file or f"{self.spec.dag_id}@{self.number}"

    def to_json(self) -> dict[str, Any]:
        """`{dag_id, version, number, file}`; `number` or `file` is null."""
        return {
            "dag_id": self.spec.dag_id,
            "version": self.spec.version,
            "number": self.number,
            "file": self.file,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """A comparison, ready to be written as text, as Markdown or as JSON."""

    old: Side
    new: Side
    diff: DagDiff
    now: datetime  # the coming runs are those after it
    impact: Impact | None = None  # None: nothing is deployed, or nothing differs
    notes: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data whose keys stay.

        `old` and `new` (as `Side.to_json`), `now`, `summary` (a phrase), the keys of `DagDiff.to_json` (`same`,
        `tasks`, `settings`, `params`, `groups`, `schedule`), `impact` (as `Impact.to_json`, or null) and `notes`.
        """
        return {
            "old": self.old.to_json(),
            "new": self.new.to_json(),
            "now": self.now.isoformat(),
            "summary": summary(self.diff),
            **self.diff.to_json(),
            "impact": self.impact.to_json() if self.impact else None,
            "notes": list(self.notes),
        }

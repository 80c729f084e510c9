"""An explanation: what a task instance waits for, check by check, and in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from yarrow.jsontypes import Json
from yarrow.states import TaskState


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be so before the task instance can run."""

    name: str  # of a dependency or a limit: trigger_rule, pool, ...
    passed: bool | None  # None: that can't be told before an earlier one has passed
    sentence: str
    facts: Mapping[str, Json] = field(default_factory=dict)  # the numbers and names behind it


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task instance does not run, or that it does, or how it ended."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: TaskState
    at: datetime
    summary: str  # one sentence
    checks: Sequence[Check]  # in the order in which things happen
    next_state: TaskState | None = None  # what the scheduler makes of it as soon as it looks; None: nothing, it waits
    expands_to: int | None = None  # a mapped task becomes so many instances then

    @property
    def failing(self) -> Check | None:
        """The first check that has not passed."""
        return next((check for check in self.checks if check.passed is False), None)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json` and the API."""
        return {
            "dag_id": self.dag_id,
            "run_id": self.run_id,
            "task_id": self.task_id,
            "map_index": self.map_index,
            "state": self.state.value,
            "at": self.at.isoformat(),
            "summary": self.summary,
            "next_state": self.next_state.value if self.next_state else None,
            "expands_to": self.expands_to,
            "checks": [
                {"name": one.name, "passed": one.passed, "sentence": one.sentence, "facts": dict(one.facts)}
                for one in self.checks
            ],
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """A check, and what the task instance does because of it when it has not passed."""

    check: Check
    clause: str = ""  # for the summary, with the task instance as its subject: "waits for a slot"


def found(name: str, passed: bool | None, sentence: str, clause: str = "", /, **facts: Json) -> Finding:
    """A finding, its facts given by name."""
    return Finding(Check(name, passed, sentence, facts), clause)


def first_clause(findings: Sequence[Finding]) -> str | None:
    """What the task instance does because of the first check that has not passed; None: all have."""
    return next((one.clause for one in findings if one.check.passed is False and one.clause), None)

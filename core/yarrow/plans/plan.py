"""A plan: what a request comes to, run by run and task by task."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache, cached_property
from typing import Any

from yarrow.jsontypes import Json
from yarrow.plans.requests import Request, request_from_json, request_to_json


class TaskAction(StrEnum):
    """What becomes of a task instance."""

    CLEAR = "clear"  # its state is `none` at once
    STOP_AND_CLEAR = "stop and clear"  # its worker is told to stop it; its state is `none` when that has happened
    MARK = "mark"
    STOP_AND_MARK = "stop and mark"
    COLLAPSE = "collapse"  # of a mapped task: its instances become one again, which is expanded anew
    REMOVE = "remove"  # it is not in the version that its run gets
    ADD = "add"  # it is in the version that its run gets, and was not before


class RunAction(StrEnum):
    """What becomes of a run."""

    CREATE = "create"
    RERUN_FAILED = "rerun failed"  # what failed and what depends on it
    RERUN_ALL = "rerun all"
    CLEAR = "clear"
    MARK = "mark"
    SKIP = "skip"  # nothing


@dataclass(frozen=True, slots=True)
class TaskChange:
    """What becomes of one task instance."""

    task_id: str
    map_index: int
    action: TaskAction
    from_state: str
    to_state: str
    why: str  # selected, upstream of x, downstream of x, setup of x, teardown of x, or another few words
    try_number: int = 0
    attempt_id: str | None = None  # the newest one, which is kept with its log
    loses_xcom: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """What a selected task takes from one that is not selected."""

    task_id: str  # that takes it
    of_task_id: str
    what: str  # xcom, or state: that it has ended well
    there: bool


@dataclass(frozen=True, slots=True)
class RunChange:
    """What becomes of one run, which may have to be made."""

    run_id: str
    logical_date: datetime
    action: RunAction
    reason: str | None = None  # of a skip always
    from_state: str | None = None  # None: there is no such run
    to_state: str | None = None
    data_interval_start: datetime | None = None  # of a run that is made
    data_interval_end: datetime | None = None
    version: str | None = None  # that the run has afterwards
    tasks: Sequence[TaskChange] = ()
    task_count: int = 0  # how many task instances will run, mapped ones that are not expanded as one
    needs: Sequence[Need] = ()


@dataclass(frozen=True, slots=True)
class PoolUse:
    """What a plan asks of a pool."""

    pool: str
    slots: int  # of the pool; 0: there is no such pool
    used: int  # of these, now
    task_instances: int
    busy_seconds: float | None  # slots times expected durations; None: nothing is known


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long a plan may take, from the durations of past runs."""

    task_instances: int
    seconds: float | None = None  # None: too little is known
    known_tasks: int = 0  # of how many of the tasks a past duration is known
    tasks: int = 0
    pools: Sequence[PoolUse] = ()
    order: str = ""  # in which order the runs go, and how many at once, in a few words


@dataclass(frozen=True)
class Plan:
    """What a request comes to, in the states of one moment."""

    id: str
    request: Request
    runs: Sequence[RunChange]
    planned_at: datetime
    planned_by: str
    estimate: Estimate | None = None
    notes: Sequence[str] = ()  # sentences about what people should know: a paused DAG, another version
    applied_at: datetime | None = None
    applied_by: str | None = None
    result: Mapping[str, Json] = field(default_factory=dict)  # of a plan that was applied: backfill_id

    @cached_property
    def digest(self) -> str:
        """SHA-256, hexadecimal, of what is to be done and of the states that it was worked out from."""
        parts = {"request": request_to_json(self.request), "runs": self._plain_runs}
        text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def effective(self) -> Sequence[RunChange]:
        """The runs to which something happens."""
        return [run for run in self.runs if run.action is not RunAction.SKIP]

    @property
    def task_changes(self) -> Iterator[tuple[RunChange, TaskChange]]:
        """All changes of task instances."""
        return ((run, task) for run in self.runs for task in run.tasks)

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`, the API and the store; `from_json` turns it back."""
        return {
            "id": self.id,
            "digest": self.digest,
            "request": request_to_json(self.request),
            "planned_at": self.planned_at.isoformat(),
            "planned_by": self.planned_by,
            "applied_at": self.applied_at.isoformat() if self.applied_at else None,
            "applied_by": self.applied_by,
            "result": dict(self.result),
            "notes": list(self.notes),
            "estimate": _plain(self.estimate) if self.estimate else None,
            "runs": self._plain_runs,
        }

    @cached_property
    def _plain_runs(self) -> list[Any]:
        return [_plain(run) for run in self.runs]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of `to_json`."""
        return cls(
            id=data["id"],
            request=request_from_json(data["request"]),
            runs=tuple(_run(run) for run in data["runs"]),
            planned_at=datetime.fromisoformat(data["planned_at"]),
            planned_by=data["planned_by"],
            estimate=_estimate(data["estimate"]) if data.get("estimate") else None,
            notes=tuple(data.get("notes", ())),
            applied_at=datetime.fromisoformat(data["applied_at"]) if data.get("applied_at") else None,
            applied_by=data.get("applied_by"),
            result=data.get("result", {}),
        )


_ATOMS = frozenset({str, int, float, bool})


def _plain(value: Any) -> Any:
    """Dataclasses as objects without the fields that are at their default."""
    if value is None or type(value) in _ATOMS:
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {}
        for name, default in _fields(type(value)):
            item = getattr(value, name)
            item = tuple(item) if isinstance(item, list) else item
            if default is dataclasses.MISSING or item != default:
                found[name] = _plain(item)
        return found
    return value


@cache
def _fields(cls: type[Any]) -> tuple[tuple[str, Any], ...]:
    """The fields of a dataclass, each with its default."""
    return tuple((one.name, one.default) for one in dataclasses.fields(cls))


def _run(data: Mapping[str, Any]) -> RunChange:
    values = dict(data)
    for name in ("logical_date", "data_interval_start", "data_interval_end"):
        if values.get(name):
            values[name] = datetime.fromisoformat(values[name])
    values["action"] = RunAction(values["action"])
    values["tasks"] = tuple(
        TaskChange(**{**task, "action": TaskAction(task["action"])}) for task in values.get("tasks", ())
    )
    values["needs"] = tuple(Need(**need) for need in values.get("needs", ()))
    return RunChange(**values)


def _estimate(data: Mapping[str, Any]) -> Estimate:
    return Estimate(**{**data, "pools": tuple(PoolUse(**pool) for pool in data.get("pools", ()))})


def differences(old: Plan, new: Plan, most: int = 10) -> list[str]:
    """Says, in sentences, what is another way than when a plan was made; at most so many, the last then sums up."""
    found = list(_differences(old, new))
    if len(found) > most:
        return [*found[: most - 1], f"and {len(found) - most + 1:,} other changes"]
    return found


def _differences(old: Plan, new: Plan) -> Iterator[str]:
    before = {(run.run_id, run.logical_date): run for run in old.runs}
    after = {(run.run_id, run.logical_date): run for run in new.runs}
    for key, run in before.items():
        if key not in after:
            yield f"{run.run_id} is not concerned any more"
        elif run != after[key]:
            yield from _run_differences(run, after[key])
    for key, run in after.items():
        if key not in before:
            yield f"{run.run_id} is concerned too: {run.action}"


def _run_differences(old: RunChange, new: RunChange) -> Iterator[str]:
    found = [*_differences_of_run(old, new), *_differences_of_tasks(old, new)]
    if not found and old.to_state != new.to_state:
        found = [f"{old.run_id} would be {new.to_state} afterwards, and not {old.to_state}"]
    if not found and old.needs != new.needs:
        found = [f"what {old.run_id} needs of tasks that are not selected is not the same any more"]
    yield from found or [f"{old.run_id} would be changed in another way"]


def _differences_of_run(old: RunChange, new: RunChange) -> Iterator[str]:
    if (old.action, old.reason) != (new.action, new.reason):
        yield f"{old.run_id}: {_words(old)}, and now {_words(new)}"
    elif old.from_state != new.from_state:
        yield f"{old.run_id} was {old.from_state or 'not there'} and is {new.from_state or 'not there'}"
    elif old.version != new.version:
        yield f"{old.run_id} would have another version of the DAG"


def _differences_of_tasks(old: RunChange, new: RunChange) -> Iterator[str]:
    before = {(task.task_id, task.map_index): task for task in old.tasks}
    after = {(task.task_id, task.map_index): task for task in new.tasks}
    for key in dict.fromkeys((*before, *after)):
        was, is_ = before.get(key), after.get(key)
        if was != is_:
            name = key[0] if key[1] < 0 else f"{key[0]}[{key[1]}]"
            yield f"{name} of {old.run_id} {_task_words(was, is_)}"


def _words(run: RunChange) -> str:
    return f"{run.action} ({run.reason})" if run.reason else str(run.action)


def _task_words(was: TaskChange | None, is_: TaskChange | None) -> str:
    if was is None:
        assert is_ is not None
        return f"would be changed too: it is {is_.from_state}"
    if is_ is None:
        return f"was {was.from_state} and would not be changed any more"
    if was.from_state != is_.from_state:
        return f"was {was.from_state} and is {is_.from_state}"
    return "has run again meanwhile" if was.attempt_id != is_.attempt_id else "would be changed in another way"

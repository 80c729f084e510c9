"""The compiled form of a DAG: frozen, plain data, and all that the rest of Yarrow ever sees of a DAG file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from yarrow.jsontypes import Json


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """When runs are due. Exactly one of `cron` (five fields or a preset with @) and `every` (seconds) is set."""

    cron: str | None = None
    every: float | None = None
    semantics: str = (
        "interval"  # interval: the run covers [logical_date, next) and starts when it has ended; or trigger
    )
    timezone: str = "UTC"
    gap: str = "shift"  # a local time that does not exist: shift it forward, or skip it
    fold: str = "second"  # a local time that comes twice: first, second or both


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One task of a DAG."""

    task_id: str  # "group.task" inside groups
    operator: str
    arguments: Mapping[str, Json]  # `with:`, templates unrendered
    upstream: tuple[str, ...] = ()  # direct upstream task ids, sorted: depends_on and every XCom that a template names
    trigger_rule: str = "all_success"
    when: str | None = None  # an expression without braces
    retries: int = 0
    retry_delay: float = 300.0  # seconds
    retry_exponential_backoff: float = 0.0  # multiplier for each further try; 0 is off
    max_retry_delay: float | None = None  # seconds
    execution_timeout: float | None = None  # seconds, for each try
    queue: str = "default"
    pool: str = "default_pool"
    priority_weight: int = 1
    owner: str | None = None
    doc_md: str | None = None
    xcoms: tuple[str, ...] = ()  # the task ids whose XCom the arguments name
    when_xcoms: tuple[str, ...] = ()  # the task ids whose XCom `when` names
    variables: tuple[str, ...] = ()  # the variables that the arguments or `when` name
    connections: tuple[str, ...] = ()  # the connections that the arguments name


@dataclass(frozen=True)
class DagSpec:
    """One DAG. Tasks stand in a topological order that is the file's order wherever the graph allows it."""

    dag_id: str
    tasks: Mapping[str, TaskSpec]
    description: str | None = None
    owner: str | None = None
    tags: tuple[str, ...] = ()
    doc_md: str | None = None
    schedule: ScheduleSpec | None = None
    timezone: str = "UTC"
    start_date: datetime | None = None  # aware, UTC
    end_date: datetime | None = None  # aware, UTC; the bound on logical dates, exclusive
    catchup: bool = False
    max_active_runs: int = 16
    max_active_tasks: int = 16
    params: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)  # name -> JSON Schema with its default
    groups: Mapping[str, str | None] = field(default_factory=dict)  # task group id -> its doc_md

    @cached_property
    def downstream(self) -> Mapping[str, tuple[str, ...]]:
        """Direct downstream task ids of each task, in the order of `tasks`."""
        found: dict[str, list[str]] = {task_id: [] for task_id in self.tasks}
        for task in self.tasks.values():
            for upstream in task.upstream:
                found[upstream].append(task.task_id)
        return {task_id: tuple(children) for task_id, children in found.items()}

    @cached_property
    def version(self) -> str:
        """The identity of the compiled graph: SHA-256, hexadecimal. Comments and the order of keys don't change it."""
        canonical = self.to_json()
        canonical["tasks"] = {task_id: canonical["tasks"][task_id] for task_id in sorted(canonical["tasks"])}
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal spec. Fields at their default are left out."""
        data = _changed_fields(self, _DAG_DEFAULTS)
        data["dag_id"] = self.dag_id
        data["tasks"] = {task_id: _task_to_json(task) for task_id, task in self.tasks.items()}
        if self.schedule is not None:
            data["schedule"] = _changed_fields(self.schedule, _SCHEDULE_DEFAULTS)
        for name in ("start_date", "end_date"):
            if name in data:
                data[name] = data[name].isoformat()
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DagSpec:
        """The inverse of `to_json`. Keys of a newer Yarrow are an error: a spec is never half understood."""
        values = dict(data)
        values["tasks"] = {task_id: _task_from_json(task_id, task) for task_id, task in data["tasks"].items()}
        if "schedule" in values:
            values["schedule"] = ScheduleSpec(**values["schedule"])
        for name in ("start_date", "end_date"):
            if name in values:
                values[name] = datetime.fromisoformat(values[name])
        if "tags" in values:
            values["tags"] = tuple(values["tags"])
        return cls(**values)


def _defaults(cls: type[Any], without: frozenset[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in dataclasses.fields(cls):
        if item.name not in without:
            found[item.name] = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    return found


_TASK_DEFAULTS = _defaults(TaskSpec, frozenset({"task_id", "operator", "arguments"}))
_SCHEDULE_DEFAULTS = _defaults(ScheduleSpec, frozenset())
_DAG_DEFAULTS = _defaults(DagSpec, frozenset({"dag_id", "tasks", "schedule"}))
_TUPLES = tuple(name for name, default in _TASK_DEFAULTS.items() if default == ())


def _changed_fields(value: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, default in defaults.items():
        given = getattr(value, name)
        if given != default:
            data[name] = list(given) if type(given) is tuple else given
    return data


def _task_to_json(task: TaskSpec) -> dict[str, Any]:
    data = _changed_fields(task, _TASK_DEFAULTS)
    data["operator"] = task.operator
    if task.arguments:
        data["arguments"] = task.arguments
    return data


def _task_from_json(task_id: str, data: Mapping[str, Any]) -> TaskSpec:
    values = dict(data)
    values.setdefault("arguments", {})
    for name in _TUPLES:
        if name in values:
            values[name] = tuple(values[name])
    return TaskSpec(task_id=task_id, **values)

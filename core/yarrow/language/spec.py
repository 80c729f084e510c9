"""The compiled form of a DAG: frozen, plain data, and all that the rest of Yarrow ever sees of a DAG file."""

from __future__ import annotations

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
        """The identity of the compiled graph: SHA-256, hexadecimal. A comment or a reordering of keys changes nothing."""
        canonical = self.to_json()
        canonical["tasks"] = {task_id: canonical["tasks"][task_id] for task_id in sorted(canonical["tasks"])}
        text = json.dumps(canonical, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` turns back into an equal spec. Fields at their default are left out."""
        raise NotImplementedError  # contract: implemented by the language work

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DagSpec:
        """The inverse of `to_json`."""
        raise NotImplementedError

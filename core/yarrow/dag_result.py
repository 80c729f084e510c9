"""What came of a run in one process, and the events on its way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from yarrow.jsontypes import Json
from yarrow.states import RunState, TaskState


@dataclass(frozen=True, slots=True)
class TaskResult:
    """How a task ended, or one instance of a mapped one.

    Of a mapped task as a whole the state is the one that counts most, and the XCom the list of those of its instances.
    """

    task_id: str
    state: TaskState
    tries: int = 0
    xcom: Json = None
    reason: str | None = None
    log: tuple[str, ...] = ()  # every line of every try that was logged or printed, secrets masked
    metrics: Mapping[str, Json] = field(default_factory=dict)  # of the last try
    map_index: int = -1
    instances: tuple[TaskResult, ...] = ()  # of a mapped task, in the order of their indexes


@dataclass(frozen=True, slots=True)
class Triggered:
    """A run of another DAG that a task asked for. It is noted and not started."""

    dag_id: str
    params: Mapping[str, Json]
    logical_date: datetime | None


@dataclass(frozen=True, slots=True)
class DagResult:
    """How a run ended. `tasks` stand in the order of the DAG."""

    dag_id: str
    run_id: str
    state: RunState
    reason: str | None
    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    params: Mapping[str, Json]
    tasks: Mapping[str, TaskResult]
    triggered: tuple[Triggered, ...] = ()

    @property
    def success(self) -> bool:
        return self.state is RunState.SUCCESS


@dataclass(frozen=True, slots=True)
class Moved:
    """A task instance got into another state."""

    task_id: str  # with its index when the task is mapped: `score[3]`
    state: TaskState
    try_number: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Printed:
    """A task logged or printed a line."""

    task_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Progressed:
    """A task told how far its work has got."""

    task_id: str
    done: float
    total: float | None
    unit: str


Event = Moved | Printed | Progressed

"""What is known of a DAG and its runs when a plan is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec
from yarrow.states import RunState, TaskState


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One task instance as it stands."""

    id: int  # of its row
    task_id: str
    map_index: int
    state: TaskState
    try_number: int = 0
    max_tries: int = 1
    attempt_id: str | None = None
    has_xcom: bool = False  # that others may see
    stopping_to: str | None = None  # it runs and is being stopped, and certainly ends in this state: a person wants it
    follow: tuple[str, ...] | None = None
    map_value: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """One run as it stands."""

    id: int  # of its row
    run_id: str
    run_type: str
    state: RunState
    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    spec: DagSpec  # of its version
    version: str
    params: Mapping[str, Json] = field(default_factory=dict)
    started_at: datetime | None = None
    backfill_id: int | None = None
    tasks: Sequence[TaskFacts] = ()  # in the order of the tasks, then by map index; none: they were not asked for, or
    # the run has not started and its task instances are made when it does


@dataclass(frozen=True, slots=True)
class Situation:
    """All that a plan is worked out from."""

    now: datetime
    dag_id: str
    is_paused: bool
    is_active: bool  # False: its file is gone
    created_at: datetime
    newest: DagSpec
    runs: Sequence[RunFacts]  # that the request may be about, by (logical date, row id)
    before: RunFacts | None = None  # for a backfill of a DAG that looks back: the last run before its span
    numbers: Mapping[str, int] = field(default_factory=dict)  # version -> its number, for people
    durations: Mapping[str, float] = field(default_factory=dict)  # task_id -> mean seconds of past successes
    pools: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # name -> (slots, used)
    parallelism: int | None = None

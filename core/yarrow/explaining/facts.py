"""What is known of a task instance, its run and the deployment when an explanation is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from yarrow.decision.decisions import PastView, RunView, TaskView
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec
from yarrow.mapping import Instance
from yarrow.states import TaskState


@dataclass(frozen=True, slots=True)
class Holder:
    """A task instance that takes slots of a limit."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: TaskState
    slots: int


@dataclass(frozen=True, slots=True)
class Share:
    """A limit, and how much of it is taken."""

    name: str  # pool, parallelism, max_active_tasks, max_active_tis_per_dag or max_active_tis_per_dagrun
    used: int
    limit: int
    needed: int = 1  # by the task instance
    ahead: int = 0  # how many that go before it take of this limit as well, if they go
    holders: Sequence[Holder] = ()  # some of those that take of it, if they were looked for
    holder_count: int = 0

    @property
    def fits(self) -> bool:
        return self.used + self.needed <= self.limit


@dataclass(frozen=True, slots=True)
class Slots:
    """What a scheduled task instance needs to be queued."""

    pool: str
    pool_fault: str | None  # why the pool can never take it
    queue: str
    served: Sequence[str]  # the queues that live workers take tasks of
    queue_is_served: bool
    shares: Sequence[Share]
    ahead: int  # how many scheduled task instances stand before it, of those whose queue is served and DAG not paused
    goes_next: bool  # the next grant queues it
    short_of: str | None = None  # the limit of which those before it leave too little


@dataclass(frozen=True, slots=True)
class Attempt:
    """The newest attempt at a task instance."""

    attempt_id: str
    try_number: int
    published_at: datetime | None
    dispatch_deadline: datetime | None
    dispatch_count: int
    worker_id: str | None
    hostname: str | None  # None: the worker is not known any more
    lease_until: datetime | None
    cancel_reason: str | None
    cancel_state: str | None
    progress: Mapping[str, Json] | None


@dataclass(frozen=True, slots=True)
class Serving:
    """The live workers that take tasks of a queue."""

    workers: int
    slots: int
    free: int


@dataclass(frozen=True, slots=True)
class Asked:
    """A question to a person."""

    message: str
    default_answer: str | None
    due_at: datetime | None


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """A task instance, with what its state calls for."""

    task_id: str
    map_index: int
    state: TaskState
    queue: str
    try_number: int = 0
    max_tries: int = 1
    reason: str | None = None
    wait_until: datetime | None = None
    scheduled_at: datetime | None = None
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    attempt: Attempt | None = None
    slots: Slots | None = None  # of a scheduled one
    serving: Serving | None = None  # of a queued one
    question: Asked | None = None  # of one that asks


@dataclass(frozen=True, slots=True)
class Start:
    """What a queued run needs to start."""

    run_after: datetime
    max_active_runs: int
    active: int  # how many runs of those that this limit counts are running
    holders: Sequence[str]  # some of their run_ids
    place: int  # in the line of those that this limit holds up, from 1
    starts: bool  # as soon as a scheduler looks
    backfill_id: int | None = None  # whose own limit it is; None: that of the DAG
    backfill_is_paused: bool = False


@dataclass(frozen=True, slots=True)
class Circumstances:
    """All that an explanation is worked out from: one state of the store."""

    now: datetime
    spec: DagSpec  # of the version of the run
    run: RunView
    run_reason: str | None
    run_ended_at: datetime | None
    is_paused: bool  # the DAG
    schedulers: int  # that are alive
    views: Sequence[TaskView]  # every task instance of the run
    xcoms: Mapping[Instance, Json]  # as `decide` has them
    past: PastView | None
    instance: InstanceFacts
    root: InstanceFacts | None = None  # the one that everything it waits for waits for in the end; see `blocker`
    start: Start | None = None  # of a queued run
    quarantine_until: datetime | None = None  # deciding on the run goes wrong: it is left alone until then

"""What the store answers with: frozen records of rows, as they stand in the tables. Instants are aware and UTC."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from yarrow.decision.decisions import PastView, RunView, TaskView
from yarrow.jsontypes import Json
from yarrow.language.faults import Fault
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.mapping import Instance
from yarrow.states import FINISHED_RUN_STATES, AttemptState, RunState, TaskState, summary_of


@dataclass(frozen=True, slots=True)
class Record:
    """Base of the records: plain fields, and a JSON form for `--json` and the pages."""

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data: instants in ISO 8601, tuples as lists."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Record | Fault):
        return value.to_json()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class FileRecord(Record):
    """A DAG file as it was when it was last looked at."""

    path: str  # relative to the DAG folder
    size: int
    mtime_ns: int
    content_hash: str | None  # None: it could not be read
    dag_id: str | None  # None: it is too broken to tell
    faults: Sequence[Fault] = ()
    parsed_at: datetime | None = None  # filled in by the store


@dataclass(frozen=True, slots=True)
class DagRecord(Record):
    """A DAG: what its newest version says of it, and where its schedule stands."""

    dag_id: str
    path: str
    version: str
    is_active: bool  # False: its file is gone
    is_paused: bool
    description: str | None
    owner: str | None
    tags: Sequence[str]
    schedule: str | None  # for people: the cron expression, the preset or "every 15m"
    timezone: str
    max_active_runs: int
    max_active_tasks: int
    scheduled_through: datetime | None  # logical date of the newest scheduled run
    next_logical_date: datetime | None
    next_run_after: datetime | None  # when the next scheduled run is due; None: never, or not known yet
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class VersionRecord(Record):
    """One version of a DAG."""

    dag_id: str
    version: str
    number: int  # 1, 2, 3 ... within the DAG
    created_at: datetime


@dataclass(frozen=True, slots=True)
class RunRecord(Record):
    """One run of a DAG."""

    id: int
    dag_id: str
    run_id: str
    run_type: str  # scheduled, manual, triggered, dataset or backfill
    version: str
    state: RunState
    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    run_after: datetime
    params: Mapping[str, Json]
    triggered_by: str | None
    reason: str | None
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    change_seq: int  # counts what happened to its task instances
    decided_seq: int  # how much of that has been decided on
    wait_until: datetime | None
    backfill_id: int | None = None  # of the backfill that made it, or reran it last
    backfill_place: int | None = None  # in the order of that, from 1; None: it has no say in when it starts any more
    priority_class: int = 0  # of its task instances; a higher one goes before all weights

    @property
    def view(self) -> RunView:
        """What `decide` wants to know of the run."""
        return RunView(
            dag_id=self.dag_id,
            run_id=self.run_id,
            state=self.state,
            logical_date=self.logical_date,
            data_interval_start=self.data_interval_start,
            data_interval_end=self.data_interval_end,
            params=self.params,
            started_at=self.started_at,
        )


@dataclass(frozen=True, slots=True)
class TaskInstanceRecord(Record):
    """One task instance, with what its newest attempt tells."""

    id: int
    dag_run_id: int
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: TaskState
    try_number: int
    max_tries: int
    infra_losses: int
    queue: str
    pool: str
    pool_slots: int
    priority_weight: int
    attempt_id: str | None
    follow: Sequence[str] | None
    reason: str | None
    wait_until: datetime | None
    scheduled_at: datetime | None
    queued_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    map_value: Mapping[str, Json] | None  # of a mapped task instance: what `map.name` stands for
    cached: bool  # its result is an earlier attempt's
    worker_id: str | None = None
    progress: Mapping[str, Json] | None = None  # {"done", "total", "unit"}
    metrics: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class TaskSummary(Record):
    """A task of a run as a whole: its only instance, or all those that it was mapped to."""

    dag_run_id: int
    task_id: str
    mapped: bool  # and expanded
    states: Mapping[TaskState, int]  # how many instances are in each state; none of them 0
    started_at: datetime | None  # of the first
    ended_at: datetime | None  # of the last; None: not all have ended

    @property
    def state(self) -> TaskState:
        """Of the states of its instances the one that counts most."""
        return summary_of(self.states)


@dataclass(frozen=True, slots=True)
class AttemptRecord(Record):
    """One attempt at a task instance."""

    attempt_id: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    state: AttemptState
    queue: str
    dispatch_count: int
    created_at: datetime
    published_at: datetime | None
    dispatch_deadline: datetime | None
    worker_id: str | None
    claimed_at: datetime | None
    lease_until: datetime | None
    cancel_reason: str | None
    progress: Mapping[str, Json] | None
    metrics: Mapping[str, Json] | None
    reason: str | None
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ApprovalRecord(Record):
    """A question to a person, and the answer if there is one."""

    dag_run_id: int
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    state: TaskState  # of the task instance that asks
    message: str
    default_answer: str | None  # approve or reject: what counts when nobody answers; None: it fails then
    asked_at: datetime
    due_at: datetime | None  # None: it waits for ever
    answer: str | None  # approve or reject; closed: nobody gave one; None: open
    answered_at: datetime | None
    answered_by: str | None
    comment: str | None


@dataclass(frozen=True, slots=True)
class EventRecord(Record):
    """One line of the history: who moved what from where to where, when and why."""

    id: int
    at: datetime
    kind: str
    dag_id: str | None
    run_id: str | None
    task_id: str | None
    map_index: int | None
    attempt_id: str | None
    from_state: str | None
    to_state: str | None
    who: str
    reason: str | None


@dataclass(frozen=True, slots=True)
class BackfillRecord(Record):
    """A backfill, and how far it is."""

    id: int
    dag_id: str
    plan_id: str
    from_date: datetime  # logical dates, both inclusive
    to_date: datetime
    reprocess: str  # none, failed or completed
    tasks: str | None  # the selector; None: all tasks
    params: Mapping[str, Json]
    max_active_runs: int
    run_backwards: bool
    priority_class: int
    run_count: int  # of its plan
    is_paused: bool
    cancelled_at: datetime | None
    created_at: datetime
    created_by: str
    counts: Mapping[str, int] = field(default_factory=dict)  # state -> how many of its runs; deleted ones are nowhere
    left: int = 0  # runs that have yet to end
    eta: float | None = None  # seconds until it is complete; None: nobody can tell, or nothing is left to do

    @property
    def state(self) -> str:
        """queued, running, paused, cancelled or completed."""
        if self.cancelled_at is not None:
            return "cancelled"
        if self.left == 0:
            return "completed"
        if self.is_paused:
            return "paused"
        return "running" if self.left < self.run_count or self.counts.get(RunState.RUNNING) else "queued"

    @property
    def progress(self) -> float:
        """The part of its runs that it is done with, from 0 to 1; of one that was cancelled the part that has ended."""
        if not self.run_count:
            return 1.0
        ended = sum(self.counts.get(state, 0) for state in FINISHED_RUN_STATES)
        done = ended if self.cancelled_at is not None else self.run_count - self.left
        return min(max(done / self.run_count, 0.0), 1.0)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data, with its state and its progress."""
        return {**Record.to_json(self), "state": self.state, "progress": self.progress}


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """All that is needed to decide on a run."""

    record: RunRecord
    spec: DagSpec
    tasks: Sequence[TaskView]
    xcoms: Mapping[Instance, Json]  # of the succeeded task instances that some `when`, `expand` or question names
    past: PastView | None = None


@dataclass(frozen=True, slots=True)
class PublishRow:
    """A queued attempt that wants a wake-up message."""

    attempt_id: str
    nonce: str
    queue: str


@dataclass(frozen=True, slots=True)
class ClaimedAttempt:
    """An attempt that now belongs to a worker: all that its Assignment needs but token, variables and connections."""

    attempt_id: str
    nonce: str  # of this claim: the report must carry its token
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    max_tries: int
    task: TaskSpec
    downstream: Sequence[str]  # direct ones
    queue: str
    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    timezone: str
    params: Mapping[str, Json]
    xcoms: Mapping[str, Json]  # of the tasks that the arguments name; one without XCom is absent
    mapped_xcoms: Sequence[str]  # of these, those that are lists of the XComs of a mapped task's instances
    map_value: Mapping[str, Json] | None  # what `map.name` stands for
    first_started_at: datetime  # when the try was claimed for the first time, perhaps as an attempt that got lost
    lease: float  # seconds
    lease_until: datetime


@dataclass(frozen=True, slots=True)
class CachedResult:
    """A result that an earlier attempt came to."""

    attempt_id: str
    has_xcom: bool
    xcom: Json  # the value, or {"$ref": url}
    run_id: str | None  # of that attempt; None: it has been deleted since


@dataclass(frozen=True, slots=True)
class CachedRecord(Record):
    """An entry of the result cache."""

    key: str
    dag_id: str
    task_id: str
    attempt_id: str  # that came to the result
    has_xcom: bool
    created_at: datetime
    expires_at: datetime | None  # None: never


@dataclass(frozen=True, slots=True)
class FinishOutcome:
    """What became of a report."""

    repeated: bool  # the same report had been accepted before
    state: TaskState  # of the task instance now
    next: ClaimedAttempt | None = None


@dataclass(frozen=True, slots=True)
class NotificationRecord(Record):
    """A notification, and how far its delivery is."""

    id: int
    kind: str  # success, failure, retry or deadline
    target: str  # `log`, the id of a connection, or a URL, which may hold a secret
    dag_id: str
    run_id: str | None
    task_id: str | None  # None: of a run
    map_index: int | None
    payload: Mapping[str, Json]
    created_at: datetime
    tries: int
    next_try_at: datetime | None  # None: delivered, or given up
    delivered_at: datetime | None
    error: str | None  # why the last try failed

    @property
    def given_up(self) -> bool:
        """Whether nobody will try to deliver it any more, although it has not arrived."""
        return self.delivered_at is None and self.next_try_at is None


@dataclass(frozen=True, slots=True)
class DeadlineRecord(Record):
    """A deadline of a run or a task that has not been met."""

    dag_id: str
    run_id: str  # there may be no such run yet
    task_id: str  # empty: of the run itself
    due_at: datetime
    missed_at: datetime | None  # None: it is not due yet


@dataclass(frozen=True, slots=True)
class WorkerRecord(Record):
    """A worker, as its last heartbeat told."""

    worker_id: str
    hostname: str
    pid: int
    queues: Sequence[str]
    slots: int
    version: str
    stopping: bool
    started_at: datetime
    seen_at: datetime
    running: int = 0  # attempts that it holds


@dataclass(frozen=True, slots=True)
class SchedulerRecord(Record):
    """A scheduler, as its last beat told."""

    scheduler_id: str
    hostname: str
    pid: int
    started_at: datetime
    seen_at: datetime
    loop_seconds: float | None
    broker_error: str | None


@dataclass(frozen=True, slots=True)
class QueueRecord(Record):
    """What waits and runs on a queue, and the slots of the live workers that serve it."""

    queue: str
    scheduled: int
    queued: int
    running: int
    workers: int
    slots: int


@dataclass(frozen=True, slots=True)
class PoolRecord(Record):
    """A pool and how much of it is taken. Used may exceed slots for a while after a pool was made smaller."""

    name: str
    slots: int
    used: int


@dataclass(frozen=True, slots=True)
class HealthReport(Record):
    """The state of the deployment's parts, for `/health/ready` and the status page."""

    database: str  # sqlite or postgresql
    schedulers: Sequence[SchedulerRecord] = ()  # those that beat lately
    workers: Sequence[WorkerRecord] = ()  # those that are alive
    queues: Sequence[QueueRecord] = ()
    pools: Sequence[PoolRecord] = ()
    runs: Mapping[str, int] = field(default_factory=dict)  # unfinished runs by state
    problems: Sequence[str] = ()  # sentences: no scheduler, no worker, the broker's error, a queue nobody serves

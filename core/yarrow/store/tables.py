"""The tables of the metadata store. All that Yarrow knows stands in these rows; slots and counters are never kept.

Instants are UTC. Every row that waits for something has the deadline of that wait in a column, so none can be stuck.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)

from yarrow.states import AttemptState, RunState, TaskState

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Instant(TypeDecorator[datetime]):
    """An aware UTC datetime. SQLite keeps no zone, so it is taken off on the way in and put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a datetime in the store must be aware")
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class State(TypeDecorator[str]):
    """A member of one of the state enums, kept as its word. A word that no enum knows comes back as it is."""

    impl = String(32)
    cache_ok = True

    def __init__(self, states: type[StrEnum]) -> None:
        super().__init__()
        self.states = states
        self._members: dict[str, str] = {member.value: member for member in states}

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else str.__str__(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else self._members.get(value, value)


Key = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only an INTEGER primary key


def only(condition: str) -> dict[str, Any]:
    """The arguments of a partial index.

    Nearly all rows are finished ones in time: they cost the engine nothing when its indexes leave them out. A database
    uses such an index only for a query that spells the same condition, as a literal and not as a parameter.
    """
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


dag_file = Table(
    "dag_file",
    metadata,
    Column("path", String(1024), primary_key=True),  # relative to the DAG folder
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("content_hash", String(64)),  # None: the file could not be read
    Column("dag_id", String(250)),  # None: unknown, the file is too broken
    Column("faults", JSON, nullable=False, default=list),
    Column("errors", Integer, nullable=False),  # how many of the faults are errors
    Column("parsed_at", Instant, nullable=False),
)

dag = Table(
    "dag",
    metadata,
    Column("dag_id", String(250), primary_key=True),
    Column("path", String(1024), nullable=False),
    Column("version", String(64), nullable=False),  # the version that new runs get
    # What that version says, as far as listings and limits need it without reading the spec.
    Column("description", Text),
    Column("owner", String(250)),
    Column("tags", JSON, nullable=False),
    Column("schedule", String(250)),  # for people
    Column("timezone", String(64), nullable=False),
    Column("max_active_runs", Integer, nullable=False),
    Column("max_active_tasks", Integer, nullable=False),
    Column("deadline_after", Float),  # seconds from `deadline_reference`; None: it has no deadline, or another one
    Column("deadline_reference", String(32)),  # logical_date or data_interval_end: known before there is a run
    Column("is_active", Boolean, nullable=False, default=True),  # False: its file is gone; the history stays
    Column("is_paused", Boolean, nullable=False, default=False),
    Column("scheduled_through", Instant),  # logical date of the newest scheduled run; None before the first
    Column("next_logical_date", Instant),
    Column("next_run_after", Instant),  # when the next scheduled run is due; None: never
    Column("unscheduled_since", Instant),  # set: the two above are out of date and must be computed
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Index("ix_dag_due", "next_run_after", **only("next_run_after IS NOT NULL")),
    Index("ix_dag_unscheduled", "unscheduled_since", **only("unscheduled_since IS NOT NULL")),
)

dag_version = Table(
    "dag_version",
    metadata,
    Column("dag_id", String(250), primary_key=True),
    Column("version", String(64), primary_key=True),  # DagSpec.version
    Column("number", Integer, nullable=False),  # 1, 2, 3 ... within the DAG, for people; below 0: see `cut_from`
    Column("cut_from", String(64)),  # set: a part of that version, for the runs of a backfill of some of its tasks
    Column("spec", JSON, nullable=False),
    Column("source", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("dag_id", "number"),
)

plan = Table(
    "plan",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(16), nullable=False),  # clear, mark or backfill
    Column("dag_id", String(250), nullable=False),
    Column("document", JSON, nullable=False),  # Plan.to_json() but for the runs, of which there may be many
    Column("runs", JSON, nullable=False),  # what becomes of each
    Column("run_count", Integer, nullable=False),  # to how many of them something happens
    Column(
        "digest", String(64), nullable=False
    ),  # of what is to be done, and of the states that it was worked out from
    Column("planned_at", Instant, nullable=False),
    Column("planned_by", String(250), nullable=False),
    Column("applied_at", Instant),  # None: not applied
    Column("applied_by", String(250)),
    Index("ix_plan_planned", "planned_at"),
)

backfill = Table(
    "backfill",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=True),
    Column("dag_id", String(250), nullable=False),
    Column("plan_id", String(32), nullable=False),
    Column("from_date", Instant, nullable=False),  # of the logical dates, both inclusive
    Column("to_date", Instant, nullable=False),
    Column("reprocess", String(16), nullable=False),  # none, failed or completed
    Column("tasks", Text),  # the selector; None: all tasks
    Column("params", JSON, nullable=False, default=dict),
    Column("max_active_runs", Integer, nullable=False),
    Column("run_backwards", Boolean, nullable=False),
    Column("priority_class", Integer, nullable=False),
    Column("run_count", Integer, nullable=False),  # of the plan; runs may be deleted later
    Column("is_paused", Boolean, nullable=False, default=False),
    Column("cancelled_at", Instant),
    Column("created_at", Instant, nullable=False),
    Column("created_by", String(250), nullable=False),
    Index("ix_backfill_by_dag", "dag_id", "id"),
    sqlite_autoincrement=True,  # else it would give the id of the newest again once that is deleted
)

dag_run = Table(
    "dag_run",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=True),
    Column("dag_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("run_type", String(16), nullable=False),  # scheduled, manual, triggered, dataset or backfill
    Column("version", String(64), nullable=False),
    Column("state", State(RunState), nullable=False),
    Column("logical_date", Instant, nullable=False),
    Column("data_interval_start", Instant, nullable=False),
    Column("data_interval_end", Instant, nullable=False),
    Column("run_after", Instant, nullable=False),
    Column("params", JSON, nullable=False, default=dict),
    Column("triggered_by", String(250)),
    Column("reason", Text),
    Column("queued_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Column("change_seq", Integer, nullable=False, default=1),  # counts what happened to its task instances
    Column("decided_seq", Integer, nullable=False, default=0),  # how much of that has been decided on
    Column("wait_until", Instant),  # when to look again although nothing happened; None once finished
    Column("quarantine_until", Instant),  # deciding on it went wrong: it is left alone until then, as is wait_until
    Column("quarantine_count", Integer, nullable=False, default=0),  # how often in a row
    # The value of `change_seq` at which a person cleared or marked something: what was decided before counts no more.
    Column("fenced_seq", Integer, nullable=False, default=0, server_default="0"),
    Column("backfill_id", Key),  # of the backfill that made it, or reran it last
    # In the order of that backfill, from 1. None: it is not within the limit of one, but within that of its DAG.
    Column("backfill_place", Integer),
    Column("priority_class", Integer, nullable=False, default=0, server_default="0"),  # of its task instances
    UniqueConstraint("dag_id", "run_id"),
    Index("ix_dag_run_by_date", "dag_id", "logical_date"),
    Index("ix_dag_run_queued", "backfill_place", "dag_id", "logical_date", "id", **only("state = 'queued'")),
    Index("ix_dag_run_running", "dag_id", **only("state = 'running'")),
    Index("ix_dag_run_undecided", "id", **only("state = 'running' AND change_seq > decided_seq")),
    Index("ix_dag_run_ended", "dag_id", "ended_at", **only("ended_at IS NOT NULL")),
    Index("ix_dag_run_waiting", "wait_until", **only("wait_until IS NOT NULL")),
    Index("ix_dag_run_backfill", "backfill_id", "state", "backfill_place", **only("backfill_id IS NOT NULL")),
)

task_instance = Table(
    "task_instance",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=True),
    Column("dag_run_id", Key, ForeignKey("dag_run.id", ondelete="CASCADE"), nullable=False),
    Column("dag_id", String(250), nullable=False),
    Column("logical_date", Instant, nullable=False),  # of its run, so that one index holds the order of priority
    Column("task_id", String(250), nullable=False),
    Column("map_index", Integer, nullable=False, default=-1),
    Column("state", State(TaskState), nullable=False),
    Column("try_number", Integer, nullable=False, default=0),  # of the newest try that counts; 0 before the first
    Column("max_tries", Integer, nullable=False),  # retries + 1
    Column("infra_losses", Integer, nullable=False, default=0),
    Column("queue", String(250), nullable=False),
    Column("pool", String(250), nullable=False),
    Column("pool_slots", Integer, nullable=False, default=1),
    Column("priority_weight", Integer, nullable=False),  # of DagSpec.weights: what counts
    Column("priority_class", Integer, nullable=False, default=0, server_default="0"),  # goes before all weights
    Column("max_per_dag", Integer),  # max_active_tis_per_dag
    Column("max_per_run", Integer),  # max_active_tis_per_dagrun
    Column("map_value", JSON(none_as_null=True)),  # of a mapped task instance: what `map.name` stands for
    Column("cached", Boolean, nullable=False, default=False, server_default=false()),  # its result is an earlier one's
    Column("clears", Integer, nullable=False, default=0, server_default="0"),  # how often it was cleared
    Column("attempt_id", String(32)),  # the newest attempt
    Column("follow", JSON(none_as_null=True)),  # what a branch or short_circuit chose
    Column("reason", Text),
    Column("wait_until", Instant),  # the deadline of what it waits for; None before it is scheduled and once it runs
    Column("scheduled_at", Instant),
    Column("queued_at", Instant),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    UniqueConstraint("dag_run_id", "task_id", "map_index"),
    Index("ix_task_instance_slots", "pool", "dag_id", "pool_slots", **only("state IN ('queued', 'running')")),
    Index("ix_task_instance_waiting", "wait_until", **only("wait_until IS NOT NULL")),
)
Index(
    "ix_task_instance_scheduled",
    task_instance.c.priority_class.desc(),
    task_instance.c.priority_weight.desc(),
    task_instance.c.logical_date,
    task_instance.c.id,
    task_instance.c.dag_id,
    task_instance.c.pool,
    task_instance.c.queue,
    task_instance.c.pool_slots,
    **only("state = 'scheduled'"),
)
Index(
    "ix_task_instance_queued",
    task_instance.c.queue,
    task_instance.c.priority_class.desc(),
    task_instance.c.priority_weight.desc(),
    task_instance.c.logical_date,
    task_instance.c.id,
    **only("state = 'queued'"),
)

attempt = Table(
    "attempt",
    metadata,
    Column("attempt_id", String(32), primary_key=True),
    Column("task_instance_id", Key, ForeignKey("task_instance.id", ondelete="CASCADE"), nullable=False),
    Column("try_number", Integer, nullable=False),
    Column("state", State(AttemptState), nullable=False),
    Column("queue", String(250), nullable=False),
    Column("nonce", String(32), nullable=False),  # of the newest dispatch; an older token claims nothing
    Column("dispatch_count", Integer, nullable=False, default=0),
    Column("created_at", Instant, nullable=False),
    Column("published_at", Instant),  # None: not handed to the executor yet
    Column("dispatch_deadline", Instant),  # published but not claimed by then: sent again
    Column("worker_id", String(64)),
    Column("claimed_at", Instant),
    Column("lease_until", Instant),
    Column("cancel_reason", Text),  # set: its worker is told to stop it
    Column("cancel_state", String(32)),  # the state in which its task instance ends then; None: failed
    # Its task instance was cleared or marked meanwhile: `cancel_state` it is, whatever the attempt still comes to.
    Column("overruled", Boolean, nullable=False, default=False, server_default=false()),
    Column("progress", JSON(none_as_null=True)),
    Column("metrics", JSON(none_as_null=True)),
    Column("reason", Text),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Index("ix_attempt_task_instance", "task_instance_id"),
    Index("ix_attempt_dispatched", "dispatch_deadline", "queue", **only("state = 'queued'")),
    Index("ix_attempt_leased", "lease_until", "worker_id", **only("state = 'running'")),
)

xcom = Table(
    "xcom",
    metadata,
    Column("attempt_id", String(32), ForeignKey("attempt.attempt_id", ondelete="CASCADE"), primary_key=True),
    Column("value", JSON, nullable=False),  # the value, or {"$ref": url}
)

approval = Table(
    "approval",
    metadata,
    Column("task_instance_id", Key, ForeignKey("task_instance.id", ondelete="CASCADE"), primary_key=True),
    Column("message", Text, nullable=False),
    Column("default_answer", String(16)),  # approve or reject: what counts when nobody answers; None: it fails then
    Column("asked_at", Instant, nullable=False),
    Column("due_at", Instant),  # None: it waits for ever
    Column("answer", String(16)),  # approve or reject; closed: nobody gave one in time; None: open
    Column("answered_at", Instant),
    Column("answered_by", String(250)),
    Column("comment", Text),
    Index("ix_approval_open", "asked_at", **only("answer IS NULL")),
)

dag_dataset = Table(
    "dag_dataset",
    metadata,
    Column("dag_id", String(250), primary_key=True),
    Column("dataset", String(250), primary_key=True),  # the schedule of the newest version waits for it
    Column("mode", String(8), nullable=False),  # all or any
    Index("ix_dag_dataset_dataset", "dataset"),
)

dataset_event = Table(
    "dataset_event",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=True),
    Column("dataset", String(250), nullable=False),
    Column("at", Instant, nullable=False),
    Column("dag_id", String(250)),  # the task instance that published it; None: a person or a program did
    Column("run_id", String(250)),
    Column("task_id", String(250)),
    Column("map_index", Integer),
    Column("who", String(250), nullable=False),
    Index("ix_dataset_event_dataset", "dataset", "id"),
)

dataset_pending = Table(
    "dataset_pending",
    metadata,
    Column("dag_id", String(250), primary_key=True),  # a DAG that waits for the dataset and has no run for it yet
    Column("event_id", Key, ForeignKey("dataset_event.id", ondelete="CASCADE"), primary_key=True),
    Column("dataset", String(250), nullable=False),
    Index("ix_dataset_pending_event", "event_id"),
)

dag_run_dataset = Table(
    "dag_run_dataset",
    metadata,
    Column("dag_run_id", Key, ForeignKey("dag_run.id", ondelete="CASCADE"), primary_key=True),
    Column("event_id", Key, ForeignKey("dataset_event.id", ondelete="CASCADE"), primary_key=True),
    Index("ix_dag_run_dataset_event", "event_id"),
)

result_cache = Table(
    "result_cache",
    metadata,
    Column("key", String(64), primary_key=True),  # SHA-256, hexadecimal, of all that the result depends on
    Column("dag_id", String(250), nullable=False),
    Column("task_id", String(250), nullable=False),
    Column("attempt_id", String(32), nullable=False),  # that came to the result
    Column("value", JSON),  # its XCom; see `has_xcom`
    Column("has_xcom", Boolean, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),  # None: never
    Index("ix_result_cache_task", "dag_id", "task_id"),
    Index("ix_result_cache_expires", "expires_at", **only("expires_at IS NOT NULL")),
)

deadline = Table(
    "deadline",
    metadata,
    Column("dag_id", String(250), primary_key=True),
    Column("run_id", String(250), primary_key=True),  # there may be no such run yet
    Column("task_id", String(250), primary_key=True),  # empty: of the run itself
    Column("due_at", Instant, nullable=False),
    Column("missed_at", Instant),  # None: not due yet, or met, which a finished run tells
    Index("ix_deadline_due", "due_at", **only("missed_at IS NULL")),
    Index("ix_deadline_missed", "missed_at", **only("missed_at IS NOT NULL")),
)

notification = Table(
    "notification",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),  # success, failure, retry or deadline
    Column("target", Text, nullable=False),  # `log`, the id of a connection, or a URL
    Column("dag_id", String(250), nullable=False),
    Column("run_id", String(250)),
    Column("task_id", String(250)),  # None: of a run
    Column("map_index", Integer),
    Column("payload", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("tries", Integer, nullable=False, default=0),
    Column("next_try_at", Instant),  # None: delivered, or given up
    Column("delivered_at", Instant),
    Column("error", Text),  # why the last try failed
    Index("ix_notification_due", "next_try_at", **only("next_try_at IS NOT NULL")),
    Index("ix_notification_by_run", "dag_id", "run_id"),
)

event = Table(
    "event",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=True),
    Column("at", Instant, nullable=False),
    Column("kind", String(64), nullable=False),  # dag.version, dag.paused, run.state, task.state, attempt.dispatch, ...
    Column("dag_id", String(250)),
    Column("run_id", String(250)),
    Column("task_id", String(250)),
    Column("map_index", Integer),
    Column("attempt_id", String(32)),
    Column("from_state", String(32)),
    Column("to_state", String(32)),
    Column("who", String(250), nullable=False),  # scheduler, worker <id>, or a person
    Column("reason", Text),
    Index("ix_event_by_run", "dag_id", "run_id", "id"),
)

worker = Table(
    "worker",
    metadata,
    Column("worker_id", String(64), primary_key=True),
    Column("hostname", String(250), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("queues", JSON, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("version", String(32), nullable=False),
    Column("stopping", Boolean, nullable=False, default=False),
    Column("started_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),
)

scheduler = Table(
    "scheduler",
    metadata,
    Column("scheduler_id", String(64), primary_key=True),
    Column("hostname", String(250), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),
    Column("loop_seconds", Float),  # duration of the last pass
    Column("broker_error", Text),  # why the last publish failed; None: it worked
)

pool = Table(
    "pool",
    metadata,
    Column("name", String(250), primary_key=True),
    Column("slots", Integer, nullable=False),
)

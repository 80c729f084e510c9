"""The tables of the metadata store. Everything that Yarrow knows stands in these rows; nothing is derived and kept.

Instants are UTC. Every row that waits for something has the deadline of that wait in a column, so none can be stuck.
"""

from __future__ import annotations

from datetime import UTC, datetime

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


Key = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only an INTEGER primary key


dag_file = Table(
    "dag_file",
    metadata,
    Column("path", String(1024), primary_key=True),  # relative to the DAG folder
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("content_hash", String(64)),  # None: the file could not be read
    Column("dag_id", String(250)),  # None: unknown, the file is too broken
    Column("faults", JSON, nullable=False, default=list),
    Column("parsed_at", Instant, nullable=False),
)

dag = Table(
    "dag",
    metadata,
    Column("dag_id", String(250), primary_key=True),
    Column("path", String(1024), nullable=False),
    Column("version", String(64), nullable=False),  # the version that new runs get
    Column("is_active", Boolean, nullable=False, default=True),  # False: its file is gone; the history stays
    Column("is_paused", Boolean, nullable=False, default=False),
    Column("scheduled_through", Instant),  # logical date of the newest scheduled run; None before the first
    Column("next_logical_date", Instant),
    Column("next_run_after", Instant),  # when the next scheduled run is due; None: never
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Index(None, "is_active", "is_paused", "next_run_after"),
)

dag_version = Table(
    "dag_version",
    metadata,
    Column("dag_id", String(250), primary_key=True),
    Column("version", String(64), primary_key=True),  # DagSpec.version
    Column("number", Integer, nullable=False),  # 1, 2, 3 ... within the DAG, for people
    Column("spec", JSON, nullable=False),
    Column("source", Text, nullable=False),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("dag_id", "number"),
)

dag_run = Table(
    "dag_run",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=True),
    Column("dag_id", String(250), nullable=False),
    Column("run_id", String(250), nullable=False),
    Column("run_type", String(16), nullable=False),  # scheduled, manual or triggered
    Column("version", String(64), nullable=False),
    Column("state", String(16), nullable=False),
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
    Column("quarantine_count", Integer, nullable=False, default=0),  # how often deciding on it went wrong in a row
    UniqueConstraint("dag_id", "run_id"),
    Index("ix_dag_run_undecided", "wait_until", sqlite_where=text("change_seq > decided_seq")),
    Index(None, "state", "wait_until"),
    Index(None, "dag_id", "logical_date"),
)

task_instance = Table(
    "task_instance",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=True),
    Column("dag_run_id", Key, ForeignKey("dag_run.id", ondelete="CASCADE"), nullable=False),
    Column("dag_id", String(250), nullable=False),
    Column("task_id", String(250), nullable=False),
    Column("map_index", Integer, nullable=False, default=-1),
    Column("state", String(16), nullable=False),
    Column("try_number", Integer, nullable=False, default=0),  # of the newest try that counts; 0 before the first
    Column("max_tries", Integer, nullable=False),  # retries + 1
    Column("infra_losses", Integer, nullable=False, default=0),
    Column("queue", String(250), nullable=False),
    Column("pool", String(250), nullable=False),
    Column("pool_slots", Integer, nullable=False, default=1),
    Column("priority_weight", Integer, nullable=False),
    Column("attempt_id", String(32)),  # the newest attempt
    Column("follow", JSON),  # what a branch or short_circuit chose
    Column("reason", Text),
    Column("wait_until", Instant),  # the deadline of what it waits for; None once finished and before it is scheduled
    Column("scheduled_at", Instant),
    Column("queued_at", Instant),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    UniqueConstraint("dag_run_id", "task_id", "map_index"),
    Index("ix_task_instance_by_priority", "state", "queue", "priority_weight"),
    Index(None, "state", "wait_until"),
)

attempt = Table(
    "attempt",
    metadata,
    Column("attempt_id", String(32), primary_key=True),
    Column("task_instance_id", Key, ForeignKey("task_instance.id", ondelete="CASCADE"), nullable=False),
    Column("try_number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
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
    Column("progress", JSON),
    Column("metrics", JSON),
    Column("reason", Text),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Index(None, "task_instance_id"),
    Index(None, "state", "published_at"),
    Index(None, "state", "dispatch_deadline"),
    Index(None, "state", "lease_until"),
)

xcom = Table(
    "xcom",
    metadata,
    Column("attempt_id", String(32), ForeignKey("attempt.attempt_id", ondelete="CASCADE"), primary_key=True),
    Column("value", JSON, nullable=False),  # the value, or {"$ref": url}
)

event = Table(
    "event",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=True),
    Column("at", Instant, nullable=False),
    Column("kind", String(64), nullable=False),  # dag.version, dag.paused, run.state, task.state, attempt.claimed, ...
    Column("dag_id", String(250)),
    Column("run_id", String(250)),
    Column("task_id", String(250)),
    Column("map_index", Integer),
    Column("attempt_id", String(32)),
    Column("from_state", String(16)),
    Column("to_state", String(16)),
    Column("who", String(250), nullable=False),  # scheduler, worker <id>, or a person
    Column("reason", Text),
    Index(None, "dag_id", "run_id", "id"),
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
    Column("stopping", Boolean, nullable=False, default=False, server_default=false()),
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

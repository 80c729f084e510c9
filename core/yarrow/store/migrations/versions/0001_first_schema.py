"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dag",
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("description", sa.Text()),
        sa.Column("owner", sa.String(length=250)),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("schedule", sa.String(length=250)),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("max_active_runs", sa.Integer(), nullable=False),
        sa.Column("max_active_tasks", sa.Integer(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("scheduled_through", sa.DateTime(timezone=True)),
        sa.Column("next_logical_date", sa.DateTime(timezone=True)),
        sa.Column("next_run_after", sa.DateTime(timezone=True)),
        sa.Column("unscheduled_since", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("dag_id", name="pk_dag"),
    )
    op.create_index(
        "ix_dag_due",
        "dag",
        ["next_run_after"],
        sqlite_where=sa.text("next_run_after IS NOT NULL"),
        postgresql_where=sa.text("next_run_after IS NOT NULL"),
    )
    op.create_index(
        "ix_dag_unscheduled",
        "dag",
        ["unscheduled_since"],
        sqlite_where=sa.text("unscheduled_since IS NOT NULL"),
        postgresql_where=sa.text("unscheduled_since IS NOT NULL"),
    )
    op.create_table(
        "dag_file",
        sa.Column("path", sa.String(length=1024), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("content_hash", sa.String(length=64)),
        sa.Column("dag_id", sa.String(length=250)),
        sa.Column("faults", sa.JSON(), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        sa.Column("parsed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("path", name="pk_dag_file"),
    )
    op.create_table(
        "dag_run",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("run_id", sa.String(length=250), nullable=False),
        sa.Column("run_type", sa.String(length=16), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("logical_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data_interval_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data_interval_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("run_after", sa.DateTime(timezone=True), nullable=False),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("triggered_by", sa.String(length=250)),
        sa.Column("reason", sa.Text()),
        sa.Column("queued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("change_seq", sa.Integer(), nullable=False),
        sa.Column("decided_seq", sa.Integer(), nullable=False),
        sa.Column("wait_until", sa.DateTime(timezone=True)),
        sa.Column("quarantine_until", sa.DateTime(timezone=True)),
        sa.Column("quarantine_count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dag_run"),
        sa.UniqueConstraint("dag_id", "run_id", name="uq_dag_run_dag_id_run_id"),
    )
    op.create_index("ix_dag_run_by_date", "dag_run", ["dag_id", "logical_date"])
    op.create_index(
        "ix_dag_run_queued",
        "dag_run",
        ["dag_id", "logical_date", "id"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_dag_run_running",
        "dag_run",
        ["dag_id"],
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "ix_dag_run_undecided",
        "dag_run",
        ["id"],
        sqlite_where=sa.text("state = 'running' AND change_seq > decided_seq"),
        postgresql_where=sa.text("state = 'running' AND change_seq > decided_seq"),
    )
    op.create_index(
        "ix_dag_run_waiting",
        "dag_run",
        ["wait_until"],
        sqlite_where=sa.text("wait_until IS NOT NULL"),
        postgresql_where=sa.text("wait_until IS NOT NULL"),
    )
    op.create_table(
        "dag_version",
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("dag_id", "version", name="pk_dag_version"),
        sa.UniqueConstraint("dag_id", "number", name="uq_dag_version_dag_id_number"),
    )
    op.create_table(
        "event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("dag_id", sa.String(length=250)),
        sa.Column("run_id", sa.String(length=250)),
        sa.Column("task_id", sa.String(length=250)),
        sa.Column("map_index", sa.Integer()),
        sa.Column("attempt_id", sa.String(length=32)),
        sa.Column("from_state", sa.String(length=16)),
        sa.Column("to_state", sa.String(length=16)),
        sa.Column("who", sa.String(length=250), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_event"),
    )
    op.create_index("ix_event_by_run", "event", ["dag_id", "run_id", "id"])
    op.create_table(
        "pool",
        sa.Column("name", sa.String(length=250), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_pool"),
    )
    op.create_table(
        "scheduler",
        sa.Column("scheduler_id", sa.String(length=64), nullable=False),
        sa.Column("hostname", sa.String(length=250), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("loop_seconds", sa.Float()),
        sa.Column("broker_error", sa.Text()),
        sa.PrimaryKeyConstraint("scheduler_id", name="pk_scheduler"),
    )
    op.create_table(
        "worker",
        sa.Column("worker_id", sa.String(length=64), nullable=False),
        sa.Column("hostname", sa.String(length=250), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("queues", sa.JSON(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("stopping", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("worker_id", name="pk_worker"),
    )
    op.create_table(
        "task_instance",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("dag_run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("logical_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("map_index", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("try_number", sa.Integer(), nullable=False),
        sa.Column("max_tries", sa.Integer(), nullable=False),
        sa.Column("infra_losses", sa.Integer(), nullable=False),
        sa.Column("queue", sa.String(length=250), nullable=False),
        sa.Column("pool", sa.String(length=250), nullable=False),
        sa.Column("pool_slots", sa.Integer(), nullable=False),
        sa.Column("priority_weight", sa.Integer(), nullable=False),
        sa.Column("attempt_id", sa.String(length=32)),
        sa.Column("follow", sa.JSON()),
        sa.Column("reason", sa.Text()),
        sa.Column("wait_until", sa.DateTime(timezone=True)),
        sa.Column("scheduled_at", sa.DateTime(timezone=True)),
        sa.Column("queued_at", sa.DateTime(timezone=True)),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["dag_run_id"], ["dag_run.id"], name="fk_task_instance_dag_run_id_dag_run", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_task_instance"),
        sa.UniqueConstraint("dag_run_id", "task_id", "map_index", name="uq_task_instance_dag_run_id_task_id_map_index"),
    )
    op.create_index(
        "ix_task_instance_queued",
        "task_instance",
        ["queue", sa.literal_column("priority_weight DESC"), "logical_date", "id"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_task_instance_scheduled",
        "task_instance",
        [sa.literal_column("priority_weight DESC"), "logical_date", "id", "dag_id", "pool", "queue", "pool_slots"],
        sqlite_where=sa.text("state = 'scheduled'"),
        postgresql_where=sa.text("state = 'scheduled'"),
    )
    op.create_index(
        "ix_task_instance_slots",
        "task_instance",
        ["pool", "dag_id", "pool_slots"],
        sqlite_where=sa.text("state IN ('queued', 'running')"),
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_index(
        "ix_task_instance_waiting",
        "task_instance",
        ["wait_until"],
        sqlite_where=sa.text("wait_until IS NOT NULL"),
        postgresql_where=sa.text("wait_until IS NOT NULL"),
    )
    op.create_table(
        "attempt",
        sa.Column("attempt_id", sa.String(length=32), nullable=False),
        sa.Column("task_instance_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("try_number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("queue", sa.String(length=250), nullable=False),
        sa.Column("nonce", sa.String(length=32), nullable=False),
        sa.Column("dispatch_count", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True)),
        sa.Column("dispatch_deadline", sa.DateTime(timezone=True)),
        sa.Column("worker_id", sa.String(length=64)),
        sa.Column("claimed_at", sa.DateTime(timezone=True)),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("cancel_reason", sa.Text()),
        sa.Column("progress", sa.JSON()),
        sa.Column("metrics", sa.JSON()),
        sa.Column("reason", sa.Text()),
        sa.Column("started_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["task_instance_id"],
            ["task_instance.id"],
            name="fk_attempt_task_instance_id_task_instance",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_attempt"),
    )
    op.create_index(
        "ix_attempt_dispatched",
        "attempt",
        ["dispatch_deadline", "queue"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_attempt_leased",
        "attempt",
        ["lease_until", "worker_id"],
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index("ix_attempt_task_instance", "attempt", ["task_instance_id"])
    op.create_table(
        "xcom",
        sa.Column("attempt_id", sa.String(length=32), nullable=False),
        sa.Column("value", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"], ["attempt.attempt_id"], name="fk_xcom_attempt_id_attempt", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_xcom"),
    )

"""Mapped tasks, sensors, approvals, datasets, deadlines, notifications and the cache of results."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LONGER = (
    ("dag_run", "state"),
    ("task_instance", "state"),
    ("attempt", "state"),
    ("event", "from_state"),
    ("event", "to_state"),
)


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":  # which holds no text to a length
        condition = sa.text("state IN ('queued', 'running')")  # PostgreSQL would spell it anew for the longer type
        op.drop_index("ix_task_instance_slots", "task_instance")
        for table, column in _LONGER:
            op.alter_column(table, column, type_=sa.String(length=32))
        columns = ["pool", "dag_id", "pool_slots"]
        op.create_index("ix_task_instance_slots", "task_instance", columns, postgresql_where=condition)
    op.create_table(
        "dag_dataset",
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("dataset", sa.String(length=250), nullable=False),
        sa.Column("mode", sa.String(length=8), nullable=False),
        sa.PrimaryKeyConstraint("dag_id", "dataset", name="pk_dag_dataset"),
    )
    op.create_index("ix_dag_dataset_dataset", "dag_dataset", ["dataset"])
    op.create_table(
        "dataset_event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("dataset", sa.String(length=250), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("dag_id", sa.String(length=250)),
        sa.Column("run_id", sa.String(length=250)),
        sa.Column("task_id", sa.String(length=250)),
        sa.Column("map_index", sa.Integer()),
        sa.Column("who", sa.String(length=250), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_dataset_event"),
    )
    op.create_index("ix_dataset_event_dataset", "dataset_event", ["dataset", "id"])
    op.create_table(
        "deadline",
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("run_id", sa.String(length=250), nullable=False),
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("missed_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("dag_id", "run_id", "task_id", name="pk_deadline"),
    )
    op.create_index(
        "ix_deadline_due",
        "deadline",
        ["due_at"],
        sqlite_where=sa.text("missed_at IS NULL"),
        postgresql_where=sa.text("missed_at IS NULL"),
    )
    op.create_index(
        "ix_deadline_missed",
        "deadline",
        ["missed_at"],
        sqlite_where=sa.text("missed_at IS NOT NULL"),
        postgresql_where=sa.text("missed_at IS NOT NULL"),
    )
    op.create_table(
        "notification",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("run_id", sa.String(length=250)),
        sa.Column("task_id", sa.String(length=250)),
        sa.Column("map_index", sa.Integer()),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True)),
        sa.Column("delivered_at", sa.DateTime(timezone=True)),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_notification"),
    )
    op.create_index("ix_notification_by_run", "notification", ["dag_id", "run_id"])
    op.create_index(
        "ix_notification_due",
        "notification",
        ["next_try_at"],
        sqlite_where=sa.text("next_try_at IS NOT NULL"),
        postgresql_where=sa.text("next_try_at IS NOT NULL"),
    )
    op.create_table(
        "result_cache",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("task_id", sa.String(length=250), nullable=False),
        sa.Column("attempt_id", sa.String(length=32), nullable=False),
        sa.Column("value", sa.JSON()),
        sa.Column("has_xcom", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("key", name="pk_result_cache"),
    )
    op.create_index(
        "ix_result_cache_expires",
        "result_cache",
        ["expires_at"],
        sqlite_where=sa.text("expires_at IS NOT NULL"),
        postgresql_where=sa.text("expires_at IS NOT NULL"),
    )
    op.create_index("ix_result_cache_task", "result_cache", ["dag_id", "task_id"])
    op.create_table(
        "dag_run_dataset",
        sa.Column("dag_run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("event_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.ForeignKeyConstraint(
            ["dag_run_id"], ["dag_run.id"], name="fk_dag_run_dataset_dag_run_id_dag_run", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["event_id"], ["dataset_event.id"], name="fk_dag_run_dataset_event_id_dataset_event", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("dag_run_id", "event_id", name="pk_dag_run_dataset"),
    )
    op.create_table(
        "dataset_pending",
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("event_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("dataset", sa.String(length=250), nullable=False),
        sa.ForeignKeyConstraint(
            ["event_id"], ["dataset_event.id"], name="fk_dataset_pending_event_id_dataset_event", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("dag_id", "event_id", name="pk_dataset_pending"),
    )
    op.create_table(
        "approval",
        sa.Column("task_instance_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("default_answer", sa.String(length=16)),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True)),
        sa.Column("answer", sa.String(length=16)),
        sa.Column("answered_at", sa.DateTime(timezone=True)),
        sa.Column("answered_by", sa.String(length=250)),
        sa.Column("comment", sa.Text()),
        sa.ForeignKeyConstraint(
            ["task_instance_id"],
            ["task_instance.id"],
            name="fk_approval_task_instance_id_task_instance",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("task_instance_id", name="pk_approval"),
    )
    op.create_index(
        "ix_approval_open",
        "approval",
        ["asked_at"],
        sqlite_where=sa.text("answer IS NULL"),
        postgresql_where=sa.text("answer IS NULL"),
    )
    op.add_column("attempt", sa.Column("cancel_state", sa.String(length=32)))
    op.add_column("dag", sa.Column("deadline_after", sa.Float()))
    op.add_column("dag", sa.Column("deadline_reference", sa.String(length=32)))
    op.add_column("task_instance", sa.Column("max_per_dag", sa.Integer()))
    op.add_column("task_instance", sa.Column("max_per_run", sa.Integer()))
    op.add_column("task_instance", sa.Column("map_value", sa.JSON()))
    op.add_column("task_instance", sa.Column("cached", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index(
        "ix_dag_run_ended",
        "dag_run",
        ["dag_id", "ended_at"],
        sqlite_where=sa.text("ended_at IS NOT NULL"),
        postgresql_where=sa.text("ended_at IS NOT NULL"),
    )

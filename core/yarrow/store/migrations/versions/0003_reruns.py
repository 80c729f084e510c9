"""Plans, backfills, what people clear and mark, and classes of priority."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "plan",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.Column("runs", sa.JSON(), nullable=False),
        sa.Column("run_count", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("planned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("planned_by", sa.String(length=250), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True)),
        sa.Column("applied_by", sa.String(length=250)),
        sa.PrimaryKeyConstraint("id", name="pk_plan"),
    )
    op.create_index("ix_plan_planned", "plan", ["planned_at"])
    op.create_table(
        "backfill",
        sa.Column("id", _KEY, autoincrement=True, nullable=False),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("plan_id", sa.String(length=32), nullable=False),
        sa.Column("from_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("to_date", sa.DateTime(timezone=True), nullable=False),
        sa.Column("reprocess", sa.String(length=16), nullable=False),
        sa.Column("tasks", sa.Text()),
        sa.Column("params", sa.JSON(), nullable=False),
        sa.Column("max_active_runs", sa.Integer(), nullable=False),
        sa.Column("run_backwards", sa.Boolean(), nullable=False),
        sa.Column("priority_class", sa.Integer(), nullable=False),
        sa.Column("run_count", sa.Integer(), nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("cancelled_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", sa.String(length=250), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_backfill"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_backfill_by_dag", "backfill", ["dag_id", "id"])
    op.add_column("dag_run", sa.Column("fenced_seq", sa.Integer(), server_default="0", nullable=False))
    op.add_column("dag_run", sa.Column("backfill_id", _KEY))
    op.add_column("dag_run", sa.Column("backfill_place", sa.Integer()))
    op.add_column("dag_run", sa.Column("priority_class", sa.Integer(), server_default="0", nullable=False))
    op.create_index(
        "ix_dag_run_backfill",
        "dag_run",
        ["backfill_id", "state", "backfill_place"],
        sqlite_where=sa.text("backfill_id IS NOT NULL"),
        postgresql_where=sa.text("backfill_id IS NOT NULL"),
    )
    op.add_column("task_instance", sa.Column("priority_class", sa.Integer(), server_default="0", nullable=False))
    op.add_column("task_instance", sa.Column("clears", sa.Integer(), server_default="0", nullable=False))
    op.add_column("attempt", sa.Column("overruled", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index("ix_dataset_pending_event", "dataset_pending", ["event_id"])
    op.create_index("ix_dag_run_dataset_event", "dag_run_dataset", ["event_id"])
    op.add_column("dag_version", sa.Column("cut_from", sa.String(length=64)))
    first: list[str | sa.TextClause] = [
        sa.text("priority_class DESC"),
        sa.text("priority_weight DESC"),
        "logical_date",
        "id",
    ]
    _index_anew("dag_run", "ix_dag_run_queued", ["backfill_place", "dag_id", "logical_date", "id"], "state = 'queued'")
    _index_anew(
        "task_instance",
        "ix_task_instance_scheduled",
        [*first, "dag_id", "pool", "queue", "pool_slots"],
        "state = 'scheduled'",
    )
    _index_anew("task_instance", "ix_task_instance_queued", ["queue", *first], "state = 'queued'")


def _index_anew(table: str, name: str, columns: list[str | sa.TextClause], condition: str) -> None:
    op.drop_index(name, table)
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)

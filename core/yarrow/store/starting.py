"""How queued runs are started, within the limits of their DAG or of their backfill."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, exists, func, literal_column, select

from yarrow.states import RunState
from yarrow.store.instances import add_all
from yarrow.store.rows import AnyRow
from yarrow.store.specs import Specs
from yarrow.store.tables import backfill, dag, dag_run, task_instance
from yarrow.store.transitions import (
    CHUNK,
    SCHEDULER,
    chunks,
    move_run,
)

# Partial indexes want these conditions with the word itself, not with a parameter.
_QUEUED = dag_run.c.state == literal_column("'queued'")
_RUNNING = dag_run.c.state == literal_column("'running'")


# A run with a place in the order of a backfill starts within the limit of that, any other within that of its DAG.
OWN = dag_run.c.backfill_place.is_(None)

_STARTED = (
    dag_run.c.id,
    dag_run.c.dag_id,
    dag_run.c.run_id,
    dag_run.c.run_type,
    dag_run.c.version,
    dag_run.c.logical_date,
    dag_run.c.priority_class,
)
_ACTIVE = (
    select(dag_run.c.dag_id, func.count().label("runs")).where(_RUNNING, OWN).group_by(dag_run.c.dag_id).subquery()
)
_WAITING = (
    select(
        *_STARTED,
        dag.c.max_active_runs,
        func.row_number()
        .over(partition_by=dag_run.c.dag_id, order_by=[dag_run.c.logical_date, dag_run.c.id])
        .label("place"),
    )
    .join(dag, dag.c.dag_id == dag_run.c.dag_id)
    .where(_QUEUED, OWN, ~dag.c.is_paused, dag_run.c.run_after <= bindparam("now"))
    .subquery()
)
_STARTABLE = (
    select(*(_WAITING.c[column.name] for column in _STARTED))
    .select_from(_WAITING.outerjoin(_ACTIVE, _ACTIVE.c.dag_id == _WAITING.c.dag_id))
    .where(_WAITING.c.place <= _WAITING.c.max_active_runs - func.coalesce(_ACTIVE.c.runs, 0))
    .order_by(_WAITING.c.logical_date, _WAITING.c.id)
)
_OF_BACKFILL = (dag_run.c.backfill_id == backfill.c.id, dag_run.c.backfill_place.is_not(None))
_BACKFILL_RUNS = select(func.count()).select_from(dag_run).where(*_OF_BACKFILL, _RUNNING).scalar_subquery()
_BACKFILLS_WITH_ROOM = (
    select(backfill.c.id, backfill.c.dag_id, (backfill.c.max_active_runs - _BACKFILL_RUNS).label("room"))
    .join(dag, dag.c.dag_id == backfill.c.dag_id)
    .where(
        backfill.c.cancelled_at.is_(None),
        ~backfill.c.is_paused,
        ~dag.c.is_paused,
        exists().where(*_OF_BACKFILL, _QUEUED),
        backfill.c.max_active_runs > _BACKFILL_RUNS,
    )
    .order_by(backfill.c.id)
)
_NEXT_OF_BACKFILL = (
    select(*_STARTED)
    .where(dag_run.c.backfill_id == bindparam("backfill_id"), dag_run.c.backfill_place.is_not(None), _QUEUED)
    .order_by(dag_run.c.backfill_place)
    .limit(bindparam("room"))
)
_FREE = (
    select(*_STARTED)
    .where(dag_run.c.id.in_(bindparam("ids", expanding=True)), _QUEUED)
    .order_by(dag_run.c.logical_date, dag_run.c.id)
    .with_for_update(skip_locked=True)
)
_WITH_TASKS = (
    select(task_instance.c.dag_run_id)
    .where(task_instance.c.dag_run_id.in_(bindparam("ids", expanding=True)))
    .distinct()
)


def startable(connection: Connection, now: datetime) -> bool:
    """Whether a queued run may start, so that `start` is worth a write transaction."""
    if connection.execute(_STARTABLE, {"now": now}).first() is not None:
        return True
    return connection.execute(_BACKFILLS_WITH_ROOM).first() is not None


def start(connection: Connection, specs: Specs, now: datetime) -> list[int]:
    """Starts the due runs within the limits of their DAG, or of their backfill. Returns their ids.

    Those that a backfill made get their task instances now.
    """
    dag_ids = {row.dag_id for row in connection.execute(_STARTABLE, {"now": now})}
    dag_ids.update(row.dag_id for row in connection.execute(_BACKFILLS_WITH_ROOM))
    for chunk in chunks(sorted(dag_ids), CHUNK):
        # Schedulers look one after the other at the limits of a DAG.
        connection.execute(select(dag.c.dag_id).where(dag.c.dag_id.in_(chunk)).order_by(dag.c.dag_id).with_for_update())
    chosen = [row for row in _within_limits(connection, now) if row.dag_id in dag_ids]
    free: dict[int, AnyRow] = {}
    for chunk in chunks((row.id for row in chosen), CHUNK):
        # One that a person is changing, who may wait for the DAG, starts the next time. One that was changed just
        # before may have another version by now.
        free.update({row.id: row for row in connection.execute(_FREE, {"ids": chunk})})
    moves = (RunState.QUEUED, RunState.RUNNING)
    started = [
        row
        for row in (free[one.id] for one in chosen if one.id in free)
        if move_run(connection, row.id, (row.dag_id, row.run_id), *moves, at=now, who=SCHEDULER, started_at=now)
    ]
    made = [row for row in started if row.run_type == "backfill"]
    for rows in chunks(made, CHUNK):
        complete = set(connection.execute(_WITH_TASKS, {"ids": [row.id for row in rows]}).scalars())
        for row in rows:
            if row.id not in complete:
                add_all(connection, row, specs.get(connection, row.dag_id, row.version))
    return [row.id for row in started]


def may_start(connection: Connection, id: int, now: datetime) -> bool:
    """Whether a run starts as soon as a scheduler looks."""
    return any(row.id == id for row in _within_limits(connection, now))


def _within_limits(connection: Connection, now: datetime) -> list[AnyRow]:
    """The runs that may start now, each backfill's in its order."""
    found = list(connection.execute(_STARTABLE, {"now": now}))
    for one in connection.execute(_BACKFILLS_WITH_ROOM).all():
        found += connection.execute(_NEXT_OF_BACKFILL, {"backfill_id": one.id, "room": one.room})
    return found

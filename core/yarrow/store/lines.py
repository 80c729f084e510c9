"""Where queued runs and scheduled task instances stand in line, in what order they go and what holds them up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, func, literal_column, not_, or_, select, true

from yarrow.explaining.facts import Holder, Share, Slots, Start
from yarrow.protocol import ALL_QUEUES
from yarrow.store import granting, starting, stopping
from yarrow.store.room import Room, TaskRoom
from yarrow.store.rows import AnyRow
from yarrow.store.tables import backfill, dag, dag_run, task_instance

_NAMED = 10
"""How many holders of a limit are named."""

# Partial indexes want these conditions with the words themselves, not with parameters.
_SCHEDULED = task_instance.c.state == literal_column("'scheduled'")
_IN_SLOT = task_instance.c.state.in_([literal_column("'queued'"), literal_column("'running'")])
_RUNNING_RUN = dag_run.c.state == literal_column("'running'")
_QUEUED_RUN = dag_run.c.state == literal_column("'queued'")


# Runs


def start(connection: Connection, run: AnyRow, limit: int, now: datetime) -> Start:
    """What a queued run needs to start.

    Args:
        run: Its row of `dag_run`.
        limit: `max_active_runs` of its DAG.
    """
    row = None
    if run.backfill_place is not None:
        row = connection.execute(select(backfill).where(backfill.c.id == run.backfill_id)).one_or_none()
    if row is None:
        of_line: tuple[ColumnElement[bool], ...] = (dag_run.c.dag_id == run.dag_id, starting.OWN)
        before = or_(
            dag_run.c.logical_date < run.logical_date,
            and_(dag_run.c.logical_date == run.logical_date, dag_run.c.id < run.id),
        )
        in_line: tuple[ColumnElement[bool], ...] = (*of_line, _QUEUED_RUN, dag_run.c.run_after <= now, before)
    else:
        limit = row.max_active_runs
        of_line = (dag_run.c.backfill_id == row.id, dag_run.c.backfill_place.is_not(None))
        in_line = (*of_line, _QUEUED_RUN, dag_run.c.backfill_place < run.backfill_place)
    running = connection.execute(
        select(dag_run.c.run_id, func.count().over())
        .where(*of_line, _RUNNING_RUN)
        .order_by(dag_run.c.logical_date, dag_run.c.id)
        .limit(_NAMED)
    ).all()
    ahead = connection.execute(select(func.count()).select_from(dag_run).where(*in_line)).scalar_one()
    return Start(
        run_after=run.run_after,
        max_active_runs=limit,
        active=running[0][1] if running else 0,
        holders=[run_id for run_id, _ in running],
        place=ahead + 1,
        starts=starting.may_start(connection, run.id, now),
        backfill_id=None if row is None else row.id,
        backfill_is_paused=row is not None and row.is_paused,
    )


# Task instances


def slots(connection: Connection, row: AnyRow, parallelism: int, served: Collection[str], *, is_paused: bool) -> Slots:
    """What a scheduled task instance needs to be queued.

    Args:
        row: As `granting.CANDIDATES` gives it.
        parallelism: As for `grant`.
        served: The queues that have a live worker.
        is_paused: Whether its DAG is paused.
    """
    pools = stopping.pools(connection)
    room = granting.room_now(connection, parallelism, pools, served)
    of_tasks = None
    if row.max_per_dag is not None or row.max_per_run is not None:
        of_tasks = granting.task_room_now(connection, served)
    shares = _shares(row, room, of_tasks, parallelism, pools.get(row.pool, 0))
    pool_fault = stopping.why_unservable(row, pools, None)
    is_served = not granting.is_unserved(row.queue, served)
    goes, short_of = False, None
    if is_served and not is_paused and pool_fault is None and all(share.fits for share in shares):
        chosen, left = granting.would_grant(connection, parallelism, pools, served)
        goes = any(one.id == row.id for one in chosen)
        if not goes:
            remaining = _shares(row, left, left.of_tasks, parallelism, pools.get(row.pool, 0))
            short_of = next((share.name for share in remaining if not share.fits), None)
    ahead = _ahead(connection, row, served)
    return Slots(
        pool=row.pool,
        pool_fault=pool_fault,
        queue=row.queue,
        served=sorted(served),
        queue_is_served=is_served,
        shares=[_with_holders(connection, row, replace(share, ahead=ahead[share.name])) for share in shares],
        ahead=ahead["parallelism"],
        goes_next=goes,
        short_of=short_of,
    )


def _shares(row: AnyRow, room: Room, of_tasks: TaskRoom | None, parallelism: int, pool_slots: int) -> Sequence[Share]:
    """Each limit that concerns a task instance, and what is taken of it."""
    shares = [
        Share("pool", pool_slots - room.left_in_pool(row), pool_slots, row.pool_slots),
        Share("parallelism", parallelism - room.tasks, parallelism),
        Share("max_active_tasks", row.max_active_tasks - room.left_in_dag(row), row.max_active_tasks),
    ]
    if of_tasks is not None and row.max_per_dag is not None:
        used = row.max_per_dag - of_tasks.left_in_dag(row)
        shares.append(Share("max_active_tis_per_dag", used, row.max_per_dag))
    if of_tasks is not None and row.max_per_run is not None:
        used = row.max_per_run - of_tasks.left_in_run(row)
        shares.append(Share("max_active_tis_per_dagrun", used, row.max_per_run))
    return shares


def _of_share(row: AnyRow) -> dict[str, ColumnElement[bool]]:
    """Which task instances a limit is shared with."""
    columns = task_instance.c
    return {
        "parallelism": true(),
        "pool": columns.pool == row.pool,
        "max_active_tasks": columns.dag_id == row.dag_id,
        "max_active_tis_per_dag": and_(columns.dag_id == row.dag_id, columns.task_id == row.task_id),
        "max_active_tis_per_dagrun": and_(columns.dag_run_id == row.dag_run_id, columns.task_id == row.task_id),
    }


def _ahead(connection: Connection, row: AnyRow, served: Collection[str]) -> dict[str, int]:
    """How many stand before a task instance, of those that a live worker may take and whose DAG is not paused."""
    of_share = _of_share(row)
    query = (
        select(*[func.count().filter(condition).label(name) for name, condition in of_share.items()])
        .select_from(task_instance.join(dag, dag.c.dag_id == task_instance.c.dag_id))
        .where(_SCHEDULED, ~dag.c.is_paused, not_(granting.BEHIND), task_instance.c.id != row.id)
    )
    if ALL_QUEUES not in served:
        query = query.where(task_instance.c.queue.in_(sorted(served)))
    counts = connection.execute(query, granting.place_of(row)).one()
    return dict(zip(of_share, counts, strict=True))


def _with_holders(connection: Connection, row: AnyRow, share: Share) -> Share:
    """With those that take of a limit; of the pool always, of others only when there is no room."""
    if not share.used or (share.fits and share.name != "pool"):
        return share
    columns = (task_instance.c.dag_id, dag_run.c.run_id, task_instance.c.task_id, task_instance.c.map_index)
    query = (
        select(*columns, task_instance.c.state, task_instance.c.pool_slots, func.count().over())
        .join(dag_run, dag_run.c.id == task_instance.c.dag_run_id)
        .where(_IN_SLOT, _of_share(row)[share.name])
        .order_by(task_instance.c.queued_at, task_instance.c.id)
        .limit(_NAMED)
    )
    rows = connection.execute(query).all()
    holders = [Holder(*one[:6]) for one in rows]
    return replace(share, holders=holders, holder_count=rows[0][6] if rows else 0)

"""Task instances that are given up: those that nothing can take, and those that somebody stops."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, bindparam, literal_column, or_, select, update

from yarrow.language.durations import format_duration
from yarrow.states import AttemptState, TaskState
from yarrow.store import asking, notifications
from yarrow.store.database import Raced
from yarrow.store.granting import is_unserved
from yarrow.store.rows import AnyRow
from yarrow.store.specs import Specs
from yarrow.store.tables import attempt, dag_run, pool, task_instance
from yarrow.store.transitions import (
    CHUNK,
    SCHEDULER,
    Subject,
    append,
    chunks,
    history_line,
    move_attempt,
    move_task,
    touch_later_runs,
    touch_run,
)

_COLUMNS = (
    task_instance.c.id,
    task_instance.c.dag_run_id,
    task_instance.c.dag_id,
    task_instance.c.task_id,
    task_instance.c.map_index,
    task_instance.c.state,
    task_instance.c.queue,
    task_instance.c.pool,
    task_instance.c.pool_slots,
    dag_run.c.run_id,
    dag_run.c.version,
    dag_run.c.logical_date,
    attempt.c.attempt_id,
    attempt.c.nonce,
    attempt.c.state.label("attempt_state"),
)
_TASKS = select(*_COLUMNS).select_from(
    task_instance.join(dag_run, dag_run.c.id == task_instance.c.dag_run_id).outerjoin(
        attempt, attempt.c.attempt_id == task_instance.c.attempt_id
    )
)
_WAITING = task_instance.c.state.in_([literal_column("'scheduled'"), literal_column("'queued'")])
_OVERDUE = _TASKS.where(task_instance.c.wait_until <= bindparam("now"), _WAITING)
_POSTPONE = update(task_instance).where(
    task_instance.c.id.in_(bindparam("ids", expanding=True)),
    task_instance.c.wait_until <= bindparam("now"),
    _WAITING,
)
_ONE = _TASKS.where(
    task_instance.c.dag_run_id == bindparam("dag_run_id"),
    task_instance.c.task_id == bindparam("task_id"),
    task_instance.c.map_index == bindparam("map_index"),
)
_CANCEL = update(attempt).where(
    attempt.c.attempt_id == bindparam("subject_id"),
    attempt.c.state == AttemptState.RUNNING,
    # The last word of a person counts: one who has cleared or marked it before may want it stopped for good by now.
    # An instance that is not needed any more ends as removed in any case: as failed it would hold up its successors.
    or_(
        attempt.c.cancel_reason.is_(None),
        and_(attempt.c.overruled, attempt.c.cancel_state.not_in([TaskState.FAILED, TaskState.REMOVED])),
    ),
)


def overdue(connection: Connection, now: datetime) -> list[AnyRow]:
    """The scheduled and queued task instances whose deadline has passed."""
    return sorted(connection.execute(_OVERDUE, {"now": now}), key=lambda row: row.id)


def pools(connection: Connection) -> dict[str, int]:
    """The pools and their slots."""
    return {row.name: row.slots for row in connection.execute(select(pool))}


def why_unservable(row: AnyRow, pools: Mapping[str, int], served: Collection[str] | None) -> str | None:
    """The sentence that says why nothing can take this task instance; None when it only has to wait for its turn."""
    if row.pool not in pools:
        known = ", ".join(sorted(pools)) or "none"
        return f"There is no pool {row.pool!r}; the pools are: {known}."
    if row.pool_slots > pools[row.pool]:
        return f"The pool {row.pool!r} has {pools[row.pool]} slots, fewer than the {row.pool_slots} that it takes."
    if is_unserved(row.queue, served):
        return f"No worker serves the queue {row.queue!r}."
    return None


def postpone(connection: Connection, rows: Collection[AnyRow], queued_timeout: float, now: datetime) -> None:
    """Lets these task instances wait on."""
    deadline = now + timedelta(seconds=queued_timeout)
    for chunk in chunks(sorted(row.id for row in rows), CHUNK):
        connection.execute(_POSTPONE.values(wait_until=deadline), {"ids": chunk, "now": now})


def give_up(specs: Specs, queued_timeout: float, now: datetime, row: AnyRow, why: str, connection: Connection) -> bool:
    """Fails a scheduled or queued task instance. Returns False when it has moved meanwhile."""
    touch_run(connection, row.dag_run_id)
    # It may have been cleared, and wait anew, since it was looked at.
    still = connection.execute(_OVERDUE.where(task_instance.c.id == row.id), {"now": now}).one_or_none()
    if still is None:
        return False
    reason = f"{why} It waited for {format_duration(queued_timeout)}."
    return _fail(specs, connection, still, reason=reason, who=SCHEDULER, at=now)


def cancel(
    specs: Specs,
    connection: Connection,
    dag_run_id: int,
    task_id: str,
    map_index: int,
    *,
    who: str,
    reason: str,
    at: datetime,
) -> bool:
    """Stops a task instance: it fails, even if it was being stopped to be cleared or marked otherwise.

    One that succeeds before its worker has stopped it has succeeded, unless it was cleared or marked before.

    Returns:
        Whether there was anything to stop.
    """
    touch_run(connection, dag_run_id)
    names = {"dag_run_id": dag_run_id, "task_id": task_id, "map_index": map_index}
    row = connection.execute(_ONE, names).one_or_none()
    if row is None or row.state.finished:
        return False
    if row.state != TaskState.RUNNING:
        if not _fail(specs, connection, row, reason=reason, who=who, at=at):
            raise Raced
        return True
    wish = {"cancel_reason": reason, "cancel_state": str(TaskState.FAILED)}
    if connection.execute(_CANCEL, {"subject_id": row.attempt_id, **wish}).rowcount != 1:
        return False
    line = history_line(
        "task.cancel",
        at=at,
        who=who,
        dag_id=row.dag_id,
        run_id=row.run_id,
        task_id=row.task_id,
        map_index=row.map_index,
        attempt_id=row.attempt_id,
        reason=reason,
    )
    append(connection, [line])
    return True


def _fail(specs: Specs, connection: Connection, row: AnyRow, *, reason: str, who: str, at: datetime) -> bool:
    """Ends a task instance that does not run as failed, and its attempt, if one is open, as cancelled."""
    touch_run(connection, row.dag_run_id)
    subject = Subject(row.id, row.dag_id, row.run_id, row.task_id, row.map_index, row.attempt_id)
    moved = move_task(
        connection,
        subject,
        row.state,
        TaskState.FAILED,
        at=at,
        who=who,
        reason=reason,
        ended_at=at,
        wait_until=None,
    )
    if not moved:
        return False
    if row.attempt_state in (AttemptState.QUEUED, AttemptState.DEFERRED):
        states = (row.attempt_state, AttemptState.CANCELLED)
        if not move_attempt(connection, row.attempt_id, row.nonce, *states, {"ended_at": at, "reason": reason}):
            raise Raced
    if row.state is TaskState.AWAITING_INPUT:
        asking.close(connection, [row.id])
    spec = specs.get(connection, row.dag_id, row.version)
    touch_later_runs(connection, spec, row.dag_run_id, row.logical_date)
    notifications.task_moved(
        connection,
        spec,
        subject,
        TaskState.FAILED,
        at=at,
        reason=reason,
        dag_run_id=row.dag_run_id,
        logical_date=row.logical_date,
    )
    return True

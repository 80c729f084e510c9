"""Which queued attempts want a message, and what is known of the messages that are out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, literal_column, or_, select, update

from yarrow.states import AttemptState
from yarrow.store.granting import ORDER
from yarrow.store.records import PublishRow
from yarrow.store.rows import AnyRow
from yarrow.store.tables import attempt, dag_run, task_instance
from yarrow.store.transitions import SCHEDULER, append, history_line
from yarrow.tokens import new_nonce

_QUEUED_ATTEMPT = attempt.c.state == literal_column("'queued'")
_QUEUED_TASK = task_instance.c.state == literal_column("'queued'")

_OUTSTANDING = (
    select(attempt.c.queue, func.count())
    .where(_QUEUED_ATTEMPT, attempt.c.dispatch_deadline > bindparam("now"))
    .group_by(attempt.c.queue)
)
_WANTING = (
    select(
        attempt.c.attempt_id,
        attempt.c.nonce,
        attempt.c.published_at,
        task_instance.c.id,
        task_instance.c.priority_class,
        task_instance.c.priority_weight,
        task_instance.c.logical_date,
        task_instance.c.dag_id,
        task_instance.c.task_id,
        task_instance.c.map_index,
        dag_run.c.run_id,
    )
    .select_from(
        task_instance.join(attempt, attempt.c.attempt_id == task_instance.c.attempt_id).join(
            dag_run, dag_run.c.id == task_instance.c.dag_run_id
        )
    )
    .where(
        _QUEUED_TASK,
        task_instance.c.queue == bindparam("queue"),
        or_(attempt.c.published_at.is_(None), attempt.c.dispatch_deadline <= bindparam("now")),
    )
    .order_by(*ORDER)
    .limit(bindparam("room"))
)
_WAITING = (
    select(task_instance.c.queue, func.count())
    .select_from(task_instance.join(attempt, attempt.c.attempt_id == task_instance.c.attempt_id))
    .where(_QUEUED_TASK, or_(attempt.c.published_at.is_(None), attempt.c.dispatch_deadline <= bindparam("now")))
    .group_by(task_instance.c.queue)
)
_RENEW = update(attempt).where(
    attempt.c.attempt_id == bindparam("subject_id"),
    attempt.c.nonce == bindparam("seen_nonce"),
    attempt.c.state == AttemptState.QUEUED,
)
_MARK = _RENEW.values(
    published_at=bindparam("at"),
    dispatch_deadline=bindparam("deadline"),
    dispatch_count=attempt.c.dispatch_count + 1,
)
_DEADLINES = (
    select(attempt.c.dispatch_deadline)
    .where(_QUEUED_ATTEMPT, attempt.c.dispatch_deadline.is_not(None))
    .order_by(attempt.c.dispatch_deadline)
    .limit(1),
    select(attempt.c.lease_until)
    .where(attempt.c.state == literal_column("'running'"), attempt.c.lease_until.is_not(None))
    .order_by(attempt.c.lease_until)
    .limit(1),
    select(task_instance.c.wait_until)
    .where(
        task_instance.c.wait_until.is_not(None),
        task_instance.c.state.in_([literal_column("'scheduled'"), literal_column("'queued'")]),
    )
    .order_by(task_instance.c.wait_until)
    .limit(1),
)


def outstanding(connection: Connection, now: datetime) -> dict[str, int]:
    """By queue, how many messages are out and not overdue."""
    return {row[0]: row[1] for row in connection.execute(_OUTSTANDING, {"now": now})}


def waiting(connection: Connection, now: datetime) -> dict[str, int]:
    """By queue, how many queued attempts want a message."""
    return {row[0]: row[1] for row in connection.execute(_WAITING, {"now": now})}


def wanting(connection: Connection, room: Mapping[str, int], now: datetime) -> list[tuple[str, AnyRow]]:
    """(queue, attempt) of those that want a message, best first across the queues."""
    found = [
        (queue, row)
        for queue, free in room.items()
        if free > 0
        for row in connection.execute(_WANTING, {"queue": queue, "now": now, "room": free})
    ]
    return sorted(found, key=lambda pair: _place(pair[1]))


def _place(row: AnyRow) -> tuple[int, int, datetime, int]:
    return -row.priority_class, -row.priority_weight, row.logical_date, row.id


def renew(connection: Connection, overdue: Sequence[tuple[str, AnyRow]], now: datetime) -> list[PublishRow]:
    """Gives overdue attempts a new nonce. Returns those that are still queued."""
    renewed: list[PublishRow] = []
    lines: list[dict[str, Any]] = []
    for queue, row in sorted(overdue, key=lambda pair: pair[1].attempt_id):
        nonce = new_nonce()
        parameters = {"subject_id": row.attempt_id, "seen_nonce": row.nonce, "nonce": nonce, "published_at": None}
        if connection.execute(_RENEW, {**parameters, "dispatch_deadline": None}).rowcount == 1:
            renewed.append(PublishRow(row.attempt_id, nonce, queue))
            lines.append(_overdue_line(row, now))
    append(connection, lines)
    return renewed


def mark(connection: Connection, rows: Sequence[PublishRow], deadline: datetime, now: datetime) -> None:
    """Notes that messages went out."""
    connection.execute(
        _MARK,
        [{"subject_id": r.attempt_id, "seen_nonce": r.nonce, "at": now, "deadline": deadline} for r in rows],
    )


def next_deadline(connection: Connection) -> datetime | None:
    """The earliest dispatch deadline, lease end or queue deadline."""
    found = [connection.execute(query).scalar() for query in _DEADLINES]
    return min((moment for moment in found if moment is not None), default=None)


def _overdue_line(row: AnyRow, now: datetime) -> dict[str, Any]:
    return history_line(
        "attempt.dispatch",
        at=now,
        who=SCHEDULER,
        dag_id=row.dag_id,
        run_id=row.run_id,
        task_id=row.task_id,
        map_index=row.map_index,
        attempt_id=row.attempt_id,
        reason="No worker took it in time: its message is sent again.",
    )

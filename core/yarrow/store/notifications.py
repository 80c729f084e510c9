"""The outbox: notifications are written in the transaction of what they tell of, and delivered at least once."""

from __future__ import annotations

import builtins
from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, select, update

from yarrow.language.spec import DagSpec
from yarrow.notify import Happening, payload_of, shown_target
from yarrow.states import RunState, TaskState
from yarrow.store.database import Database
from yarrow.store.records import NotificationRecord
from yarrow.store.rows import columns_of
from yarrow.store.tables import notification
from yarrow.store.transitions import SCHEDULER, Subject, append, history_line, plain_text

_INSERT = insert(notification)
_COLUMNS = columns_of(NotificationRecord, notification)
_PENDING = (
    select(*_COLUMNS)
    .where(notification.c.next_try_at.is_not(None), notification.c.target.not_in(bindparam("but", expanding=True)))
    .order_by(notification.c.next_try_at, notification.c.id)
    .limit(bindparam("limit"))
)
_CLAIM = update(notification).where(
    notification.c.id == bindparam("subject_id"),
    notification.c.tries == bindparam("seen_tries"),
    notification.c.next_try_at <= bindparam("now"),
)
_DELIVERED = update(notification).where(
    notification.c.id == bindparam("subject_id"), notification.c.delivered_at.is_(None)
)
_FAILED = update(notification).where(
    notification.c.id == bindparam("subject_id"),
    notification.c.tries == bindparam("seen_tries"),
    notification.c.next_try_at.is_not(None),
)
_LOOK_AT = 100  # of those that are due, in one look


class Notifications:
    """Notifications and how far their delivery is. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self, limit: int, until: datetime, *, but: Collection[str] = (), now: datetime | None = None
    ) -> tuple[builtins.list[NotificationRecord], datetime | None]:
        """Takes over the sending of due notifications, the longest due first, at most one for each target.

        Nobody else gets them before `until`, or ever, should it be reported what became of them.

        Args:
            but: Targets to leave alone.

        Returns:
            At most `limit` notifications, and the moment at which the next one is due when there was none to take.
        """
        at = self._database.now(now)
        parameters = {"but": sorted(but), "limit": _LOOK_AT}
        found = self._database.read(lambda connection: connection.execute(_PENDING, parameters).all())
        pending = [NotificationRecord(*row) for row in found]
        wanted: dict[str, NotificationRecord] = {}
        for record in pending:
            if record.next_try_at is not None and record.next_try_at <= at and len(wanted) < limit:
                wanted.setdefault(record.target, record)
        if not wanted:
            return [], pending[0].next_try_at if pending else None
        chosen = sorted(wanted.values(), key=lambda record: record.id)

        def work(connection: Connection) -> builtins.list[NotificationRecord]:
            return [record for record in chosen if _claim(connection, record, until, at)]

        return self._database.write(work), None

    def delivered(self, record: NotificationRecord, now: datetime | None = None) -> None:
        """Notes that one has arrived. That is true whoever has sent it."""
        at = self._database.now(now)
        parameters = {"subject_id": record.id, "delivered_at": at, "next_try_at": None, "error": None}
        self._database.write(lambda connection: connection.execute(_DELIVERED, parameters))

    def failed(
        self, record: NotificationRecord, error: str, again_at: datetime | None, now: datetime | None = None
    ) -> bool:
        """Notes why one that was claimed has not arrived.

        Args:
            again_at: When to try again; None gives it up, which the history records.

        Returns:
            False, and changes nothing, when somebody else has claimed or delivered it since.
        """
        at = self._database.now(now)
        reason = plain_text(error)
        parameters = {
            "subject_id": record.id,
            "seen_tries": record.tries + 1,
            "next_try_at": again_at,
            "error": reason,
        }

        def work(connection: Connection) -> bool:
            if connection.execute(_FAILED, parameters).rowcount != 1:
                return False
            if again_at is None:
                append(connection, [_given_up(record, reason, at)])
            return True

        return self._database.write(work)

    def list(
        self, *, failed: bool = False, dag_id: str | None = None, limit: int = 50
    ) -> builtins.list[NotificationRecord]:
        """Notifications, newest first.

        Args:
            failed: Only those that have not been delivered although it was tried.
        """
        query = select(*_COLUMNS).order_by(notification.c.id.desc()).limit(limit)
        if failed:
            query = query.where(notification.c.delivered_at.is_(None), notification.c.error.is_not(None))
        if dag_id is not None:
            query = query.where(notification.c.dag_id == dag_id)
        return self._database.read(lambda connection: [NotificationRecord(*row) for row in connection.execute(query)])


def task_moved(
    connection: Connection,
    spec: DagSpec,
    subject: Subject,
    to_state: TaskState,
    *,
    at: datetime,
    reason: str | None,
    dag_run_id: int,
    logical_date: datetime,
    try_number: int | None = None,
    max_tries: int | None = None,
    next_try_at: datetime | None = None,
) -> None:
    """Writes down whom to tell that a task instance has moved, if anybody: call it where the move is made."""
    kind = TASK_KINDS.get(to_state)
    if kind is None or subject.task_id not in spec.tasks:
        return
    targets = task_targets(spec, subject.task_id, to_state)
    if targets:
        happening = Happening(
            kind=kind,
            dag_id=subject.dag_id,
            run_id=subject.run_id,
            task_id=subject.task_id,
            map_index=subject.map_index,
            dag_run_id=dag_run_id,
            state=str(to_state),
            at=at,
            logical_date=logical_date,
            try_number=try_number,
            max_tries=max_tries,
            next_try_at=next_try_at,
            reason=reason,
        )
        write_down(connection, happening, targets)


def run_moved(
    connection: Connection,
    spec: DagSpec,
    run_id: str,
    to_state: RunState,
    *,
    at: datetime,
    reason: str | None,
    dag_run_id: int,
    logical_date: datetime,
) -> None:
    """Writes down whom to tell that a run has ended, if anybody: call it where the move is made."""
    kinds = {RunState.SUCCESS: ("success", spec.on_success), RunState.FAILED: ("failure", spec.on_failure)}
    kind, targets = kinds.get(to_state, ("", ()))
    if targets:
        happening = Happening(
            kind=kind,
            dag_id=spec.dag_id,
            run_id=run_id,
            dag_run_id=dag_run_id,
            state=str(to_state),
            at=at,
            logical_date=logical_date,
            reason=reason,
        )
        write_down(connection, happening, targets)


TASK_KINDS = {TaskState.SUCCESS: "success", TaskState.FAILED: "failure", TaskState.UP_FOR_RETRY: "retry"}
"""The kind of notification that the move of a task instance is worth."""


def task_targets(spec: DagSpec, task_id: str, to_state: TaskState) -> tuple[str, ...]:
    """Whom the DAG wants told when a task instance gets into a state."""
    task = spec.tasks.get(task_id)
    if task is None:
        return ()
    match to_state:
        case TaskState.SUCCESS:
            return task.on_success
        case TaskState.FAILED:
            return task.on_failure
        case TaskState.UP_FOR_RETRY:
            return task.on_retry + spec.on_retry
    return ()


def write_down(connection: Connection, happening: Happening, targets: Iterable[str]) -> None:
    """Adds one notification for each target to the outbox; each is due at once."""
    payload = payload_of(happening)
    rows = [
        {
            "kind": happening.kind,
            "target": target,
            "dag_id": happening.dag_id,
            "run_id": happening.run_id,
            "task_id": happening.task_id,
            "map_index": happening.map_index if happening.task_id is not None else None,
            "payload": payload,
            "created_at": happening.at,
            "tries": 0,
            "next_try_at": happening.at,
        }
        for target in dict.fromkeys(targets)
    ]
    connection.execute(_INSERT, rows)


def _claim(connection: Connection, record: NotificationRecord, until: datetime, at: datetime) -> bool:
    parameters = {
        "subject_id": record.id,
        "seen_tries": record.tries,
        "now": at,
        "tries": record.tries + 1,
        "next_try_at": until,
    }
    return connection.execute(_CLAIM, parameters).rowcount == 1


def _given_up(record: NotificationRecord, reason: str | None, at: datetime) -> dict[str, object]:
    return history_line(
        "notification.given_up",
        at=at,
        who=SCHEDULER,
        dag_id=record.dag_id,
        run_id=record.run_id,
        task_id=record.task_id,
        map_index=record.map_index,
        reason=f"{record.kind} to {shown_target(record.target)}, {record.tries + 1} tries: {reason}",
    )

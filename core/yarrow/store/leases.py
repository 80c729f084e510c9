"""Leases: renewed by heartbeats, and what happens when they run out."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, literal_column, select, update

from yarrow.protocol import Heartbeat, Report, RunningAttempt
from yarrow.states import AttemptState
from yarrow.store.database import Database, upsert
from yarrow.store.finishing import Limits, end, lock_run, read
from yarrow.store.specs import Specs
from yarrow.store.tables import attempt, worker
from yarrow.store.transitions import CHUNK, SCHEDULER, chunks

_RENEW = (
    update(attempt)
    .where(
        attempt.c.attempt_id.in_(bindparam("ids", expanding=True)),
        attempt.c.worker_id == bindparam("holder"),
        attempt.c.state == AttemptState.RUNNING,
    )
    .values(lease_until=bindparam("until"))
    .returning(attempt.c.attempt_id, attempt.c.cancel_reason)
)
_OTHERS = select(attempt.c.attempt_id, attempt.c.state, attempt.c.worker_id, attempt.c.reason).where(
    attempt.c.attempt_id.in_(bindparam("ids", expanding=True))
)
_PROGRESS = update(attempt).where(
    attempt.c.attempt_id == bindparam("subject_id"), attempt.c.state == AttemptState.RUNNING
)
_EXPIRED = (
    select(attempt.c.attempt_id)
    .where(attempt.c.state == literal_column("'running'"), attempt.c.lease_until < bindparam("now"))
    .order_by(attempt.c.lease_until)
    .limit(bindparam("limit"))
)
_HOLD = select(attempt.c.attempt_id).where(attempt.c.attempt_id == bindparam("attempt_id")).with_for_update()


def beat(database: Database, connection: Connection, heartbeat: Heartbeat, lease: float) -> dict[str, str]:
    """Records a heartbeat. Returns attempt_id -> reason for those that the worker must stop."""
    now = database.lease_now(connection)
    connection.execute(upsert(database, worker, [worker.c.worker_id], keep=["started_at"]), _worker_row(heartbeat, now))
    ids = sorted({running.attempt_id for running in heartbeat.attempts})
    until = now + timedelta(seconds=lease)
    cancelled: dict[str, str | None] = {}
    for chunk in chunks(ids, CHUNK):
        parameters = {"ids": chunk, "holder": heartbeat.worker_id, "until": until}
        cancelled |= {row.attempt_id: row.cancel_reason for row in connection.execute(_RENEW, parameters)}
    progress = [
        {"subject_id": running.attempt_id, "progress": _progress(running)}
        for running in heartbeat.attempts
        if running.done is not None and running.attempt_id in cancelled
    ]
    if progress:
        connection.execute(_PROGRESS, progress)
    stop = {attempt_id: reason for attempt_id, reason in cancelled.items() if reason is not None}
    return stop | _not_held(connection, [attempt_id for attempt_id in ids if attempt_id not in cancelled])


def _not_held(connection: Connection, ids: Collection[str]) -> dict[str, str]:
    """Why these attempts are not the worker's."""
    stop = dict.fromkeys(ids, "The attempt is not known here.")
    for chunk in chunks(sorted(ids), CHUNK):
        for row in connection.execute(_OTHERS, {"ids": chunk}):
            if row.state.finished:
                why = f": {row.reason}" if row.reason else "."
                stop[row.attempt_id] = f"The attempt has ended as {row.state}{why}"
            elif row.state is AttemptState.DEFERRED:
                stop[row.attempt_id] = "The attempt has been put off; nobody executes it now."
            else:
                stop[row.attempt_id] = "The attempt belongs to another worker."
    return stop


def _worker_row(heartbeat: Heartbeat, now: datetime) -> dict[str, Any]:
    return {
        "worker_id": heartbeat.worker_id,
        "hostname": heartbeat.hostname,
        "pid": heartbeat.pid,
        "queues": list(heartbeat.queues),
        "slots": heartbeat.slots,
        "version": heartbeat.version,
        "stopping": heartbeat.stopping,
        "started_at": now,
        "seen_at": now,
    }


def _progress(running: RunningAttempt) -> dict[str, Any]:
    return {"done": running.done, "total": running.total, "unit": running.unit}


def expired(database: Database, connection: Connection, not_before: datetime | None, limit: int) -> list[str]:
    """The running attempts whose lease has run out, if it is time to judge."""
    now = database.lease_now(connection)
    if not_before is not None and now < not_before:
        return []
    return list(connection.execute(_EXPIRED, {"now": now, "limit": limit}).scalars())


def expire(database: Database, specs: Specs, limits: Limits, attempt_id: str, connection: Connection) -> bool:
    """Declares one attempt lost, unless it has been renewed or has ended meanwhile."""
    # A worker may be heard of while this waits for the run, or between the look and the move.
    lock_run(connection, attempt_id)
    connection.execute(_HOLD, {"attempt_id": attempt_id})
    now = database.lease_now(connection)
    row = read(connection, attempt_id)
    if row is None or row.attempt_state != AttemptState.RUNNING or row.lease_until >= now:
        return False
    reason = f"Worker {row.worker_id} was not heard of any more; its lease ran out at {row.lease_until:%H:%M:%S} UTC."
    report = Report(attempt_id=attempt_id, state=AttemptState.LOST, reason=reason)
    end(database, specs, connection, row, report, limits=limits, who=SCHEDULER, at=now)
    return True

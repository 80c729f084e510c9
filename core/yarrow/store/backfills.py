"""Backfills that have begun: how far they are, and how people hold them up or end them."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    literal_column,
    or_,
    select,
    update,
)

from yarrow.errors import Conflict, NotFound
from yarrow.states import RunState
from yarrow.store.database import Database
from yarrow.store.records import BackfillRecord
from yarrow.store.rows import AnyRow, columns_of
from yarrow.store.tables import backfill, dag, dag_run, plan, task_instance
from yarrow.store.transitions import (
    CHUNK,
    append,
    chunks,
    history_line,
    plain_text,
    run_event,
    touch_all_later_runs,
)

NEWEST_RUNS = 50
"""How many of the runs that ended last tell the pace."""

_BACKFILL = select(*columns_of(BackfillRecord, backfill))
_ID: BindParameter[Any] = bindparam("id")
_ACTIVE_RUNS = (
    dag_run.c.backfill_id == backfill.c.id,
    dag_run.c.backfill_place.is_not(None),
    dag_run.c.state.in_([literal_column("'queued'"), literal_column("'running'")]),
)
_COUNTS = (
    select(dag_run.c.state, dag_run.c.backfill_place.is_not(None), func.count())
    .where(dag_run.c.backfill_id == _ID)
    .group_by(dag_run.c.state, dag_run.c.backfill_place.is_not(None))
)
_ENDED = (
    select(dag_run.c.started_at, dag_run.c.ended_at)
    .where(
        dag_run.c.backfill_id == _ID,
        dag_run.c.state.in_([literal_column("'success'"), literal_column("'failed'")]),
        dag_run.c.started_at >= bindparam("created_at"),
        dag_run.c.ended_at.is_not(None),
    )
    .order_by(dag_run.c.ended_at.desc())
    .limit(NEWEST_RUNS)
)
_ESTIMATE = select(plan.c.document["estimate"]["seconds"].as_float()).where(plan.c.id == bindparam("plan_id"))
_DAG_ID = select(backfill.c.dag_id).where(backfill.c.id == _ID)
_LOCK_DAG = select(dag.c.dag_id).where(dag.c.dag_id == bindparam("dag_id")).with_for_update()
_SET_PAUSED = update(backfill).where(backfill.c.id == bindparam("subject_id")).values(is_paused=bindparam("paused"))
_CANCEL = update(backfill).where(backfill.c.id == bindparam("subject_id")).values(cancelled_at=bindparam("at"))
_QUEUED = (
    select(
        dag_run.c.id,
        dag_run.c.dag_id,
        dag_run.c.run_id,
        dag_run.c.logical_date,
        (dag_run.c.run_type == "backfill").label("made"),
        exists().where(task_instance.c.dag_run_id == dag_run.c.id).label("has_tasks"),
    )
    .where(
        dag_run.c.backfill_id == _ID,
        dag_run.c.backfill_place.is_not(None),
        dag_run.c.state == literal_column("'queued'"),
    )
    .order_by(dag_run.c.logical_date, dag_run.c.id)
    .with_for_update(of=dag_run)
)
_THESE = dag_run.c.id.in_(bindparam("ids", expanding=True))
_DELETE = delete(dag_run).where(_THESE)
_END = (
    update(dag_run)
    .where(_THESE)
    .values(
        state=RunState.FAILED,
        ended_at=bindparam("at"),
        reason=bindparam("why"),
        wait_until=None,
        change_seq=dag_run.c.change_seq + 1,
        fenced_seq=dag_run.c.change_seq + 1,
        decided_seq=dag_run.c.change_seq + 1,
    )
)
# With all that run of its DAG: the later ones of them may be decided on again.
_LOCK_ACTIVE = (
    select(dag_run.c.id)
    .where(
        dag_run.c.dag_id == select(backfill.c.dag_id).where(backfill.c.id == _ID).scalar_subquery(),
        or_(
            dag_run.c.state == literal_column("'running'"),
            and_(dag_run.c.state == literal_column("'queued'"), dag_run.c.backfill_id == _ID),
        ),
    )
    .order_by(dag_run.c.logical_date, dag_run.c.id)
    .with_for_update()
)
_LEAVE = (
    update(dag_run)
    .where(dag_run.c.backfill_id == bindparam("subject_id"), dag_run.c.state == literal_column("'running'"))
    .values(backfill_place=None)
)


class Backfills:
    """Backfills. A plan begins one: `Plans.apply`. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, dag_id: str | None = None, active_only: bool = False) -> builtins.list[BackfillRecord]:
        """Backfills, the newest first.

        Args:
            dag_id: Only those of this DAG.
            active_only: Only those that have runs left and were not cancelled.
        """
        query = _BACKFILL.order_by(backfill.c.id.desc())
        if dag_id is not None:
            query = query.where(backfill.c.dag_id == dag_id)
        if active_only:
            query = query.where(backfill.c.cancelled_at.is_(None), exists().where(*_ACTIVE_RUNS))
        return self._database.read(lambda connection: _records(connection, query))

    def get(self, id: int) -> BackfillRecord:
        """The backfill with that id. Raises NotFound."""
        return self._database.read(lambda connection: _record(connection, id))

    def pause(self, id: int, who: str, now: datetime | None = None) -> BackfillRecord:
        """Has its queued runs not start until it is resumed; those that run go on.

        Raises:
            NotFound: There is no such backfill.
            Conflict: It is paused already, or over.
        """
        return self._set_paused(id, True, who, self._database.now(now))

    def resume(self, id: int, who: str, now: datetime | None = None) -> BackfillRecord:
        """Has its queued runs start again. Raises as `pause` does."""
        return self._set_paused(id, False, who, self._database.now(now))

    def cancel(self, id: int, who: str, reason: str | None = None, now: datetime | None = None) -> BackfillRecord:
        """Ends a backfill. What runs goes on, within the limit of its DAG from now on.

        Of its queued runs those that it made are deleted, and those that were to run again end as failed: they can be
        cleared like any other run.

        Raises:
            NotFound: There is no such backfill.
            Conflict: It is over.
        """
        at = self._database.now(now)

        def work(connection: Connection) -> BackfillRecord:
            connection.execute(_LOCK_ACTIVE, {"id": id})  # before their DAG, as whoever ends or takes over one does
            record = _locked(connection, id)
            _refuse_if_over(record, "cancelled")
            connection.execute(_CANCEL, {"subject_id": id, "at": at})
            queued = connection.execute(_QUEUED, {"id": id}).all()
            _delete(connection, [run for run in queued if run.made and not run.has_tasks], id, who, at)
            _end(connection, [run for run in queued if not run.made or run.has_tasks], id, who, reason, at)
            connection.execute(_LEAVE, {"subject_id": id})
            append(connection, [_line("backfill.cancelled", record, who, at, reason)])
            return _record(connection, id)

        return self._database.write(work)

    def _set_paused(self, id: int, paused: bool, who: str, at: datetime) -> BackfillRecord:
        word = "paused" if paused else "resumed"

        def work(connection: Connection) -> BackfillRecord:
            record = _locked(connection, id)
            _refuse_if_over(record, word)
            if record.is_paused == paused:
                raise Conflict(f"The backfill {id} is {'paused already' if paused else 'not paused'}.")
            connection.execute(_SET_PAUSED, {"subject_id": id, "paused": paused})
            append(connection, [_line(f"backfill.{word}", record, who, at, None)])
            return _record(connection, id)

        return self._database.write(work)


# Reading


def _record(connection: Connection, id: int) -> BackfillRecord:
    found = _records(connection, _BACKFILL.where(backfill.c.id == id))
    if not found:
        raise NotFound(f"There is no backfill {id}.", hint="`yarrow backfill list` shows those that there are.")
    return found[0]


def _records(connection: Connection, query: Select[Any]) -> builtins.list[BackfillRecord]:
    return [_counted(connection, BackfillRecord(*row)) for row in connection.execute(query).all()]


def _counted(connection: Connection, record: BackfillRecord) -> BackfillRecord:
    """The record with what the runs tell. One that was cleared later, and has no place any more, is not left to do."""
    counts: dict[str, int] = {}
    left = 0
    for state, has_place, count in connection.execute(_COUNTS, {"id": record.id}):
        counts[str(state)] = counts.get(str(state), 0) + count
        if has_place and not state.finished:
            left += count
    counted = replace(record, counts=counts, left=left)
    if counted.state not in ("queued", "running"):
        return counted
    return replace(counted, eta=_eta(connection, counted))


def _eta(connection: Connection, record: BackfillRecord) -> float | None:
    """Seconds, from how long the runs take that ended last; while there are none, from the estimate of the plan.

    So many runs at once as there may be go through in the time that one of them takes on the average, waiting
    included. A pause counts for nothing.
    """
    parameters = {"id": record.id, "created_at": record.created_at}
    took: builtins.list[float] = [
        (end - start).total_seconds() for start, end in connection.execute(_ENDED, parameters)
    ]
    if took:
        left = record.left - record.counts.get(RunState.RUNNING, 0) / 2  # those that run are half through
        return round(sum(took) / len(took) * max(left / record.max_active_runs, 0.5), 3)
    whole = connection.execute(_ESTIMATE, {"plan_id": record.plan_id}).scalar()
    return None if whole is None else round(float(whole) * record.left / max(record.run_count, 1), 3)


# Changing


def _locked(connection: Connection, id: int) -> BackfillRecord:
    """The backfill, while no run of its DAG starts. Raises NotFound."""
    dag_id = connection.execute(_DAG_ID, {"id": id}).scalar()
    if dag_id is not None:
        connection.execute(_LOCK_DAG, {"dag_id": dag_id})
    return _record(connection, id)


def _refuse_if_over(record: BackfillRecord, word: str) -> None:
    if record.state in ("cancelled", "completed"):
        raise Conflict(f"The backfill {record.id} is {record.state}: it can't be {word} any more.")


def _delete(connection: Connection, runs: Sequence[AnyRow], id: int, who: str, at: datetime) -> None:
    """Deletes runs that never started: they have no task instances."""
    for chunk in chunks((run.id for run in runs), CHUNK):
        connection.execute(_DELETE, {"ids": chunk})
    reason = f"The backfill {id} was cancelled before it started."
    append(
        connection,
        [
            history_line("run.deleted", at=at, who=who, dag_id=run.dag_id, run_id=run.run_id, reason=reason)
            for run in runs
        ],
    )


def _end(connection: Connection, runs: Sequence[AnyRow], id: int, who: str, reason: str | None, at: datetime) -> None:
    """Ends runs that were to run again, as failed."""
    why = plain_text(f"The backfill {id} was cancelled by {who} before it ran again{f': {reason}' if reason else '.'}")
    for chunk in chunks((run.id for run in runs), CHUNK):
        connection.execute(_END, {"ids": chunk, "at": at, "why": why})
    moves = (RunState.QUEUED, RunState.FAILED)
    append(connection, [run_event((run.dag_id, run.run_id), *moves, at, who, why) for run in runs])
    if runs:  # while they were queued, later runs looked past them
        touch_all_later_runs(connection, runs[0].dag_id, runs[0].id, runs[0].logical_date)


def _line(kind: str, record: BackfillRecord, who: str, at: datetime, reason: str | None) -> Mapping[str, Any]:
    text = f"backfill {record.id}: {reason}" if reason else f"backfill {record.id}"
    return history_line(kind, at=at, who=who, dag_id=record.dag_id, reason=plain_text(text))

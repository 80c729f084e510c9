"""How an attempt ends or is put off, and what becomes of its task instance then."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from yarrow.errors import Refused
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.protocol import Report
from yarrow.states import AttemptState, TaskState
from yarrow.store import cache, notifications, outlets
from yarrow.store.cache import is_key
from yarrow.store.database import Database, Raced, dump_json
from yarrow.store.instances import blank_columns, limit_columns
from yarrow.store.rows import AnyRow
from yarrow.store.specs import Specs
from yarrow.store.tables import attempt, dag_run, task_instance, xcom
from yarrow.store.transitions import (
    Subject,
    Wish,
    move_attempt,
    move_task,
    plain_text,
    touch_later_runs,
    touch_later_versions,
    touch_run,
)
from yarrow.verdict import Verdict, resume_moment, verdict

_READ = (
    select(
        attempt.c.attempt_id,
        attempt.c.nonce,
        attempt.c.try_number,
        attempt.c.state.label("attempt_state"),
        attempt.c.worker_id,
        attempt.c.lease_until,
        attempt.c.cancel_reason,
        attempt.c.cancel_state,
        attempt.c.overruled,
        task_instance.c.id,
        task_instance.c.dag_run_id,
        task_instance.c.dag_id,
        task_instance.c.task_id,
        task_instance.c.map_index,
        task_instance.c.state.label("task_state"),
        task_instance.c.attempt_id.label("newest_attempt_id"),
        task_instance.c.max_tries,
        task_instance.c.infra_losses,
        task_instance.c.clears,
        dag_run.c.run_id,
        dag_run.c.version,
        dag_run.c.logical_date,
    )
    .select_from(attempt.join(task_instance).join(dag_run))
    .where(attempt.c.attempt_id == bindparam("attempt_id"))
)
_LOCK_RUN = (
    select(dag_run.c.id)
    .select_from(attempt.join(task_instance).join(dag_run))
    .where(attempt.c.attempt_id == bindparam("attempt_id"))
    .with_for_update(of=dag_run)
)
_ADD_XCOM = insert(xcom)
_REPORTED = {str(state) for state in AttemptState if state.finished or state is AttemptState.DEFERRED}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a task instance may cost before it is given up."""

    infra_budget: int
    queued_timeout: float  # seconds


def read(connection: Connection, attempt_id: str) -> AnyRow | None:
    """The attempt with its task instance and run, as `end` and `verdict` want it."""
    return connection.execute(_READ, {"attempt_id": attempt_id}).one_or_none()


def lock_run(connection: Connection, attempt_id: str) -> None:
    """Waits for the run of an attempt: whoever stops, clears or marks anything in it has it locked."""
    connection.execute(_LOCK_RUN, {"attempt_id": attempt_id})


def finish(
    database: Database,
    specs: Specs,
    connection: Connection,
    report: Report,
    nonce: str,
    worker_id: str,
    *,
    limits: Limits,
    at: datetime,
) -> tuple[bool, TaskState]:
    """Accepts a report. Returns (repeated, state of the task instance). Raises Refused."""
    row = read(connection, report.attempt_id)
    if row is None:
        raise Refused(f"There is no attempt {report.attempt_id}.")
    if row.nonce != nonce:
        raise Refused(f"The attempt {report.attempt_id} was given to another worker meanwhile.")
    report = sound(report, at)
    state = AttemptState(report.state)
    if row.attempt_state == state or (state is AttemptState.DEFERRED and _stopped_instead(row)):
        return True, row.task_state
    if row.attempt_state != AttemptState.RUNNING or row.newest_attempt_id != report.attempt_id:
        raise Refused(f"The attempt {report.attempt_id} is {row.attempt_state}: its report of {state} comes too late.")
    found = end(database, specs, connection, row, report, limits=limits, who=f"worker {worker_id}", at=at)
    return False, found


def end(
    database: Database,
    specs: Specs,
    connection: Connection,
    row: AnyRow,
    report: Report,
    *,
    limits: Limits,
    who: str,
    at: datetime,
) -> TaskState:
    """Ends or puts off a running attempt as reported. Returns the state of its task instance. Raises Raced."""
    spec = specs.get(connection, row.dag_id, row.version)
    judged = _judge(row, report, spec, limits, at)
    subject = Subject(row.id, row.dag_id, row.run_id, row.task_id, row.map_index, row.attempt_id)
    touch_run(connection, row.dag_run_id)
    moved = move_task(
        connection,
        subject,
        TaskState.RUNNING,
        judged.state,
        at=at,
        who=who,
        reason=judged.reason,
        by_person=row.overruled,
        **_task_values(judged, report, spec, row, at),
    )
    states = (AttemptState.RUNNING, judged.attempt_state)
    changes = _attempt_values(judged, report, at)
    wish = Wish(row.cancel_reason, row.cancel_state, row.overruled)
    if not moved or not move_attempt(connection, row.attempt_id, row.nonce, *states, changes, wish=wish):
        raise Raced
    if not row.overruled:
        _stand(database, connection, row, report, spec, judged, subject, at)
    elif judged.state.finished:
        touch_later_runs(connection, spec, row.dag_run_id, row.logical_date)
        # Its run may be over already, so that no end of it tells those of other versions.
        touch_later_versions(connection, row.dag_id, row.version, row.dag_run_id, row.logical_date)
    return judged.state


def _stand(
    database: Database,
    connection: Connection,
    row: AnyRow,
    report: Report,
    spec: DagSpec,
    judged: Verdict,
    subject: Subject,
    at: datetime,
) -> None:
    """What comes of the end of an attempt that counts: its XCom, what it publishes, and that people are told."""
    if judged.state is TaskState.SUCCESS and report.has_xcom:
        connection.execute(_ADD_XCOM, {"attempt_id": row.attempt_id, "value": report.xcom})
    notifications.task_moved(
        connection,
        spec,
        subject,
        judged.state,
        at=at,
        reason=judged.reason,
        dag_run_id=row.dag_run_id,
        logical_date=row.logical_date,
        try_number=row.try_number,
        max_tries=row.max_tries,
        next_try_at=judged.wait_until,
    )
    if judged.state.finished:
        touch_later_runs(connection, spec, row.dag_run_id, row.logical_date)
    if judged.state is TaskState.SUCCESS:
        _keep_result(database, connection, row, report, spec.tasks[row.task_id], at)
        outlets.publish(database, connection, spec, subject, at)


def _stopped_instead(row: AnyRow) -> bool:
    """Whether an attempt that was overruled has ended as cancelled, as it does when it is reported as put off."""
    return bool(row.attempt_state == AttemptState.CANCELLED and row.overruled)


def _judge(row: AnyRow, report: Report, spec: DagSpec, limits: Limits, at: datetime) -> Verdict:
    return verdict(
        spec.tasks.get(row.task_id),
        report,
        dag_id=row.dag_id,
        logical_date=row.logical_date,
        map_index=row.map_index,
        try_number=row.try_number,
        max_tries=row.max_tries,
        at=at,
        cancel_reason=row.cancel_reason,
        cancel_state=None if row.cancel_state is None else TaskState(row.cancel_state),
        overruled=row.overruled,
        infra_losses=row.infra_losses,
        infra_budget=limits.infra_budget,
        queued_timeout=limits.queued_timeout,
    )


def _task_values(judged: Verdict, report: Report, spec: DagSpec, row: AnyRow, at: datetime) -> dict[str, Any]:
    """The columns of the task instance that go with its move."""
    if judged.state is TaskState.NONE:  # it was cleared, perhaps into another version of the DAG
        tries = {
            "try_number": judged.try_number,
            "max_tries": judged.try_number + spec.tasks[row.task_id].retries + 1,
            "clears": row.clears + 1,
        }
        return {**blank_columns(), **limit_columns(spec, row.task_id), **tries}
    values: dict[str, Any] = {
        "try_number": judged.try_number,
        "infra_losses": judged.infra_losses,
        "wait_until": judged.wait_until,
        "ended_at": None if judged.state is TaskState.UP_FOR_RESCHEDULE else at,
    }
    if row.overruled:
        values["follow"] = None
    elif judged.state is TaskState.SUCCESS:
        values["follow"] = None if judged.follow is None else list(judged.follow)
        values["cached"] = report.cached
    if judged.state is TaskState.SCHEDULED:
        values["scheduled_at"] = at
    return values


def _attempt_values(judged: Verdict, report: Report, at: datetime) -> dict[str, Any]:
    """The columns of the attempt that go with its move. One that is put off keeps what it has, for people."""
    values: dict[str, Any] = {
        "ended_at": at if judged.attempt_state.finished else None,
        "lease_until": None,
        "reason": report.reason,
    }
    if report.metrics:
        values["metrics"] = dict(report.metrics)
    return values


def _keep_result(
    database: Database, connection: Connection, row: AnyRow, report: Report, task: TaskSpec, at: datetime
) -> None:
    """Keeps the result of a success for later runs."""
    if task.cache is not None and report.cache_key is not None and not report.cached:
        cache.keep(database, connection, report, row.dag_id, row.task_id, task.cache.ttl, at)


def sound(report: Report, at: datetime) -> Report:
    """The report, made fit for the store: what is not JSON, or no moment, fails the task, once and for all.

    Raises Refused for a state that no worker may report.
    """
    if report.state not in _REPORTED:
        raise Refused(f"An attempt can't end as {report.state!r}, only as {', '.join(sorted(_REPORTED))}.")
    changes: dict[str, Any] = {
        "metrics": {name: _finite(value) for name, value in report.metrics.items()},
        "reason": plain_text(report.reason),
    }
    if report.cache_key is not None and not is_key(report.cache_key):
        changes["cache_key"] = None
    if (fault := _fault(report, at)) is not None:
        changes |= {"state": AttemptState.FAILED, "reason": fault, "retryable": False, "has_xcom": False}
    return dataclasses.replace(report, **changes)


def _fault(report: Report, at: datetime) -> str | None:
    """The sentence that says what in the report can't be stored."""
    if report.state == AttemptState.SUCCESS and report.has_xcom:
        try:
            dump_json(report.xcom)
        except (TypeError, ValueError, RecursionError) as error:
            return plain_text(f"Its result can't be passed on, for it is not JSON: {error}")
    if report.state == AttemptState.DEFERRED:
        try:
            resume_moment(report, at)
        except ValueError as error:
            return plain_text(f"It can't be put off until {report.resume_at!r:.80}: {error}.")
    return None


def _finite(value: Json) -> Json:
    return None if isinstance(value, float) and not math.isfinite(value) else value

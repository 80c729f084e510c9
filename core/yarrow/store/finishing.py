"""How an attempt ends, and what that means for its task instance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select

from yarrow.errors import Refused
from yarrow.jsontypes import Json
from yarrow.language.spec import TaskSpec
from yarrow.protocol import Report
from yarrow.retries import retry_delay
from yarrow.states import AttemptState, TaskState
from yarrow.store.database import Raced, dump_json
from yarrow.store.rows import AnyRow
from yarrow.store.specs import Specs
from yarrow.store.tables import attempt, dag_run, task_instance, xcom
from yarrow.store.transitions import Subject, move_attempt, move_task, plain_text, touch_run

_READ = (
    select(
        attempt.c.attempt_id,
        attempt.c.nonce,
        attempt.c.try_number,
        attempt.c.state.label("attempt_state"),
        attempt.c.worker_id,
        attempt.c.lease_until,
        attempt.c.cancel_reason,
        task_instance.c.id,
        task_instance.c.dag_run_id,
        task_instance.c.dag_id,
        task_instance.c.task_id,
        task_instance.c.map_index,
        task_instance.c.state.label("task_state"),
        task_instance.c.attempt_id.label("newest_attempt_id"),
        task_instance.c.max_tries,
        task_instance.c.infra_losses,
        dag_run.c.run_id,
        dag_run.c.version,
        dag_run.c.logical_date,
    )
    .select_from(attempt.join(task_instance).join(dag_run))
    .where(attempt.c.attempt_id == bindparam("attempt_id"))
)
_ADD_XCOM = insert(xcom)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a task instance may cost before it is given up."""

    infra_budget: int
    queued_timeout: float  # seconds


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the end of an attempt does to its task instance."""

    state: TaskState
    reason: str | None
    values: Mapping[str, Any] = field(default_factory=dict)


def read(connection: Connection, attempt_id: str) -> AnyRow | None:
    """The attempt with its task instance and run, as `end` and `verdict` want it."""
    return connection.execute(_READ, {"attempt_id": attempt_id}).one_or_none()


def finish(
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
    report = sound(report)
    state = AttemptState(report.state)
    if row.attempt_state == state:
        return True, row.task_state
    if row.attempt_state != AttemptState.RUNNING or row.newest_attempt_id != report.attempt_id:
        raise Refused(f"The attempt {report.attempt_id} is {row.attempt_state}: its report of {state} comes too late.")
    found = end(specs, connection, row, report, limits=limits, who=f"worker {worker_id}", at=at)
    return False, found


def end(
    specs: Specs,
    connection: Connection,
    row: AnyRow,
    report: Report,
    *,
    limits: Limits,
    who: str,
    at: datetime,
) -> TaskState:
    """Ends a running attempt as reported. Returns the state of its task instance. Raises Raced."""
    state = AttemptState(report.state)
    task = specs.get(connection, row.dag_id, row.version).tasks[row.task_id]
    outcome = verdict(row, report, task, limits, at)
    subject = Subject(row.id, row.dag_id, row.run_id, row.task_id, row.map_index, row.attempt_id)
    touch_run(connection, row.dag_run_id)
    moved = move_task(
        connection,
        subject,
        TaskState.RUNNING,
        outcome.state,
        at=at,
        who=who,
        reason=outcome.reason,
        **outcome.values,
    )
    values = {
        "ended_at": at,
        "lease_until": None,
        "reason": report.reason,
        "metrics": dict(report.metrics) or None,
    }
    if not moved or not move_attempt(connection, row.attempt_id, row.nonce, AttemptState.RUNNING, state, values):
        raise Raced
    if state is AttemptState.SUCCESS and report.has_xcom:
        connection.execute(_ADD_XCOM, {"attempt_id": row.attempt_id, "value": report.xcom})
    return outcome.state


def verdict(row: AnyRow, report: Report, task: TaskSpec, limits: Limits, at: datetime) -> Verdict:
    """What a report on the attempt in `row` does to its task instance. Pure."""
    state = AttemptState(report.state)
    ended: dict[str, Any] = {"ended_at": at, "wait_until": None}
    if state is AttemptState.SUCCESS:
        follow = None if report.follow is None else list(report.follow)
        return Verdict(TaskState.SUCCESS, report.reason, {**ended, "follow": follow})
    if state is AttemptState.SKIPPED:
        return Verdict(TaskState.SKIPPED, report.reason, ended)
    if row.cancel_reason is not None:
        return Verdict(TaskState.FAILED, row.cancel_reason, ended)
    if state is AttemptState.FAILED:
        if not report.retryable or row.try_number >= row.max_tries:
            return Verdict(TaskState.FAILED, report.reason, ended)
        delay = retry_delay(task, row.dag_id, row.logical_date, row.try_number)
        return Verdict(TaskState.UP_FOR_RETRY, report.reason, {**ended, "wait_until": at + timedelta(seconds=delay)})
    return _again(row, report, limits, at)


def _again(row: AnyRow, report: Report, limits: Limits, at: datetime) -> Verdict:
    """It was no fault of the task: it is scheduled again, and this try does not count."""
    losses = row.infra_losses + (report.state == AttemptState.LOST)
    if losses > limits.infra_budget:
        reason = f"The infrastructure lost it {losses} times, the last time because: {report.reason or 'unknown'}"
        return Verdict(TaskState.FAILED, reason, {"ended_at": at, "wait_until": None, "infra_losses": losses})
    values = {
        "try_number": row.try_number - 1,
        "infra_losses": losses,
        "scheduled_at": at,
        "wait_until": at + timedelta(seconds=limits.queued_timeout),
        "ended_at": at,
    }
    return Verdict(TaskState.SCHEDULED, report.reason, values)


def sound(report: Report) -> Report:
    """The report, made fit for the store: what is not JSON fails the task, once and for all.

    Raises Refused for a state that no worker may report.
    """
    states = {str(state) for state in AttemptState if state.finished}
    if report.state not in states:
        raise Refused(f"An attempt can't end as {report.state!r}, only as {', '.join(sorted(states))}.")
    changes: dict[str, Any] = {
        "metrics": {name: _finite(value) for name, value in report.metrics.items()},
        "reason": plain_text(report.reason),
    }
    if report.state == AttemptState.SUCCESS and report.has_xcom:
        try:
            dump_json(report.xcom)
        except (TypeError, ValueError, RecursionError) as error:
            reason = f"Its result can't be passed on, for it is not JSON: {error}"
            changes |= {"state": AttemptState.FAILED, "reason": reason, "retryable": False, "has_xcom": False}
    return dataclasses.replace(report, **changes)


def _finite(value: Json) -> Json:
    return None if isinstance(value, float) and not math.isfinite(value) else value

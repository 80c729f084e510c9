"""How an attempt comes to belong to a worker."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, func, literal_column, select

from yarrow.errors import Refused
from yarrow.language.spec import TaskSpec
from yarrow.mapping import visible_xcoms
from yarrow.states import AttemptState, TaskState
from yarrow.store.database import Database, Raced
from yarrow.store.granting import ORDER
from yarrow.store.records import ClaimedAttempt
from yarrow.store.rows import AnyRow
from yarrow.store.specs import Specs
from yarrow.store.tables import attempt, dag_run, task_instance
from yarrow.store.transitions import Subject, move_attempt, move_task
from yarrow.store.xcoms import read_xcoms
from yarrow.tokens import new_nonce

_JOINED = attempt.join(task_instance).join(dag_run)
_COLUMNS = (
    attempt.c.attempt_id,
    attempt.c.nonce,
    attempt.c.try_number,
    attempt.c.state.label("attempt_state"),
    attempt.c.worker_id,
    attempt.c.started_at,
    task_instance.c.id,
    task_instance.c.dag_run_id,
    task_instance.c.dag_id,
    task_instance.c.task_id,
    task_instance.c.map_index,
    task_instance.c.map_value,
    task_instance.c.max_tries,
    task_instance.c.started_at.label("started_before"),
    task_instance.c.queue,
    dag_run.c.run_id,
    dag_run.c.version,
    dag_run.c.logical_date,
    dag_run.c.data_interval_start,
    dag_run.c.data_interval_end,
    dag_run.c.params,
)
_THIS = select(*_COLUMNS).select_from(_JOINED).where(attempt.c.attempt_id == bindparam("attempt_id"))
_NEXT = (
    select(*_COLUMNS)
    .select_from(
        task_instance.join(attempt, attempt.c.attempt_id == task_instance.c.attempt_id).join(
            dag_run, dag_run.c.id == task_instance.c.dag_run_id
        )
    )
    .where(task_instance.c.state == literal_column("'queued'"), task_instance.c.queue == bindparam("queue"))
    .order_by(*ORDER)
    .limit(1)
    .with_for_update(of=task_instance, skip_locked=True)
)
_TRY_BEGAN = select(func.min(attempt.c.started_at)).where(
    attempt.c.task_instance_id == bindparam("id"), attempt.c.try_number == bindparam("try_number")
)


def claim(
    database: Database, specs: Specs, connection: Connection, attempt_id: str, nonce: str, worker_id: str, lease: float
) -> ClaimedAttempt:
    """Gives this queued attempt to a worker. Raises Refused."""
    row = connection.execute(_THIS, {"attempt_id": attempt_id}).one_or_none()
    if row is None:
        raise Refused(f"There is no attempt {attempt_id}.", hint="The message belongs to another deployment.")
    if row.attempt_state != AttemptState.QUEUED:
        holder = f" by worker {row.worker_id}" if row.worker_id else ""
        raise Refused(f"The attempt {attempt_id} was taken before{holder}: it is {row.attempt_state}.")
    if row.nonce != nonce:
        raise Refused(f"The attempt {attempt_id} was sent again meanwhile; only its newest message counts.")
    return _take(database, specs, connection, row, nonce, worker_id, lease)


def claim_next(
    database: Database, specs: Specs, connection: Connection, queue: str, worker_id: str, lease: float
) -> ClaimedAttempt | None:
    """Gives the best queued attempt of the queue to a worker; the message that may be out for it counts no more."""
    row = connection.execute(_NEXT, {"queue": queue}).one_or_none()
    return None if row is None else _take(database, specs, connection, row, new_nonce(), worker_id, lease)


def _take(
    database: Database,
    specs: Specs,
    connection: Connection,
    row: AnyRow,
    nonce: str,
    worker_id: str,
    lease: float,
) -> ClaimedAttempt:
    now = database.lease_now(connection)
    lease_until = now + timedelta(seconds=lease)
    started_at = row.started_at or now  # one that was put off goes on
    subject = Subject(row.id, row.dag_id, row.run_id, row.task_id, row.map_index, row.attempt_id)
    moved = move_task(
        connection,
        subject,
        TaskState.QUEUED,
        TaskState.RUNNING,
        at=now,
        who=f"worker {worker_id}",
        try_number=row.try_number,
        started_at=started_at,
        ended_at=None,
        wait_until=None,
        cached=False,
    )
    values = {
        "nonce": nonce,
        "worker_id": worker_id,
        "claimed_at": now,
        "started_at": started_at,
        "lease_until": lease_until,
        "dispatch_deadline": None,
    }
    states = (AttemptState.QUEUED, AttemptState.RUNNING)
    if not moved or not move_attempt(connection, row.attempt_id, row.nonce, *states, values):
        raise Raced
    return _claimed(specs, connection, row, nonce, _try_began(connection, row, now), lease, lease_until)


def _try_began(connection: Connection, row: AnyRow, now: datetime) -> datetime:
    """When the try was claimed for the first time, which may have been by an attempt that the infrastructure lost."""
    if row.started_before is None:  # most are the first attempt of all, and cost no look
        return now
    began: datetime | None = connection.execute(_TRY_BEGAN, {"id": row.id, "try_number": row.try_number}).scalar()
    return began or now


def _claimed(
    specs: Specs,
    connection: Connection,
    row: AnyRow,
    nonce: str,
    first_started_at: datetime,
    lease: float,
    lease_until: datetime,
) -> ClaimedAttempt:
    spec = specs.get(connection, row.dag_id, row.version)
    task = spec.tasks[row.task_id]
    siblings = [name for name in task.xcoms if _same_instance(task, spec.tasks[name])]
    others = [name for name in task.xcoms if name not in siblings]
    found = read_xcoms(connection, row.dag_run_id, others) if others else {}
    if siblings:
        found |= read_xcoms(connection, row.dag_run_id, siblings, row.map_index)
    return ClaimedAttempt(
        attempt_id=row.attempt_id,
        nonce=nonce,
        dag_id=row.dag_id,
        run_id=row.run_id,
        task_id=row.task_id,
        map_index=row.map_index,
        try_number=row.try_number,
        max_tries=row.max_tries,
        task=task,
        downstream=spec.downstream[row.task_id],
        queue=row.queue,
        logical_date=row.logical_date,
        data_interval_start=row.data_interval_start,
        data_interval_end=row.data_interval_end,
        timezone=spec.timezone,
        params=row.params,
        xcoms=visible_xcoms(spec, (row.task_id, row.map_index), task.xcoms, found),
        mapped_xcoms=[name for name in others if spec.tasks[name].mapped],
        map_value=row.map_value,
        first_started_at=first_started_at,
        lease=lease,
        lease_until=lease_until,
    )


def _same_instance(task: TaskSpec, other: TaskSpec) -> bool:
    """Whether the one sees only that instance of the other that has its own map index."""
    return task.map_group is not None and task.map_group == other.map_group

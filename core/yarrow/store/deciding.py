"""The two sides of a decision on a run: what is read for it, and how it is carried out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, func, literal_column, or_, select, update

from yarrow.decide import Decisions, TaskDecision, TaskView
from yarrow.errors import NotFound
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec
from yarrow.mapping import Instance
from yarrow.states import RunState, TaskState
from yarrow.store.records import RunRecord, RunSnapshot
from yarrow.store.rows import AnyRow, columns_of
from yarrow.store.specs import Specs
from yarrow.store.tables import dag, dag_run, task_instance, xcom
from yarrow.store.transitions import CHUNK, SCHEDULER, Subject, chunks, move_run, move_tasks, plain_text

# Partial indexes want these conditions with the word itself, not with a parameter.
_QUEUED = dag_run.c.state == literal_column("'queued'")
_RUNNING = dag_run.c.state == literal_column("'running'")


# Starting runs

_ACTIVE = select(dag_run.c.dag_id, func.count().label("runs")).where(_RUNNING).group_by(dag_run.c.dag_id).subquery()
_WAITING = (
    select(
        dag_run.c.id,
        dag_run.c.dag_id,
        dag_run.c.run_id,
        dag_run.c.logical_date,
        dag.c.max_active_runs,
        func.row_number()
        .over(partition_by=dag_run.c.dag_id, order_by=[dag_run.c.logical_date, dag_run.c.id])
        .label("place"),
    )
    .join(dag, dag.c.dag_id == dag_run.c.dag_id)
    .where(_QUEUED, ~dag.c.is_paused, dag_run.c.run_after <= bindparam("now"))
    .subquery()
)
_STARTABLE = (
    select(_WAITING.c.id, _WAITING.c.dag_id, _WAITING.c.run_id)
    .select_from(_WAITING.outerjoin(_ACTIVE, _ACTIVE.c.dag_id == _WAITING.c.dag_id))
    .where(_WAITING.c.place <= _WAITING.c.max_active_runs - func.coalesce(_ACTIVE.c.runs, 0))
    .order_by(_WAITING.c.logical_date, _WAITING.c.id)
)


def startable(connection: Connection, now: datetime) -> bool:
    """Whether a queued run may start, so that `start` is worth a write transaction."""
    return connection.execute(_STARTABLE, {"now": now}).first() is not None


def start(connection: Connection, now: datetime) -> list[int]:
    """Starts the due runs within their DAG's `max_active_runs`. Returns their ids."""
    dag_ids = {row.dag_id for row in connection.execute(_STARTABLE, {"now": now})}
    for chunk in chunks(sorted(dag_ids), CHUNK):
        # Schedulers look one after the other at the limits of a DAG.
        connection.execute(select(dag.c.dag_id).where(dag.c.dag_id.in_(chunk)).order_by(dag.c.dag_id).with_for_update())
    moves = (RunState.QUEUED, RunState.RUNNING)
    return [
        row.id
        for row in connection.execute(_STARTABLE, {"now": now}).all()
        if row.dag_id in dag_ids
        and move_run(connection, row.id, (row.dag_id, row.run_id), *moves, at=now, who=SCHEDULER, started_at=now)
    ]


# Looking

_DIRTY = select(dag_run.c.id).where(
    _RUNNING,
    dag_run.c.change_seq > dag_run.c.decided_seq,
    or_(dag_run.c.quarantine_until.is_(None), dag_run.c.quarantine_until <= bindparam("now")),
)
_WOKEN = select(dag_run.c.id).where(dag_run.c.wait_until <= bindparam("now"), _RUNNING)
_UNDECIDED = _DIRTY.union(_WOKEN).limit(bindparam("limit"))  # ordered here, it would go by the id, past every run
_NEXT_WAIT = (
    select(dag_run.c.wait_until)
    .where(dag_run.c.wait_until.is_not(None), _RUNNING)
    .order_by(dag_run.c.wait_until)
    .limit(1)
)
_RUN = select(*columns_of(RunRecord, dag_run)).where(dag_run.c.id == bindparam("id"))
_VIEWS = (
    select(
        task_instance.c.task_id,
        task_instance.c.state,
        task_instance.c.try_number,
        task_instance.c.max_tries,
        task_instance.c.wait_until,
        task_instance.c.follow,
    )
    .where(task_instance.c.dag_run_id == bindparam("id"))
    .order_by(task_instance.c.id)
)
XCOMS = (
    select(task_instance.c.task_id, xcom.c.value)
    .join(xcom, xcom.c.attempt_id == task_instance.c.attempt_id)
    .where(
        task_instance.c.dag_run_id == bindparam("id"),
        task_instance.c.task_id.in_(bindparam("task_ids", expanding=True)),
        task_instance.c.state == TaskState.SUCCESS,
    )
)
"""What other tasks of the run may see: the XCom of a task instance that succeeded, of the attempt that made it so."""


def undecided(connection: Connection, now: datetime, limit: int) -> list[int]:
    """Ids of running runs to which something happened, or whose wait is over."""
    return sorted(connection.execute(_UNDECIDED, {"now": now, "limit": limit}).scalars())


def next_wait(connection: Connection) -> datetime | None:
    """The earliest end of a wait of a running run."""
    return connection.execute(_NEXT_WAIT).scalar()


def snapshot(connection: Connection, specs: Specs, id: int) -> RunSnapshot | None:
    """What there is to decide on. None: the run is not running."""
    # The run comes first: what happens between the two looks counts as not yet seen.
    row = connection.execute(_RUN, {"id": id}).one_or_none()
    if row is None or row.state != RunState.RUNNING:
        return None
    record = RunRecord(*row)
    spec = specs.get(connection, record.dag_id, record.version)
    tasks = [_view(row) for row in connection.execute(_VIEWS, {"id": id})]
    return RunSnapshot(record, spec, tasks, _when_xcoms(connection, id, spec, tasks))


def _view(row: AnyRow) -> TaskView:
    task_id, state, try_number, max_tries, wait_until, follow = row
    return TaskView(task_id, state, try_number, max_tries, wait_until, None if follow is None else tuple(follow))


def _when_xcoms(connection: Connection, id: int, spec: DagSpec, tasks: Iterable[TaskView]) -> dict[Instance, Json]:
    open_ids = (view.task_id for view in tasks if view.state is TaskState.NONE)
    open_tasks = (spec.tasks[task_id] for task_id in open_ids if task_id in spec.tasks)
    names = {name for task in open_tasks for name in task.when_xcoms}
    return {(name, -1): value for name, value in read_xcoms(connection, id, names).items()} if names else {}


def read_xcoms(connection: Connection, id: int, task_ids: Iterable[str]) -> dict[str, Json]:
    """The visible XComs of these tasks of the run; a task without one is absent."""
    rows = connection.execute(XCOMS, {"id": id, "task_ids": sorted(task_ids)})
    return {row[0]: row[1] for row in rows}


# Acting

_LOCKED = (
    select(dag_run.c.dag_id, dag_run.c.run_id, dag_run.c.state, dag_run.c.decided_seq)
    .where(dag_run.c.id == bindparam("id"))
    .with_for_update()
)
_SUBJECTS = select(task_instance.c.id, task_instance.c.task_id, task_instance.c.attempt_id).where(
    task_instance.c.dag_run_id == bindparam("id"), task_instance.c.task_id.in_(bindparam("task_ids", expanding=True))
)
_UPDATE_RUN = update(dag_run).where(dag_run.c.id == bindparam("subject_id"))
_END_WAITS = (
    update(task_instance)
    .where(task_instance.c.dag_run_id == bindparam("subject_id"), task_instance.c.wait_until.is_not(None))
    .values(wait_until=None)
)


def apply(
    connection: Connection,
    id: int,
    decisions: Decisions,
    seen_seq: int,
    queued_timeout: float,
    who: str,
    at: datetime,
) -> bool:
    """Carries out decisions on a snapshot. Returns whether all of it could be."""
    run = connection.execute(_LOCKED, {"id": id}).one_or_none()
    if run is None or run.state != RunState.RUNNING:
        return False
    names = (run.dag_id, run.run_id)
    complete = _move_tasks(connection, id, names, decisions.tasks, queued_timeout, who, at)
    settled = {"quarantine_until": None, "quarantine_count": 0}
    if decisions.run is not None:
        move = decisions.run
        return complete and _end_run(connection, id, names, move.to_state, move.reason, seen_seq, who, at, settled)
    if run.decided_seq <= seen_seq:  # else another scheduler has decided on a later state
        seen = {"decided_seq": seen_seq, "wait_until": decisions.wait_until, "reason": None} if complete else {}
        connection.execute(_UPDATE_RUN, {"subject_id": id, **settled, **seen})
    return complete


def _end_run(
    connection: Connection,
    id: int,
    names: tuple[str, str],
    to_state: RunState,
    reason: str | None,
    seen_seq: int,
    who: str,
    at: datetime,
    settled: Mapping[str, Any],
) -> bool:
    moved = move_run(
        connection,
        id,
        names,
        RunState.RUNNING,
        to_state,
        at=at,
        who=who,
        reason=reason,
        seen_seq=seen_seq,
        ended_at=at,
        decided_seq=seen_seq,
        wait_until=None,
        **settled,
    )
    if moved:
        connection.execute(_END_WAITS, {"subject_id": id})
    return moved


def _move_tasks(
    connection: Connection,
    id: int,
    names: tuple[str, str],
    decisions: Iterable[TaskDecision],
    queued_timeout: float,
    who: str,
    at: datetime,
) -> bool:
    """Makes the moves, those that are alike with one statement. Returns whether each was possible."""
    alike: dict[tuple[TaskState, TaskState, str | None], list[str]] = {}
    for decision in decisions:
        alike.setdefault((decision.from_state, decision.to_state, decision.reason), []).append(decision.task_id)
    complete = True
    for (from_state, to_state, reason), task_ids in alike.items():
        subjects = _subjects(connection, id, names, task_ids)
        values = _values(to_state, at, queued_timeout)
        moved = move_tasks(connection, subjects, from_state, to_state, at=at, who=who, reason=reason, **values)
        complete = complete and len(moved) == len(task_ids)
    return complete


def _subjects(connection: Connection, id: int, names: tuple[str, str], task_ids: list[str]) -> list[Subject]:
    dag_id, run_id = names
    return [
        Subject(row.id, dag_id, run_id, row.task_id, attempt_id=row.attempt_id)
        for chunk in chunks(task_ids, CHUNK)
        for row in connection.execute(_SUBJECTS, {"id": id, "task_ids": chunk})
    ]


def _values(to_state: TaskState, at: datetime, queued_timeout: float) -> dict[str, Any]:
    """The columns that go with a move that was decided on."""
    if to_state is TaskState.SCHEDULED:
        return {"scheduled_at": at, "wait_until": at + timedelta(seconds=queued_timeout), "ended_at": None}
    return {"wait_until": None, "ended_at": at}


def quarantine(connection: Connection, id: int, error: str, until: datetime) -> int:
    """Leaves a run alone until then. Returns how often in a row that has happened."""
    statement = (
        update(dag_run)
        .where(dag_run.c.id == id, _RUNNING)
        .values(
            quarantine_until=until,
            wait_until=until,
            quarantine_count=dag_run.c.quarantine_count + 1,
            reason=plain_text(error),
        )
        .returning(dag_run.c.quarantine_count)
    )
    count: int | None = connection.execute(statement).scalar_one_or_none()
    if count is None:
        raise NotFound(f"There is no running run with id {id}.")
    return count

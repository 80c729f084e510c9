"""Deadlines: by when runs and tasks must have succeeded, whether anything runs by then or not."""

from __future__ import annotations

import builtins
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import product
from typing import Any, Protocol

from sqlalchemy import Connection, Insert, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from yarrow.errors import StoreError
from yarrow.language.spec import AVERAGED_RUNS, FEWEST_AVERAGED_RUNS, DagSpec, DeadlineSpec
from yarrow.notify import Happening
from yarrow.states import RunState, TaskState
from yarrow.store.database import Database
from yarrow.store.notifications import write_down
from yarrow.store.records import DeadlineRecord, RunRecord
from yarrow.store.rows import columns_of
from yarrow.store.specs import Specs
from yarrow.store.tables import dag, dag_run, deadline, task_instance
from yarrow.store.transitions import CHUNK, SCHEDULER, append, chunks, history_line, plain_text
from yarrow.timetable import scheduled_run_id

OF_RUN = ""
"""The task_id of a deadline of the run itself."""

_MET_BY = (TaskState.SUCCESS, TaskState.SKIPPED)

_COLUMNS = columns_of(DeadlineRecord, deadline)
_NEXT_DUE = select(deadline.c.due_at).where(deadline.c.missed_at.is_(None)).order_by(deadline.c.due_at).limit(1)
_DUE = (
    select(*_COLUMNS)
    .where(deadline.c.missed_at.is_(None), deadline.c.due_at <= bindparam("now"))
    .order_by(deadline.c.due_at)
    .limit(bindparam("limit"))
)
_THIS = (
    deadline.c.dag_id == bindparam("of_dag_id"),
    deadline.c.run_id == bindparam("of_run_id"),
    deadline.c.task_id == bindparam("of_task_id"),
    deadline.c.due_at == bindparam("seen_due_at"),
    deadline.c.missed_at.is_(None),
)
_MISS = update(deadline).where(*_THIS)
_DROP = delete(deadline).where(*_THIS)
_RUN = select(*columns_of(RunRecord, dag_run)).where(
    dag_run.c.dag_id == bindparam("of_dag_id"), dag_run.c.run_id == bindparam("of_run_id")
)
_INSTANCES = (
    select(task_instance.c.state, func.max(task_instance.c.ended_at))
    .where(task_instance.c.dag_run_id == bindparam("id"), task_instance.c.task_id == bindparam("of_task_id"))
    .group_by(task_instance.c.state)
)
_EXPECTED = select(
    dag.c.dag_id,
    dag.c.version,
    dag.c.next_logical_date,
    dag.c.next_run_after,
    dag.c.deadline_after,
    dag.c.deadline_reference,
    dag.c.is_active,
    dag.c.is_paused,
)
_SUCCEEDED = (
    select(dag_run.c.id, dag_run.c.queued_at, dag_run.c.ended_at)
    .where(dag_run.c.dag_id == bindparam("of_dag_id"), dag_run.c.state == RunState.SUCCESS)
    .order_by(dag_run.c.logical_date.desc(), dag_run.c.id.desc())
    .limit(AVERAGED_RUNS)
)
_TASK_ENDS = (
    select(task_instance.c.dag_run_id, task_instance.c.task_id, func.max(task_instance.c.ended_at))
    .where(
        task_instance.c.dag_run_id.in_(bindparam("ids", expanding=True)),
        task_instance.c.task_id.in_(bindparam("task_ids", expanding=True)),
    )
    .group_by(task_instance.c.dag_run_id, task_instance.c.task_id)
)


class Deadlines:
    """Deadlines and whether they were missed. Every method is one transaction."""

    def __init__(self, database: Database, specs: Specs) -> None:
        self._database = database
        self._specs = specs

    def next_due(self) -> datetime | None:
        """When the next deadline passes that has not been judged: how long a scheduler may sleep."""
        return self._database.read(lambda connection: connection.execute(_NEXT_DUE).scalar())

    def judge(self, now: datetime | None = None, limit: int = 100) -> tuple[int, builtins.list[DeadlineRecord]]:
        """Judges deadlines that have passed: those that were met are dropped, of the others people are told, once.

        A run meets its deadline by succeeding before it, a task by succeeding, or being skipped, in all its instances.
        One on which judging goes wrong counts as missed, and the history says why nobody was told.

        Returns:
            How many had passed (`limit`: there may be more), and those that were missed.
        """
        at = self._database.now(now)
        due = self._database.read(lambda connection: _records(connection, {"now": at, "limit": limit}))
        return len(due), [one for one in due if self._judge(one, at)]

    def _judge(self, due: DeadlineRecord, at: datetime) -> bool:
        try:
            return self._database.write(partial(_judge, self._specs, at, due))
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - one deadline must not keep the others, and the loop, from going on
            why = f"nobody could be told: {type(error).__name__}: {error}"
            return self._database.write(partial(_miss_silently, at, due, why))

    def list(
        self, dag_id: str | None = None, run_id: str | None = None, *, missed: bool = True, limit: int = 100
    ) -> builtins.list[DeadlineRecord]:
        """The missed deadlines, the latest first, or with `missed=False` those that have not passed, by their time."""
        if missed:
            query = select(*_COLUMNS).where(deadline.c.missed_at.is_not(None)).order_by(deadline.c.missed_at.desc())
        else:
            query = select(*_COLUMNS).where(deadline.c.missed_at.is_(None)).order_by(deadline.c.due_at)
        for column, value in ((deadline.c.dag_id, dag_id), (deadline.c.run_id, run_id)):
            if value is not None:
                query = query.where(column == value)
        rows = self._database.read(lambda connection: connection.execute(query.limit(limit)).all())
        return [DeadlineRecord(*row) for row in rows]


# How they come to be


class NewRun(Protocol):
    """A run that was made just now: a record of it, or as much as deadlines want to know."""

    @property
    def run_id(self) -> str: ...
    @property
    def run_type(self) -> str: ...
    @property
    def logical_date(self) -> datetime: ...
    @property
    def data_interval_end(self) -> datetime: ...
    @property
    def queued_at(self) -> datetime: ...


def add(database: Database, connection: Connection, spec: DagSpec, *runs: NewRun) -> None:
    """Sets the deadlines of runs of one version that were made just now.

    A run that somebody starts by hand for a date in the past gets no deadline that had passed before it was made.
    """
    if not spec.has_deadline or not runs:
        return
    wanted = {OF_RUN: spec.deadline} | {task.task_id: task.deadline for task in spec.tasks.values()}
    deadlines = {task_id: wish for task_id, wish in wanted.items() if wish is not None}
    averages: Mapping[str, float] = {}
    averaged = [task_id for task_id, wish in deadlines.items() if wish.reference == "average"]
    if averaged:
        averages = _averages(connection, spec.dag_id, averaged)
    rows = []
    for run, (task_id, wish) in product(runs, deadlines.items()):
        due_at = _due_at(wish, run, averages.get(task_id))
        if due_at is not None and (run.run_type == "scheduled" or due_at > run.queued_at):
            rows.append(_row(spec.dag_id, run.run_id, task_id, due_at))
    if rows:
        connection.execute(_upsert(database), rows)


def expect(database: Database, connection: Connection, dag_ids: Collection[str]) -> None:
    """Sets the deadline of the next scheduled run of each of these DAGs, which may never come to be.

    Only one that counts from a moment of the schedule can be known. Call it when a DAG's next run has been worked out.
    """
    rows = []
    for chunk in chunks(sorted(dag_ids), CHUNK):
        wanted = (dag.c.dag_id.in_(chunk), dag.c.deadline_after.is_not(None), dag.c.next_logical_date.is_not(None))
        for row in connection.execute(_EXPECTED.where(*wanted)):
            from_date = row.deadline_reference == "logical_date"
            reference = row.next_logical_date if from_date else row.next_run_after
            due_at = reference + timedelta(seconds=row.deadline_after)
            rows.append(_row(row.dag_id, scheduled_run_id(row.next_logical_date), OF_RUN, due_at))
    if rows:
        connection.execute(_upsert(database), rows)


def known_beforehand(spec: DagSpec) -> tuple[float, str] | None:
    """The deadline of a DAG (seconds, reference) if it is known before there is a run; what its row in `dag` says."""
    if spec.deadline is None or spec.deadline.reference not in ("logical_date", "data_interval_end"):
        return None
    return spec.deadline.after, spec.deadline.reference


def _row(dag_id: str, run_id: str, task_id: str, due_at: datetime) -> dict[str, Any]:
    return {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "due_at": due_at}


def _upsert(database: Database) -> Insert:
    """An insert that moves a deadline that is there already, unless it has been missed: nobody is told twice."""
    new: sqlite.Insert | postgresql.Insert
    new = sqlite.insert(deadline) if database.dialect == "sqlite" else postgresql.insert(deadline)
    return new.on_conflict_do_update(
        index_elements=[deadline.c.dag_id, deadline.c.run_id, deadline.c.task_id],
        set_={"due_at": new.excluded.due_at},
        where=deadline.c.missed_at.is_(None),
    )


def _due_at(wish: DeadlineSpec, run: NewRun, average: float | None) -> datetime | None:
    """When it has to be done; None: nobody can tell yet."""
    after = timedelta(seconds=wish.after)
    if wish.reference == "average":
        return None if average is None else run.queued_at + timedelta(seconds=average) + after
    references = {
        "logical_date": run.logical_date,
        "data_interval_end": run.data_interval_end,
        "queued_at": run.queued_at,
    }
    return references[wish.reference] + after


def _averages(connection: Connection, dag_id: str, task_ids: Sequence[str]) -> Mapping[str, float]:
    """The mean seconds from the queueing of a run to its end, and to the end of each task, where enough runs tell."""
    runs = {row.id: row for row in connection.execute(_SUCCEEDED, {"of_dag_id": dag_id})}
    took: dict[str, list[float]] = {OF_RUN: [_seconds(run.queued_at, run.ended_at) for run in runs.values()]}
    wanted = [task_id for task_id in task_ids if task_id != OF_RUN]
    if wanted and runs:
        for run_id, task_id, ended_at in connection.execute(_TASK_ENDS, {"ids": sorted(runs), "task_ids": wanted}):
            if ended_at is not None:
                took.setdefault(task_id, []).append(_seconds(runs[run_id].queued_at, ended_at))
    return {task_id: sum(times) / len(times) for task_id, times in took.items() if len(times) >= FEWEST_AVERAGED_RUNS}


def _seconds(start: datetime, end: datetime) -> float:
    return (end - start).total_seconds()


# How they are judged


def _records(connection: Connection, parameters: Mapping[str, Any]) -> builtins.list[DeadlineRecord]:
    return [DeadlineRecord(*row) for row in connection.execute(_DUE, parameters)]


def _judge(specs: Specs, at: datetime, due: DeadlineRecord, connection: Connection) -> bool:
    """Drops a deadline that was met, or has lost its meaning. Returns whether it was missed, and this call told so."""
    names = {"of_dag_id": due.dag_id, "of_run_id": due.run_id}
    this = {**names, "of_task_id": due.task_id, "seen_due_at": due.due_at}
    row = connection.execute(_RUN, names).one_or_none()
    run = None if row is None else RunRecord(*row)
    state: str | None
    version: str | None
    if run is None:
        state, version = "missing", _version_awaited(connection, due)
    else:
        state = _late_run(run, due) if due.task_id == OF_RUN else _late_task(connection, run, due)
        version = run.version
    if state is None or version is None:
        connection.execute(_DROP, this)
        return False
    if connection.execute(_MISS, {**this, "missed_at": at}).rowcount != 1:
        return False
    _tell(connection, specs.get(connection, due.dag_id, version), due, run, state, at)
    return True


def _miss_silently(at: datetime, due: DeadlineRecord, why: str, connection: Connection) -> bool:
    """Counts a deadline as missed without telling anybody but the history. Returns whether this call did."""
    this = {"of_dag_id": due.dag_id, "of_run_id": due.run_id, "of_task_id": due.task_id, "seen_due_at": due.due_at}
    if connection.execute(_MISS, {**this, "missed_at": at}).rowcount != 1:
        return False
    append(connection, [_missed_line(due, why, at)])
    return True


def _missed_line(due: DeadlineRecord, what: str, at: datetime) -> dict[str, Any]:
    kind = "task.deadline_missed" if due.task_id else "run.deadline_missed"
    reason = plain_text(f"due at {due.due_at:%Y-%m-%d %H:%M:%S} UTC, {what}")
    names = {"dag_id": due.dag_id, "run_id": due.run_id, "task_id": due.task_id or None}
    return history_line(kind, at=at, who=SCHEDULER, reason=reason, **names)


def _version_awaited(connection: Connection, due: DeadlineRecord) -> str | None:
    """The version of the DAG whose next run it still is that is not there; None: nobody waits for that run any more."""
    row = connection.execute(_EXPECTED.where(dag.c.dag_id == due.dag_id)).one_or_none()
    if row is None or not row.is_active or row.is_paused or row.deadline_after is None:
        return None
    if row.next_logical_date is None or scheduled_run_id(row.next_logical_date) != due.run_id:
        return None
    return str(row.version)


def _late_run(run: RunRecord, due: DeadlineRecord) -> str | None:
    """The state of a run that has not succeeded by its deadline; None: it has."""
    met = run.state is RunState.SUCCESS and run.ended_at is not None and run.ended_at <= due.due_at
    return None if met else str(run.state)


def _late_task(connection: Connection, run: RunRecord, due: DeadlineRecord) -> str | None:
    """The state of a task of which some instance has not succeeded by its deadline; None: all have."""
    for state, ended_at in sorted(connection.execute(_INSTANCES, {"id": run.id, "of_task_id": due.task_id})):
        met = state in _MET_BY and ended_at is not None and ended_at <= due.due_at
        if not met and state != TaskState.REMOVED:
            return str(state)
    return None


def _tell(
    connection: Connection, spec: DagSpec, due: DeadlineRecord, run: RunRecord | None, state: str, at: datetime
) -> None:
    task_id = due.task_id or None
    task = spec.tasks.get(due.task_id)
    append(connection, [_missed_line(due, state, at)])
    targets = (task.on_deadline if task else ()) or spec.on_deadline
    if targets:
        happening = Happening(
            kind="deadline",
            dag_id=due.dag_id,
            run_id=due.run_id,
            task_id=task_id,
            dag_run_id=run.id if run else None,
            state=state,
            at=at,
            logical_date=run.logical_date if run else None,
            due_at=due.due_at,
        )
        write_down(connection, happening, targets)

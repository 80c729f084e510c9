"""What people do to task instances, in whatever state these are: clear them, mark them, leave them behind.

It is done to many runs with few statements, for whole years are cleared at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, delete, func, select, update

from yarrow.language.spec import DagSpec
from yarrow.plans.plan import RunAction, RunChange, TaskAction, TaskChange
from yarrow.states import RunState, TaskState
from yarrow.store import asking
from yarrow.store.database import Raced
from yarrow.store.erasing import IS_REFERENCE
from yarrow.store.instances import add, blank_columns, limit_columns
from yarrow.store.rows import AnyRow
from yarrow.store.specs import Specs
from yarrow.store.tables import dag_run, task_instance, xcom
from yarrow.store.transitions import (
    CHUNK,
    Subject,
    append,
    cancel_attempts,
    chunks,
    history_line,
    move_tasks,
    overrule,
    plain_text,
    run_event,
    touch_later_runs,
    touch_later_versions,
)

_IDS: BindParameter[Any] = bindparam("ids", expanding=True)
_RUNS = (
    select(
        dag_run.c.id,
        dag_run.c.dag_id,
        dag_run.c.run_id,
        dag_run.c.state,
        dag_run.c.version,
        dag_run.c.logical_date,
        dag_run.c.priority_class,
    )
    .where(dag_run.c.dag_id == bindparam("of_dag_id"), dag_run.c.run_id.in_(bindparam("run_ids", expanding=True)))
    .order_by(dag_run.c.logical_date, dag_run.c.id)
    .with_for_update()
)
_TASKS = (
    select(
        task_instance.c.id,
        task_instance.c.dag_run_id,
        task_instance.c.task_id,
        task_instance.c.map_index,
        task_instance.c.state,
        task_instance.c.attempt_id,
    )
    .where(task_instance.c.dag_run_id.in_(_IDS))
    .order_by(task_instance.c.id)
    .with_for_update(key_share=True)
)
_CHANGE = update(task_instance).where(task_instance.c.id.in_(_IDS))
# A reference stays, though nobody sees it: it tells which object goes when the run is deleted.
_DROP_XCOMS = delete(xcom).where(xcom.c.attempt_id.in_(_IDS), ~IS_REFERENCE)
_RENEW = update(task_instance).where(
    task_instance.c.dag_run_id.in_(_IDS),
    task_instance.c.task_id == bindparam("of_task_id"),
    task_instance.c.state.in_([TaskState.NONE, TaskState.SCHEDULED, TaskState.UP_FOR_RETRY]),
)
_FENCE = (
    update(dag_run)
    .where(dag_run.c.id.in_(_IDS), dag_run.c.state == bindparam("from_state"))
    .values(
        change_seq=dag_run.c.change_seq + 1,
        fenced_seq=dag_run.c.change_seq + 1,
        quarantine_until=None,
        quarantine_count=0,
    )
    .returning(dag_run.c.id)
)
# A run that was one of a backfill gives up its place in the order of that: it starts within the limit of its DAG.
_QUEUED_AGAIN: Mapping[str, Any] = {
    "started_at": None,
    "ended_at": None,
    "reason": None,
    "wait_until": None,
    "backfill_place": None,
}
_FIRST: Mapping[str, Any] = {"map_index": -1, "map_value": None}
_MARKS = frozenset({TaskAction.MARK, TaskAction.STOP_AND_MARK})
_MAY_HAVE_OPEN_ATTEMPT = frozenset({TaskState.SCHEDULED, TaskState.QUEUED, TaskState.UP_FOR_RESCHEDULE})


@dataclass(frozen=True, slots=True)
class Run:
    """A run that a person changes."""

    row: AnyRow  # as it was before
    spec: DagSpec  # of the version that it has afterwards
    change: RunChange

    @property
    def moves_on(self) -> bool:
        """Whether it gets another version of its DAG."""
        return bool(self.spec.version != self.row.version)


@dataclass(frozen=True, slots=True)
class Person:
    """Who wants something, why and when."""

    who: str
    reason: str | None
    at: datetime

    def sentence(self, verb: str, why: str = "selected") -> str:
        """A sentence for the history and for people: "Cleared by ann (downstream of x): wrong month"."""
        beside = "" if why == "selected" else f" ({why})"
        return f"{verb} by {self.who}{beside}: {self.reason}" if self.reason else f"{verb} by {self.who}{beside}."


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a group of changes, in whichever runs, has in common."""

    from_state: TaskState
    to_state: TaskState
    text: str
    is_first: bool  # it becomes the only instance of its mapped task again
    columns: tuple[tuple[str, Any], ...] = ()  # that the task sets in the version that the run gets
    tries: int = 0  # of one that is cleared: how many it has from now on


_Groups = dict[_Kind, list[Subject]]
_Known = dict[tuple[int, str, int], AnyRow]


def lock_runs(specs: Specs, connection: Connection, dag_id: str, changes: Sequence[RunChange]) -> list[Run]:
    """The runs to be changed, locked, in the order of their dates. Raises Raced when one is not as it should be."""
    by_id = {change.run_id: change for change in changes}
    rows: list[AnyRow] = []
    for chunk in chunks(by_id, CHUNK):
        rows += connection.execute(_RUNS, {"of_dag_id": dag_id, "run_ids": chunk})
    if len(rows) != len(by_id) or any(row.state != by_id[row.run_id].from_state for row in rows):
        raise Raced
    rows.sort(key=lambda row: (row.logical_date, row.id))
    return [
        Run(row, specs.get(connection, dag_id, by_id[row.run_id].version or row.version), by_id[row.run_id])
        for row in rows
    ]


# Task instances


def change_tasks(specs: Specs, connection: Connection, runs: Sequence[Run], person: Person) -> None:
    """Makes the changes of task instances. Raises Raced when one is not as it should be."""
    known = _read_tasks(connection, [run for run in runs if run.change.tasks])
    groups: _Groups = {}
    for run in runs:
        added = [change.task_id for change in run.change.tasks if change.action is TaskAction.ADD]
        _add(connection, run, added, person)
        for change in run.change.tasks:
            if change.action is not TaskAction.ADD:
                kind, subject = _sorted(run, change, known, person)
                groups.setdefault(kind, []).append(subject)
    for kind, subjects in groups.items():
        if kind.from_state is TaskState.RUNNING:
            _stop(connection, kind, subjects, person)
        else:
            _move(connection, kind, subjects, person)
    _renew(specs, connection, [run for run in runs if run.moves_on])


def _read_tasks(connection: Connection, runs: Sequence[Run]) -> _Known:
    found: _Known = {}
    for chunk in chunks((run.row.id for run in runs), CHUNK):
        for row in connection.execute(_TASKS, {"ids": chunk}):
            found[row.dag_run_id, row.task_id, row.map_index] = row
    return found


def _sorted(run: Run, change: TaskChange, known: _Known, person: Person) -> tuple[_Kind, Subject]:
    """A change's kind, and its task instance. Raises Raced."""
    row = known.get((run.row.id, change.task_id, change.map_index))
    if row is None or row.state != change.from_state or row.attempt_id != change.attempt_id:
        raise Raced
    to_state = TaskState(change.to_state)
    verb = "Marked" if change.action in _MARKS else "Cleared"
    columns: dict[str, Any] = {}
    tries = 0
    if to_state is TaskState.NONE:
        columns = limit_columns(run.spec, change.task_id) if run.moves_on else {}
        tries = run.spec.tasks[change.task_id].retries + 1
    kind = _Kind(
        from_state=row.state,
        to_state=to_state,
        text=person.sentence(verb, change.why),
        is_first=change.action is TaskAction.COLLAPSE and to_state is TaskState.NONE,
        columns=tuple(columns.items()),
        tries=tries,
    )
    return kind, Subject(row.id, run.row.dag_id, run.row.run_id, row.task_id, row.map_index, row.attempt_id)


def _stop(connection: Connection, kind: _Kind, subjects: Sequence[Subject], person: Person) -> None:
    """Has workers told to stop; what becomes of the task instances then is told by `finishing.end`."""
    if kind.is_first:
        _update(connection, subjects, _FIRST)
    if not overrule(connection, subjects, kind.to_state, at=person.at, who=person.who, reason=kind.text):
        raise Raced


def _move(connection: Connection, kind: _Kind, subjects: Sequence[Subject], person: Person) -> None:
    values = _values(kind, person.at)
    if kind.from_state is kind.to_state:  # of a mapped task, one that has not begun becomes its only instance
        _update(connection, subjects, values)
        return
    moved = move_tasks(
        connection,
        subjects,
        kind.from_state,
        kind.to_state,
        at=person.at,
        who=person.who,
        reason=kind.text,
        by_person=True,
        **values,
    )
    if len(moved) != len(subjects):
        raise Raced
    attempt_ids = [subject.attempt_id for subject in subjects if subject.attempt_id is not None]
    if kind.from_state in _MAY_HAVE_OPEN_ATTEMPT:
        cancel_attempts(connection, attempt_ids, at=person.at, reason=kind.text)
    elif kind.from_state is TaskState.AWAITING_INPUT:
        asking.close(connection, moved)
    elif kind.from_state is TaskState.SUCCESS:
        for chunk in chunks(sorted(attempt_ids), CHUNK):
            connection.execute(_DROP_XCOMS, {"ids": chunk})


def _values(kind: _Kind, at: datetime) -> dict[str, Any]:
    """The columns of task instances that go with their move."""
    if kind.to_state is TaskState.NONE:
        tries = {"max_tries": task_instance.c.try_number + kind.tries}
        return {**blank_columns(), **dict(kind.columns), **tries, **(_FIRST if kind.is_first else {})}
    ended = {"wait_until": None, "ended_at": func.coalesce(task_instance.c.ended_at, at)}  # it took what it took
    return ended if kind.to_state is TaskState.REMOVED else {**ended, "follow": None, "cached": False}


def _update(connection: Connection, subjects: Sequence[Subject], values: Mapping[str, Any]) -> None:
    for chunk in chunks(sorted(subject.id for subject in subjects), CHUNK):
        connection.execute(_CHANGE.values(dict(values)), {"ids": chunk})


# Another version


def _add(connection: Connection, run: Run, task_ids: Sequence[str], person: Person) -> None:
    """Adds instances of tasks that are new in the version that a run gets."""
    add(connection, run.row, run.spec, task_ids)
    append(
        connection,
        [
            history_line(
                "task.added",
                at=person.at,
                who=person.who,
                dag_id=run.row.dag_id,
                run_id=run.row.run_id,
                task_id=task_id,
                map_index=-1,
                to_state=TaskState.NONE,
                reason=f"It is new in the version {run.spec.version[:12]}.",
            )
            for task_id in task_ids
        ],
    )


def _renew(specs: Specs, connection: Connection, runs: Sequence[Run]) -> None:
    """Sets what the version that runs get says of task instances that have yet to run, cleared or not."""
    pairs: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        pairs.setdefault((run.row.version, run.spec.version), []).append(run)
    for (before, _), alike in pairs.items():
        old, new = specs.get(connection, alike[0].row.dag_id, before), alike[0].spec
        for task_id in old.tasks.keys() & new.tasks.keys():
            values = _changed(old, new, task_id)
            for chunk in chunks((run.row.id for run in alike), CHUNK) if values else ():
                connection.execute(_RENEW.values(values), {"ids": chunk, "of_task_id": task_id})


def _changed(old: DagSpec, new: DagSpec, task_id: str) -> dict[str, Any]:
    before, after = limit_columns(old, task_id), limit_columns(new, task_id)
    values = {name: value for name, value in after.items() if value != before[name]}
    if old.tasks[task_id].retries != new.tasks[task_id].retries:
        values["max_tries"] = task_instance.c.try_number + new.tasks[task_id].retries + 1
    return values


# Runs


def fence(connection: Connection, runs: Sequence[Run], person: Person) -> None:
    """Has what was decided on these runs before count no more; those that have ended and go on wait for their start.

    A run that a person ends is not moved here. Raises Raced when one is not as it should be.
    """
    groups: dict[tuple[RunState, RunState, str], list[Run]] = {}
    for run in runs:
        to_state = RunState(run.change.to_state or run.row.state)
        goes_on = to_state is RunState.QUEUED and run.row.state.finished
        groups.setdefault((run.row.state, to_state if goes_on else run.row.state, run.spec.version), []).append(run)
    for (from_state, to_state, version), alike in groups.items():
        values: dict[str, Any] = {"version": version}
        if to_state is not from_state:
            values |= {**_QUEUED_AGAIN, "state": to_state, "queued_at": person.at}
        fenced = 0
        for chunk in chunks((run.row.id for run in alike), CHUNK):
            parameters = {"ids": chunk, "from_state": from_state}
            fenced += len(connection.execute(_FENCE.values(values), parameters).all())
        if fenced != len(alike):
            raise Raced
        if to_state is not from_state:
            append(connection, [_queued_line(run, person) for run in alike])


def touch_later(connection: Connection, runs: Sequence[Run]) -> None:
    """Has later running runs decided on again that may look at one of these."""
    earliest: dict[str, Run] = {}
    for run in runs:
        earliest.setdefault(run.spec.version, run)
    for version, run in earliest.items():
        touch_later_runs(connection, run.spec, run.row.id, run.row.logical_date)
        touch_later_versions(connection, run.row.dag_id, version, run.row.id, run.row.logical_date)


def _queued_line(run: Run, person: Person) -> dict[str, Any]:
    names = (run.row.dag_id, run.row.run_id)
    verb = "Marked" if run.change.action is RunAction.MARK else "Cleared"
    return run_event(names, run.row.state, RunState.QUEUED, person.at, person.who, plain_text(person.sentence(verb)))

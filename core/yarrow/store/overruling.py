"""What people do to task instances, in whatever state these are: clear them, mark them, leave them behind.

It is done to many runs with few statements, for whole years are cleared at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, update

from yarrow.language.spec import DagSpec
from yarrow.plans.plan import RunChange, TaskAction, TaskChange
from yarrow.states import RunState, TaskState
from yarrow.store import asking
from yarrow.store.database import Raced
from yarrow.store.instances import add, blank_columns, limit_columns
from yarrow.store.rows import AnyRow
from yarrow.store.specs import Specs
from yarrow.store.tables import dag_run, task_instance, xcom
from yarrow.store.transitions import CHUNK, Subject, cancel_attempts, chunks, move_tasks, overrule, run_event

_IDS = bindparam("ids", expanding=True)
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
    .with_for_update()
)
_CHANGE = update(task_instance).where(task_instance.c.id.in_(_IDS))
_DROP_XCOMS = delete(xcom).where(xcom.c.attempt_id.in_(_IDS))
_MARKS = frozenset({TaskAction.MARK, TaskAction.STOP_AND_MARK})
_OPEN = frozenset({TaskState.SCHEDULED, TaskState.QUEUED, TaskState.UP_FOR_RESCHEDULE})
"""The states in which a task instance may have an attempt that is queued or put off."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run, the version that it gets, and what becomes of it."""

    row: AnyRow  # as it was before
    spec: DagSpec  # of the version that it has afterwards
    change: RunChange


@dataclass(frozen=True, slots=True)
class Person:
    """Who wants something, why and when."""

    who: str
    reason: str | None
    at: datetime

    def sentence(self, verb: str, why: str = "selected") -> str:
        """A sentence for the history and the people who look at the task instance: "Cleared by ann: wrong month"."""
        beside = "" if why == "selected" else f" ({why})"
        return f"{verb} by {self.who}{beside}: {self.reason}" if self.reason else f"{verb} by {self.who}{beside}."


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a group of task instances, of whichever runs, has in common."""

    from_state: TaskState
    to_state: TaskState
    stop: bool  # it runs, and gets there when its worker has stopped it
    first: bool  # it becomes the only instance of its mapped task again
    marked: bool
    text: str
    columns: tuple[tuple[str, Any], ...] = ()  # that its version sets


_Groups = dict[_Kind, list[Subject]]


def lock_runs(
    specs: Specs, connection: Connection, dag_id: str, changes: Sequence[RunChange]
) -> list[Run]:
    """The runs to be changed, locked, in the order of their dates. Raises Raced when one is not as it should be."""
    by_id = {change.run_id: change for change in changes}
    rows: list[AnyRow] = []
    for chunk in chunks(by_id, CHUNK):
        rows += connection.execute(_RUNS, {"of_dag_id": dag_id, "run_ids": chunk})
    if len(rows) != len(by_id) or any(row.state != by_id[row.run_id].from_state for row in rows):
        raise Raced
    runs = []
    for row in rows:
        change = by_id[row.run_id]
        runs.append(Run(row, specs.get(connection, dag_id, change.version or row.version), change))
    return runs


def change_tasks(connection: Connection, runs: Sequence[Run], person: Person) -> None:
    """Makes the changes of task instances. Raises Raced when one is not as it should be."""
    known = _read_tasks(connection, [run for run in runs if run.change.tasks])
    groups: _Groups = {}
    for run in runs:
        for change in run.change.tasks:
            _sort_in(groups, run, change, known, person)
    for kind, subjects in groups.items():
        _change(connection, kind, subjects, person)
    for run in runs:
        if run.row.version != run.change.version and run.change.version is not None:
            _renew(connection, run)


def _read_tasks(connection: Connection, runs: Sequence[Run]) -> Mapping[tuple[int, str, int], AnyRow]:
    found: dict[tuple[int, str, int], AnyRow] = {}
    for chunk in chunks((run.row.id for run in runs), CHUNK):
        for row in connection.execute(_TASKS, {"ids": chunk}):
            found[row.dag_run_id, row.task_id, row.map_index] = row
    return found


def _sort_in(
    groups: _Groups,
    run: Run,
    change: TaskChange,
    known: Mapping[tuple[int, str, int], AnyRow],
    person: Person,
) -> None:
    """Puts a change to those that are like it."""
    row = known.get((run.row.id, change.task_id, change.map_index))
    if change.action is TaskAction.ADD:
        row = row or known.get((run.row.id, change.task_id, 0))
        if row is None:
            return
    elif row is None or row.state != change.from_state or row.attempt_id != change.attempt_id:
        raise Raced
    kind = _kind(run, change, row, person)
    subject = Subject(row.id, run.row.dag_id, run.row.run_id, row.task_id, row.map_index, row.attempt_id)
    groups.setdefault(kind, []).append(subject)


def _kind(run: Run, change: TaskChange, row: AnyRow, person: Person) -> _Kind:
    raise NotImplementedError

"""The rows of task instances: made with their run, more of them when a mapped task is expanded, and used again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Update, bindparam, insert, select, update

from yarrow.decision.decisions import Expansion
from yarrow.jsontypes import Json
from yarrow.language.spec import DagSpec
from yarrow.states import TaskState
from yarrow.store.tables import task_instance
from yarrow.store.transitions import append, history_line


class RunRow(Protocol):
    """What a task instance takes over from its run: a record or a row has it."""

    @property
    def id(self) -> int: ...
    @property
    def dag_id(self) -> str: ...
    @property
    def run_id(self) -> str: ...
    @property
    def logical_date(self) -> datetime: ...
    @property
    def priority_class(self) -> int: ...


class Placed(Protocol):
    """A row or a record that tells which instance it is about."""

    @property
    def task_id(self) -> str: ...
    @property
    def map_index(self) -> int: ...


P = TypeVar("P", bound=Placed)

_ADD = insert(task_instance)
_OF_TASK = (task_instance.c.dag_run_id == bindparam("run"), task_instance.c.task_id == bindparam("task"))
_BECOME_FIRST = (
    update(task_instance)
    .where(*_OF_TASK, task_instance.c.map_index == -1, task_instance.c.state == TaskState.NONE)
    .values(map_index=0)
    .returning(task_instance.c.clears)
)
_LEFT = select(task_instance.c.map_index, task_instance.c.state).where(*_OF_TASK, task_instance.c.map_index > 0)
_REVIVE = update(task_instance).where(
    *_OF_TASK,
    task_instance.c.map_index == bindparam("index"),
    task_instance.c.state == TaskState.REMOVED,
)


def add_all(connection: Connection, run: RunRow, spec: DagSpec) -> None:
    """Adds one instance of each task of a new run, in the order of the tasks."""
    add(connection, run, spec, spec.tasks)


def add(connection: Connection, run: RunRow, spec: DagSpec, task_ids: Collection[str]) -> None:
    """Adds one instance of each of these tasks to a run that has none of them."""
    if task_ids:
        connection.execute(_ADD, [_row(run, spec, task_id) for task_id in task_ids])


def expand(connection: Connection, run: RunRow, spec: DagSpec, expansion: Expansion, *, at: datetime, who: str) -> bool:
    """Makes of a mapped task's only instance as many as there are values; all of them are in the state `none`.

    Rows of an earlier expansion that was cleared are used again: their attempts stay what they were, attempts at the
    instances with these indexes.

    Returns:
        False, and changes nothing, when it has been expanded, or has ended, before, or an instance still runs.
    """
    first, *others = expansion.values
    names = {"run": run.id, "task": expansion.task_id}
    left = {row.map_index: row.state for row in connection.execute(_LEFT, names)}
    if any(state is not TaskState.REMOVED for state in left.values()):
        return False
    clears = connection.execute(_BECOME_FIRST, {**names, "map_value": dict(first)}).scalar_one_or_none()
    if clears is None:
        return False
    row = {**_row(run, spec, expansion.task_id), "clears": clears}
    fresh = [row | _mapped(index, value) for index, value in enumerate(others, 1) if index not in left]
    if fresh:
        connection.execute(_ADD, fresh)
    again = [_mapped(index, value) for index, value in enumerate(others, 1) if index in left]
    if again:
        revive = _reviving(spec, expansion.task_id)
        connection.execute(
            revive, [{**names, "index": one["map_index"], "map_value": one["map_value"]} for one in again]
        )
    count = len(expansion.values)
    line = history_line(
        "task.expanded",
        at=at,
        who=who,
        dag_id=run.dag_id,
        run_id=run.run_id,
        task_id=expansion.task_id,
        reason=f"`expand` makes {count:,} task instance{'' if count == 1 else 's'} of it.",
    )
    append(connection, [line])
    return True


def blank_columns() -> dict[str, Any]:
    """The columns of a task instance that has been cleared, as if it had never begun. Its tries go on counting."""
    return {
        "attempt_id": None,
        "follow": None,
        "wait_until": None,
        "scheduled_at": None,
        "queued_at": None,
        "started_at": None,
        "ended_at": None,
        "cached": False,
        "infra_losses": 0,
        "clears": task_instance.c.clears + 1,
    }


def limit_columns(spec: DagSpec, task_id: str) -> dict[str, Any]:
    """The columns of a task instance that a version of its DAG sets: where it runs, and within which limits."""
    task = spec.tasks[task_id]
    return {
        "queue": task.queue,
        "pool": task.pool,
        "pool_slots": task.pool_slots,
        "priority_weight": spec.weights[task_id],
        "max_per_dag": task.max_active_tis_per_dag,
        "max_per_run": task.max_active_tis_per_dagrun,
    }


def in_task_order(found: Iterable[P]) -> list[P]:
    """What was read by row id, by the order of the tasks and then by map index.

    The first row of each task was made with the run, and the others, which `expand` added, stand behind all of those.
    """
    rows = list(found)
    if all(row.map_index <= 0 for row in rows):
        return rows
    places: dict[str, int] = {}
    for row in rows:
        places.setdefault(row.task_id, len(places))
    return sorted(rows, key=lambda row: (places[row.task_id], row.map_index))


def _reviving(spec: DagSpec, task_id: str) -> Update:
    """Has an instance that was removed run again."""
    task = spec.tasks[task_id]
    return _REVIVE.values(
        {
            **blank_columns(),
            **limit_columns(spec, task_id),
            "state": TaskState.NONE,
            "reason": None,
            "max_tries": task_instance.c.try_number + task.retries + 1,
        }
    )


def _mapped(index: int, value: Mapping[str, Json]) -> dict[str, Any]:
    return {"map_index": index, "map_value": dict(value)}


def _row(run: RunRow, spec: DagSpec, task_id: str) -> dict[str, Any]:
    return {
        "dag_run_id": run.id,
        "dag_id": run.dag_id,
        "logical_date": run.logical_date,
        "task_id": task_id,
        "state": TaskState.NONE,
        "max_tries": spec.tasks[task_id].retries + 1,
        "priority_class": run.priority_class,
        **limit_columns(spec, task_id),
    }

"""The rows of task instances: made with their run, and more of them when a mapped task is expanded."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, bindparam, insert, update

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


class Placed(Protocol):
    """A row or a record that tells which instance it is about."""

    @property
    def task_id(self) -> str: ...
    @property
    def map_index(self) -> int: ...


P = TypeVar("P", bound=Placed)

_ADD = insert(task_instance)
_BECOME_FIRST = (
    update(task_instance)
    .where(
        task_instance.c.dag_run_id == bindparam("run"),
        task_instance.c.task_id == bindparam("task"),
        task_instance.c.map_index == -1,
        task_instance.c.state == TaskState.NONE,
    )
    .values(map_index=0)
)


def add_all(connection: Connection, run: RunRow, spec: DagSpec) -> None:
    """Adds one instance of each task of a new run, in the order of the tasks."""
    if spec.tasks:
        connection.execute(_ADD, [_row(run, spec, task_id) for task_id in spec.tasks])


def expand(connection: Connection, run: RunRow, spec: DagSpec, expansion: Expansion, *, at: datetime, who: str) -> bool:
    """Makes of a mapped task's only instance as many as there are values; all of them are in the state `none`.

    Returns:
        False, and changes nothing, when it has been expanded, or has ended, before.
    """
    first, *others = expansion.values
    parameters = {"run": run.id, "task": expansion.task_id, "map_value": dict(first)}
    if connection.execute(_BECOME_FIRST, parameters).rowcount != 1:
        return False
    if others:
        row = _row(run, spec, expansion.task_id)
        connection.execute(_ADD, [row | _mapped(index, value) for index, value in enumerate(others, 1)])
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


def _mapped(index: int, value: Any) -> dict[str, Json]:
    return {"map_index": index, "map_value": dict(value)}


def _row(run: RunRow, spec: DagSpec, task_id: str) -> dict[str, Any]:
    task = spec.tasks[task_id]
    return {
        "dag_run_id": run.id,
        "dag_id": run.dag_id,
        "logical_date": run.logical_date,
        "task_id": task_id,
        "state": TaskState.NONE,
        "max_tries": task.retries + 1,
        "queue": task.queue,
        "pool": task.pool,
        "pool_slots": task.pool_slots,
        "priority_weight": spec.weights[task_id],
        "max_per_dag": task.max_active_tis_per_dag,
        "max_per_run": task.max_active_tis_per_dagrun,
    }

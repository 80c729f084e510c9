"""The XComs of a run that its other tasks may see."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, select

from yarrow.jsontypes import Json
from yarrow.mapping import Instance
from yarrow.states import TaskState
from yarrow.store.tables import task_instance, xcom

_XCOMS = (
    select(task_instance.c.task_id, task_instance.c.map_index, xcom.c.value)
    .join(xcom, xcom.c.attempt_id == task_instance.c.attempt_id)
    .where(
        task_instance.c.dag_run_id == bindparam("id"),
        task_instance.c.task_id.in_(bindparam("task_ids", expanding=True)),
        task_instance.c.state == TaskState.SUCCESS,
    )
)


def read_xcoms(
    connection: Connection, id: int, task_ids: Iterable[str], map_index: int | None = None
) -> dict[Instance, Json]:
    """The XComs of all instances of these tasks of the run: of those that succeeded, of the attempt that made it so.

    `yarrow.mapping.visible_xcoms` makes of them what one task instance sees.

    Args:
        map_index: Only of the instances with this index.
    """
    query = _XCOMS if map_index is None else _XCOMS.where(task_instance.c.map_index == map_index)
    rows = connection.execute(query, {"id": id, "task_ids": sorted(task_ids)})
    return {(row[0], row[1]): row[2] for row in rows}

"""Tasks of runs as a whole: however many instances a mapped task has, it is one line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import groupby

from sqlalchemy import Connection, func, select

from yarrow.states import TaskState
from yarrow.store.records import TaskSummary
from yarrow.store.rows import AnyRow
from yarrow.store.tables import task_instance
from yarrow.store.transitions import CHUNK, chunks

_GROUPS = select(
    task_instance.c.dag_run_id,
    task_instance.c.task_id,
    task_instance.c.state,
    func.count().label("instances"),
    func.max(task_instance.c.map_index).label("last_index"),
    func.min(task_instance.c.id).label("place"),
    func.min(task_instance.c.started_at).label("started_at"),
    func.max(task_instance.c.ended_at).label("ended_at"),
).group_by(task_instance.c.dag_run_id, task_instance.c.task_id, task_instance.c.state)


def task_summaries(connection: Connection, ids: Collection[int]) -> dict[int, list[TaskSummary]]:
    """For each run id its tasks in the topological order of its DAG version."""
    found: dict[int, list[TaskSummary]] = {id: [] for id in ids}
    for chunk in chunks(sorted(ids), CHUNK):
        rows = connection.execute(_GROUPS.where(task_instance.c.dag_run_id.in_(chunk))).all()
        for summary in _summed(rows):
            found[summary.dag_run_id].append(summary)
    return found


def _summed(rows: Iterable[AnyRow]) -> list[TaskSummary]:
    by_task = sorted(rows, key=lambda row: (row.dag_run_id, row.task_id))
    groups = [list(group) for _, group in groupby(by_task, key=lambda row: (row.dag_run_id, row.task_id))]
    # The rows of a run were made in the order of its tasks, the first of a mapped task with them.
    groups.sort(key=lambda group: min(row.place for row in group))
    return [_summary(group) for group in groups]


def _summary(found: Sequence[AnyRow]) -> TaskSummary:
    # Instances that are history are told of only where a task has no other.
    group = [row for row in found if row.state is not TaskState.REMOVED] or found
    starts = [row.started_at for row in group if row.started_at]
    ends = [row.ended_at for row in group if row.ended_at]
    return TaskSummary(
        dag_run_id=group[0].dag_run_id,
        task_id=group[0].task_id,
        mapped=max(row.last_index for row in group) >= 0,
        states={row.state: row.instances for row in group},
        started_at=min(starts, default=None),
        ended_at=max(ends, default=None) if all(row.state.finished for row in group) else None,
    )

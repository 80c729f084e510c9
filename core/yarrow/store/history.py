"""What past runs tell about those to come: how long tasks take."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Float, Select, bindparam, cast, func, select

from yarrow.states import AttemptState, TaskState
from yarrow.store.database import Database
from yarrow.store.tables import attempt, dag, dag_run, task_instance

NEWEST_RUNS: Final = 20
"""How many ended runs of a DAG are looked at."""


class History:
    """The past. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def durations(self, dag_ids: Collection[str] | None = None) -> Mapping[str, Mapping[str, float]]:
        """How long tasks took when they succeeded, over the newest runs of each DAG that have ended.

        Args:
            dag_ids: The DAGs; None: all that have a file.

        Returns:
            The mean in seconds by task id, by dag id. A task that never succeeded in them is absent, and so is a
            result that was taken from the cache.
        """

        def work(connection: Connection) -> dict[str, dict[str, float]]:
            named = dag_ids if dag_ids is not None else connection.execute(_ACTIVE).scalars().all()
            found = {dag_id: mean_durations(connection, dag_id) for dag_id in named}
            return {dag_id: means for dag_id, means in found.items() if means}

        return self._database.read(work)


def mean_durations(connection: Connection, dag_id: str) -> dict[str, float]:
    """How many seconds the tasks of a DAG took when they succeeded, as `History.durations` tells it."""
    query = _durations(connection.dialect.name)
    return {str(row[0]): float(row[1]) for row in connection.execute(query, {"of_dag_id": dag_id})}


_ACTIVE = select(dag.c.dag_id).where(dag.c.is_active).order_by(dag.c.dag_id)
_NEWEST = (
    select(dag_run.c.id)
    .where(dag_run.c.dag_id == bindparam("of_dag_id"), dag_run.c.ended_at.is_not(None))
    .order_by(dag_run.c.ended_at.desc())
    .limit(NEWEST_RUNS)
)


def _durations(dialect: str) -> Select[*tuple[Any, ...]]:
    took: ColumnElement[float]
    if dialect == "sqlite":
        took = (func.julianday(task_instance.c.ended_at) - func.julianday(task_instance.c.started_at)) * 86_400.0
    else:
        took = cast(func.extract("epoch", task_instance.c.ended_at - task_instance.c.started_at), Float)
    return (
        select(task_instance.c.task_id, func.round(cast(func.avg(took) * 1000, Float)) / 1000.0)
        .join(attempt, attempt.c.attempt_id == task_instance.c.attempt_id)
        .where(
            task_instance.c.dag_run_id.in_(_NEWEST.scalar_subquery()),
            task_instance.c.state == TaskState.SUCCESS,
            attempt.c.state == AttemptState.SUCCESS,  # else a person has marked it, and it took no time that tells
            task_instance.c.cached.is_(False),
            task_instance.c.started_at.is_not(None),
            task_instance.c.ended_at.is_not(None),
        )
        .group_by(task_instance.c.task_id)
        .order_by(task_instance.c.task_id)
    )

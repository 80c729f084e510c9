"""What the success of a task instance publishes."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from yarrow.language.spec import DagSpec
from yarrow.store import datasets
from yarrow.store.database import Database
from yarrow.store.transitions import Subject


def publish(database: Database, connection: Connection, spec: DagSpec, subject: Subject, at: datetime) -> None:
    """Publishes the data sets of the task, if it has any. It locks rows of DAGs: the last thing a transaction does."""
    outlets = spec.tasks[subject.task_id].outlets
    if outlets:
        datasets.published(
            database,
            connection,
            outlets,
            dag_id=subject.dag_id,
            run_id=subject.run_id,
            task_id=subject.task_id,
            map_index=subject.map_index,
            who=f"task {subject.dag_id} {subject.run_id} {subject.task_id}",
            at=at,
        )

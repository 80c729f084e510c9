"""How a run of another DAG, or a task in it, is doing: what a task that waits for it asks."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, bindparam, select

from yarrow.errors import NotFound
from yarrow.states import FAILED_TASK_STATES, TaskState
from yarrow.store.catalog import did_you_mean, read_dag
from yarrow.store.specs import Specs
from yarrow.store.tables import dag_run, task_instance

_NEWEST_RUN = (
    select(dag_run.c.id, dag_run.c.run_id, dag_run.c.state)
    .where(dag_run.c.dag_id == bindparam("dag_id"), dag_run.c.logical_date == bindparam("date"))
    .order_by(dag_run.c.id.desc())
    .limit(1)
)
_STATES = (
    select(task_instance.c.state)
    .where(task_instance.c.dag_run_id == bindparam("id"), task_instance.c.task_id == bindparam("task_id"))
    .distinct()
)
_FURTHEST_FIRST = (
    TaskState.RUNNING,
    TaskState.QUEUED,
    TaskState.SCHEDULED,
    TaskState.UP_FOR_RESCHEDULE,
    TaskState.UP_FOR_RETRY,
    TaskState.AWAITING_INPUT,
    TaskState.NONE,
)


def awaited(
    connection: Connection, specs: Specs, dag_id: str, task_id: str | None, logical_date: datetime
) -> tuple[str, str] | None:
    """The run_id of the newest run of a DAG with this logical date, and its state or that of a task in it.

    Returns:
        None: there is no such run yet.

    Raises:
        NotFound: There is no such DAG, or it has no such task.
    """
    dag = read_dag(connection, dag_id)
    run = connection.execute(_NEWEST_RUN, {"dag_id": dag_id, "date": logical_date}).one_or_none()
    if task_id is None:
        return None if run is None else (run.run_id, str(run.state))
    tasks = specs.get(connection, dag_id, dag.version).tasks
    states = set() if run is None else set(connection.execute(_STATES, {"id": run.id, "task_id": task_id}).scalars())
    if not states and task_id not in tasks:
        raise NotFound(f"The DAG {dag_id!r} has no task {task_id!r}.", hint=did_you_mean(task_id, tasks))
    if run is None:
        return None
    # A task that is newer than the run will never be in it.
    return run.run_id, str(summary(states) if states else TaskState.REMOVED)


def summary(states: Collection[TaskState]) -> TaskState:
    """One state for all instances of a task.

    While one is unfinished it is the state of the one that is furthest; then failed when one has failed or could not
    run, else success when one has succeeded, else what all of them are. What is removed counts last.
    """
    states = {state for state in states if state is not TaskState.REMOVED} or states
    for state in _FURTHEST_FIRST:
        if state in states:
            return state
    if not FAILED_TASK_STATES.isdisjoint(states):
        return TaskState.FAILED if TaskState.FAILED in states else TaskState.UPSTREAM_FAILED
    return TaskState.SUCCESS if TaskState.SUCCESS in states else next(iter(states))

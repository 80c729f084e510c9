"""DAGs that pause themselves: after too many failed runs in a row."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, literal_column, select, update

from yarrow.states import RunState
from yarrow.store.specs import Specs
from yarrow.store.tables import dag, dag_run, event
from yarrow.store.transitions import SCHEDULER, append, history_line

_DAG = select(dag.c.version, dag.c.is_paused).where(dag.c.dag_id == bindparam("id"))
_LOCK = select(dag.c.dag_id).where(dag.c.dag_id == bindparam("id")).with_for_update()
_PAUSE = (
    update(dag)
    .where(dag.c.dag_id == bindparam("id"), ~dag.c.is_paused)
    .values(is_paused=True, updated_at=bindparam("at"))
)
_UNPAUSED = (
    select(event.c.at)
    .where(
        event.c.dag_id == bindparam("id"),
        event.c.run_id.is_(None),
        event.c.kind == "dag.unpaused",
    )
    .order_by(event.c.id.desc())
    .limit(1)
)
_ENDED = (
    select(dag_run.c.state)
    .where(dag_run.c.dag_id == bindparam("id"), dag_run.c.ended_at.is_not(None))
    .where(dag_run.c.state.in_([literal_column("'success'"), literal_column("'failed'")]))
    .order_by(dag_run.c.ended_at.desc(), dag_run.c.id.desc())
    .limit(bindparam("limit"))
)


def pause_after_failures(connection: Connection, specs: Specs, dag_id: str, at: datetime) -> bool:
    """Pauses a DAG whose newest runs all failed, as many as its newest version allows. Called when a run has failed.

    Only runs that ended since the DAG was unpaused last are counted.
    """
    found = connection.execute(_DAG, {"id": dag_id}).one_or_none()
    if found is None or found.is_paused:
        return False
    limit = specs.get(connection, dag_id, found.version).max_consecutive_failed_dag_runs
    if limit <= 0:
        return False
    connection.execute(_LOCK, {"id": dag_id})  # runs that fail at the same moment have to see each other
    query, parameters = _ENDED, {"id": dag_id, "limit": limit}
    unpaused_at: datetime | None = connection.execute(_UNPAUSED, {"id": dag_id}).scalar()
    if unpaused_at is not None:
        query = query.where(dag_run.c.ended_at > unpaused_at)
    states = connection.execute(query, parameters).scalars().all()
    if len(states) < limit or any(state != RunState.FAILED for state in states):
        return False
    if connection.execute(_PAUSE, {"id": dag_id, "at": at}).rowcount != 1:
        return False
    runs = "The last run failed" if limit == 1 else f"The last {limit} runs failed"
    reason = f"{runs}, as many as `max_consecutive_failed_dag_runs` allows. Unpausing the DAG counts anew."
    append(connection, [history_line("dag.paused", at=at, who=SCHEDULER, dag_id=dag_id, reason=reason)])
    return True

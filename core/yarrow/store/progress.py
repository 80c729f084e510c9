"""How far the scheduled runs of DAGs have come, and what a change of a schedule means for the next one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, select

from yarrow.language.spec import DagSpec
from yarrow.schedules.upcoming import Progress, change_of_schedule, has_changed
from yarrow.store.tables import dag, dag_run
from yarrow.store.transitions import CHUNK, SCHEDULER, chunks, history_line

_NEWEST = and_(
    dag_run.c.dag_id == dag.c.dag_id,
    dag_run.c.logical_date == dag.c.scheduled_through,
    dag_run.c.run_type.in_(["scheduled", "backfill"]),  # a backfill may have been first: there is no other run then
)
_PROGRESS = (
    select(dag.c.dag_id, dag.c.created_at, dag.c.scheduled_through, func.max(dag_run.c.data_interval_end))
    .select_from(dag.outerjoin(dag_run, _NEWEST))
    .group_by(dag.c.dag_id)
)


def progress_of(connection: Connection, dag_ids: Collection[str]) -> dict[str, Progress]:
    """How far the runs of each of these DAGs have come."""
    found: dict[str, Progress] = {}
    for chunk in chunks(sorted(dag_ids), CHUNK):
        rows = connection.execute(_PROGRESS.where(dag.c.dag_id.in_(chunk)))
        found |= {dag_id: Progress(created, through, covered) for dag_id, created, through, covered in rows}
    return found


def schedule_changes(
    connection: Connection, changes: Iterable[tuple[DagSpec, DagSpec]], now: datetime
) -> list[dict[str, Any]]:
    """The lines of the history for DAGs whose (old, new) specs have different schedules and that have had a run."""
    changed = {new.dag_id: (old, new) for old, new in changes if has_changed(old, new)}
    lines = []
    for dag_id, progress in progress_of(connection, changed).items() if changed else ():
        reason = change_of_schedule(*changed[dag_id], progress, now)
        if reason is not None:
            lines.append(history_line("dag.schedule_changed", at=now, who=SCHEDULER, dag_id=dag_id, reason=reason))
    return lines

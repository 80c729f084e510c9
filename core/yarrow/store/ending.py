"""What goes with the end of a run, whoever ends it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, update

from yarrow.language.spec import DagSpec
from yarrow.states import RunState
from yarrow.store import asking, notifications
from yarrow.store.instances import RunRow
from yarrow.store.tables import task_instance
from yarrow.store.transitions import touch_later_versions

_END_WAITS = (
    update(task_instance)
    .where(task_instance.c.dag_run_id == bindparam("subject_id"), task_instance.c.wait_until.is_not(None))
    .values(wait_until=None)
)


def ended(
    connection: Connection, spec: DagSpec, run: RunRow, to_state: RunState, *, at: datetime, reason: str | None
) -> None:
    """Ends what waits in a run that has been moved to its end, and writes down whom to tell of it."""
    connection.execute(_END_WAITS, {"subject_id": run.id})
    if any(task.operator == "approval" for task in spec.tasks.values()):
        asking.close_of_run(connection, run.id)
    touch_later_versions(connection, run.dag_id, spec.version, run.id, run.logical_date)
    notifications.run_moved(
        connection,
        spec,
        run.run_id,
        to_state,
        at=at,
        reason=reason,
        dag_run_id=run.id,
        logical_date=run.logical_date,
    )

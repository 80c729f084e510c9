"""How a plan to clear is carried out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from yarrow.plans.plan import RunChange
from yarrow.store.overruling import Person, change_tasks, fence, lock_runs, touch_later
from yarrow.store.specs import Specs


def carry_out(
    specs: Specs,
    connection: Connection,
    dag_id: str,
    changes: Sequence[RunChange],
    reason: str | None,
    who: str,
    at: datetime,
) -> None:
    """Makes the changes to runs whose rows are locked: few statements, however many runs there are.

    A run that has ended and runs again waits for its start, like any queued run.

    Raises:
        Raced: A run or a task instance is not as the changes have it; the transaction must not be committed.
    """
    person = Person(who, reason, at)
    runs = lock_runs(specs, connection, dag_id, changes)
    change_tasks(specs, connection, runs, person)
    fence(connection, runs, person)
    touch_later(connection, runs)

"""How a plan to mark is carried out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, update

from yarrow.plans.plan import RunChange
from yarrow.states import PERSON_RUN_MOVES, RunState
from yarrow.store.database import Raced
from yarrow.store.ending import ended
from yarrow.store.overruling import Person, Run, change_tasks, fence, lock_runs, touch_later
from yarrow.store.specs import Specs
from yarrow.store.tables import dag_run
from yarrow.store.transitions import append, plain_text, run_event

_END = update(dag_run).where(dag_run.c.id == bindparam("subject_id"), dag_run.c.state == bindparam("from_state"))


def carry_out(
    specs: Specs,
    connection: Connection,
    dag_id: str,
    changes: Sequence[RunChange],
    reason: str | None,
    who: str,
    at: datetime,
) -> None:
    """Makes the changes to runs whose rows are locked.

    A run that is marked, or has nothing left to do, has its end at once; a task that runs in it is being stopped then.
    People are told of that end. It does not count towards the pause of a DAG after so many failures.

    Raises:
        Raced: A run or a task instance is not as the changes have it; the transaction must not be committed.
    """
    person = Person(who, reason, at)
    runs = lock_runs(specs, connection, dag_id, changes)
    change_tasks(specs, connection, runs, person)
    fence(connection, runs, person)
    for run in runs:
        to_state = RunState(run.change.to_state or run.row.state)
        if to_state.finished and to_state is not run.row.state:
            _end(connection, run, to_state, person)
    touch_later(connection, runs)


def _end(connection: Connection, run: Run, to_state: RunState, person: Person) -> None:
    """Moves a run to its end. Raises Raced."""
    if (run.row.state, to_state) not in PERSON_RUN_MOVES:
        raise ValueError(f"nobody moves a run from {run.row.state} to {to_state}")
    text = plain_text(person.sentence("Marked"))
    values = {
        "subject_id": run.row.id,
        "from_state": run.row.state,
        "state": to_state,
        "reason": text,
        "ended_at": person.at,
        "wait_until": None,
    }
    if connection.execute(_END, values).rowcount != 1:
        raise Raced
    names = (run.row.dag_id, run.row.run_id)
    append(connection, [run_event(names, run.row.state, to_state, person.at, person.who, text)])
    ended(connection, run.spec, run.row, to_state, at=person.at, reason=text)

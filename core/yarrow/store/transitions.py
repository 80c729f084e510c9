"""The moves of runs, task instances and attempts: compare-and-set, legal, and each appended to the history.

Rows are locked in one order, so that transactions on PostgreSQL can't wait for each other in a circle:

1. pools, by name: `grant` alone, with which schedulers stand in line
2. the run; a transaction that ends a task instance, or moves many of one run, begins with it. What people do to
   several runs locks these by date and row id
3. its task instances, then their attempts, and what hangs on these: XComs, questions
4. later runs of the same DAG, by date: `touch_later_runs`
5. a result in the cache
6. rows of DAGs, by dag_id: the pause after failures, what a backfill makes runs of, and last of all what a success
   publishes

A claim takes a task instance and its attempt without their run, and the next one, after a report, only if nobody has it
locked. What makes scheduled runs, or starts any, begins with the row of their DAG and locks only runs that are new, or
queued and locked by nobody. Rows of deadlines, notifications and the history are written, and
nothing is waited for while they are locked. Where many rows are updated by one statement their order is the
database's; should two such statements meet the wrong way round, PostgreSQL ends one of them and `Database.write`
repeats it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Select, and_, bindparam, insert, literal_column, or_, select, update

from yarrow.language.spec import DagSpec
from yarrow.states import PERSON_MOVES, RUN_MOVES, TASK_MOVES, AttemptState, RunState, TaskState
from yarrow.store.tables import attempt, dag_run, event, task_instance

T = TypeVar("T")

SCHEDULER = "scheduler"

CHUNK = 1000
"""How many ids stand in one statement: SQLite takes 32,766 parameters, and short statements keep locks short."""


LONGEST_TEXT = 20_000
"""Characters of a reason that are kept."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The task instance that moves, with the names under which the history knows it."""

    id: int
    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    attempt_id: str | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wished of a running attempt, as its row has it."""

    reason: str | None  # None: nothing
    state: str | None  # in which its task instance is to end; None: failed
    overruled: bool  # so a person wants it, whatever the attempt comes to


_MOVE_TASK = update(task_instance).where(
    task_instance.c.id == bindparam("subject_id"), task_instance.c.state == bindparam("from_state")
)
_MOVE_ATTEMPTED_TASK = _MOVE_TASK.where(task_instance.c.attempt_id == bindparam("seen_attempt_id"))
_MOVE_TASKS = (
    update(task_instance)
    .where(
        task_instance.c.id.in_(bindparam("subject_ids", expanding=True)),
        task_instance.c.state == bindparam("from_state"),
    )
    .returning(task_instance.c.id)
)
_MOVE_RUN = update(dag_run).where(dag_run.c.id == bindparam("subject_id"), dag_run.c.state == bindparam("from_state"))
_MOVE_ATTEMPT = update(attempt).where(
    attempt.c.attempt_id == bindparam("subject_id"),
    attempt.c.state == bindparam("from_state"),
    attempt.c.nonce == bindparam("seen_nonce"),
)
_MOVE_ATTEMPT_AS_WISHED = _MOVE_ATTEMPT.where(
    attempt.c.cancel_reason.is_not_distinct_from(bindparam("seen_reason")),
    attempt.c.cancel_state.is_not_distinct_from(bindparam("seen_cancel_state")),
    attempt.c.overruled == bindparam("seen_overruled"),
)
_TOUCH_RUN = update(dag_run).where(dag_run.c.id == bindparam("subject_id")).values(change_seq=dag_run.c.change_seq + 1)
_STOP = update(attempt).where(
    attempt.c.attempt_id == bindparam("subject_id"),
    attempt.c.state == AttemptState.RUNNING,
    attempt.c.cancel_reason.is_(None),
)
_OVERRULE = (
    update(attempt)
    .where(attempt.c.attempt_id.in_(bindparam("ids", expanding=True)), attempt.c.state == AttemptState.RUNNING)
    .values(cancel_reason=bindparam("text"), cancel_state=bindparam("to_state"), overruled=True)
    .returning(attempt.c.attempt_id)
)
_CANCEL = (
    update(attempt)
    .where(attempt.c.state.in_([AttemptState.QUEUED, AttemptState.DEFERRED]))
    .values(
        state=AttemptState.CANCELLED,
        ended_at=bindparam("at"),
        reason=bindparam("why"),
        dispatch_deadline=None,
    )
)
_CANCEL_THESE = _CANCEL.where(attempt.c.attempt_id.in_(bindparam("attempt_ids", expanding=True)))
_CANCEL_OPEN = _CANCEL.where(
    attempt.c.attempt_id.in_(
        select(task_instance.c.attempt_id).where(task_instance.c.id.in_(bindparam("ids", expanding=True)))
    )
)
_TOUCH_RUNS = (
    update(dag_run)
    .where(dag_run.c.id.in_(bindparam("ids", expanding=True)))
    .values(change_seq=dag_run.c.change_seq + 1)
)
_LATER_RUNS = (
    select(dag_run.c.id)
    .where(
        dag_run.c.dag_id == bindparam("dag_id"),
        dag_run.c.state == literal_column("'running'"),
        or_(
            dag_run.c.logical_date > bindparam("date"),
            and_(dag_run.c.logical_date == bindparam("date"), dag_run.c.id > bindparam("run")),
        ),
    )
    .order_by(dag_run.c.logical_date, dag_run.c.id)
    .with_for_update()
)
_LATER_VERSIONS = _LATER_RUNS.where(dag_run.c.version != bindparam("version"))
_APPEND = insert(event)
_BLANK_LINE: Mapping[str, Any] = {column.name: None for column in event.c if column.name != "id"}


def move_task(
    connection: Connection,
    subject: Subject,
    from_state: TaskState,
    to_state: TaskState,
    *,
    at: datetime,
    who: str,
    reason: str | None = None,
    by_person: bool = False,
    **values: Any,
) -> bool:
    """Moves one task instance.

    Args:
        reason: For the history, and for people who look at the task instance, unless that is as if it had never begun.
        by_person: It is what a person wants, who may do more than the engine.
        values: Other columns.

    Returns:
        False, and changes nothing, when it was not in `from_state`, or not at that attempt, any more.
    """
    check_task_move(from_state, to_state, by_person=by_person)
    reason = plain_text(reason)
    values |= {"state": to_state, "reason": None if to_state is TaskState.NONE else reason}
    parameters = {"subject_id": subject.id, "from_state": from_state, **values}
    statement = _MOVE_TASK
    if subject.attempt_id is not None:
        statement = _MOVE_ATTEMPTED_TASK
        parameters["seen_attempt_id"] = subject.attempt_id
    if connection.execute(statement, parameters).rowcount != 1:
        return False
    append(connection, [task_event(subject, from_state, to_state, at, who, reason)])
    return True


def move_tasks(
    connection: Connection,
    subjects: Sequence[Subject],
    from_state: TaskState,
    to_state: TaskState,
    *,
    at: datetime,
    who: str,
    reason: str | None = None,
    by_person: bool = False,
    **values: Any,
) -> set[int]:
    """Moves many task instances alike, as `move_task` does. Returns the ids of those that were in `from_state`."""
    check_task_move(from_state, to_state, by_person=by_person)
    reason = plain_text(reason)
    moved: set[int] = set()
    values |= {"state": to_state, "reason": None if to_state is TaskState.NONE else reason}
    statement = _MOVE_TASKS.values(values)
    for chunk in chunks(sorted(subject.id for subject in subjects), CHUNK):
        moved.update(connection.execute(statement, {"subject_ids": chunk, "from_state": from_state}).scalars())
    append(connection, [task_event(s, from_state, to_state, at, who, reason) for s in subjects if s.id in moved])
    return moved


def move_run(
    connection: Connection,
    id: int,
    names: tuple[str, str],
    from_state: RunState,
    to_state: RunState,
    *,
    at: datetime,
    who: str,
    reason: str | None = None,
    seen_seq: int | None = None,
    **values: Any,
) -> bool:
    """Moves a run, known as `names` (dag_id, run_id).

    Returns:
        False, and changes nothing, when it was not in `from_state`, or not at change `seen_seq`, any more.
    """
    if (from_state, to_state) not in RUN_MOVES:
        raise ValueError(f"a run does not move from {from_state} to {to_state}")
    reason = plain_text(reason)
    statement = _MOVE_RUN if seen_seq is None else _MOVE_RUN.where(dag_run.c.change_seq == seen_seq)
    parameters = {"subject_id": id, "from_state": from_state, "state": to_state, "reason": reason, **values}
    if connection.execute(statement, parameters).rowcount != 1:
        return False
    append(connection, [run_event(names, from_state, to_state, at, who, reason)])
    return True


def move_attempt(
    connection: Connection,
    attempt_id: str,
    nonce: str,
    from_state: AttemptState,
    to_state: AttemptState,
    values: Mapping[str, Any],
    *,
    wish: Wish | None = None,
) -> bool:
    """Moves one attempt. Returns False, and changes nothing, when its state or its nonce is another one by now.

    It is not appended to the history: every such move goes with one of the task instance, which is.

    Args:
        wish: Only if this is still what is wished of it, for nobody has wanted it stopped, or in another way, since.
    """
    if from_state.finished:
        raise ValueError(f"an attempt that is {from_state} never changes again")
    parameters = {
        "subject_id": attempt_id,
        "from_state": from_state,
        "seen_nonce": nonce,
        "state": to_state,
        **values,
    }
    if wish is None:
        return connection.execute(_MOVE_ATTEMPT, parameters).rowcount == 1
    parameters |= {
        "seen_reason": wish.reason,
        "seen_cancel_state": wish.state,
        "seen_overruled": wish.overruled,
    }
    return connection.execute(_MOVE_ATTEMPT_AS_WISHED, parameters).rowcount == 1


def stop_running(
    connection: Connection,
    subjects: Sequence[Subject],
    to_state: TaskState,
    *,
    at: datetime,
    who: str,
    reason: str | None,
) -> list[Subject]:
    """Has the workers of running task instances told to stop them; they end in `to_state` when that has happened.

    Returns:
        Those that still run, at that attempt, and have not been told before.
    """
    text = plain_text(reason) or f"Stopped by {who}."
    told = [
        subject
        for subject in sorted(subjects, key=lambda subject: subject.attempt_id or "")
        if connection.execute(
            _STOP, {"subject_id": subject.attempt_id, "cancel_reason": text, "cancel_state": str(to_state)}
        ).rowcount
        == 1
    ]
    append(connection, [_stop_event(subject, at, who, text) for subject in told])
    return told


def overrule(
    connection: Connection,
    subjects: Sequence[Subject],
    to_state: TaskState,
    *,
    at: datetime,
    who: str,
    reason: str,
) -> bool:
    """Has the workers of running task instances told to stop them, for a person wants them in `to_state`.

    They get there when that has happened, whatever their attempts come to. An older wish, whoever's, counts no more.

    Returns:
        Whether all of these attempts still ran.
    """
    text = plain_text(reason)
    told: set[str] = set()
    for chunk in chunks(sorted(subject.attempt_id or "" for subject in subjects), CHUNK):
        parameters = {"ids": chunk, "text": text, "to_state": str(to_state)}
        told.update(connection.execute(_OVERRULE, parameters).scalars())
    append(connection, [_stop_event(subject, at, who, text or "") for subject in subjects])
    return len(told) == len(subjects)


def cancel_attempts(connection: Connection, attempt_ids: Iterable[str], *, at: datetime, reason: str | None) -> None:
    """Cancels those of these attempts that are queued or put off."""
    for chunk in chunks(sorted(attempt_ids), CHUNK):
        connection.execute(_CANCEL_THESE, {"attempt_ids": chunk, "at": at, "why": plain_text(reason)})


def cancel_open_attempts(connection: Connection, ids: Iterable[int], *, at: datetime, reason: str | None) -> None:
    """Cancels the attempts, queued or put off, of task instances that have been moved to a finished state."""
    for chunk in chunks(sorted(ids), CHUNK):
        connection.execute(_CANCEL_OPEN, {"ids": chunk, "at": at, "why": plain_text(reason)})


def touch_run(connection: Connection, id: int) -> None:
    """Counts that something happened to a task instance of the run, so that it is decided on again."""
    connection.execute(_TOUCH_RUN, {"subject_id": id})


def touch_later_runs(connection: Connection, spec: DagSpec, id: int, logical_date: datetime) -> None:
    """Has the later running runs of a DAG decided on again, because a task of this run has ended.

    Only of a DAG whose tasks look at the run before theirs; for any other this costs nothing.
    """
    if spec.looks_back:
        _touch(connection, _LATER_RUNS, {"dag_id": spec.dag_id, "run": id, "date": logical_date})


def touch_later_versions(connection: Connection, dag_id: str, version: str, id: int, logical_date: datetime) -> None:
    """Has the later running runs of other versions of a DAG decided on again, because this run has ended.

    Their tasks may look at the run before, although no task of this version does.
    """
    parameters = {"dag_id": dag_id, "run": id, "date": logical_date, "version": version}
    _touch(connection, _LATER_VERSIONS, parameters)


def touch_all_later_runs(connection: Connection, dag_id: str, id: int, logical_date: datetime) -> None:
    """Has all later running runs of a DAG decided on again, because another run is the one before them now."""
    _touch(connection, _LATER_RUNS, {"dag_id": dag_id, "run": id, "date": logical_date})


def _touch(connection: Connection, query: Select[tuple[int]], parameters: Mapping[str, Any]) -> None:
    # Each transaction locks its own run first and then later ones, all in this order: no two wait for each other.
    for chunk in chunks(connection.execute(query, parameters).scalars().all(), CHUNK):
        connection.execute(_TOUCH_RUNS, {"ids": chunk})


def append(connection: Connection, events: Sequence[Mapping[str, Any]]) -> None:
    """Appends to the history."""
    if events:
        connection.execute(_APPEND, list(events))


def task_event(
    subject: Subject, from_state: TaskState, to_state: TaskState, at: datetime, who: str, reason: str | None
) -> dict[str, Any]:
    """The history's line for a move of a task instance."""
    return history_line(
        "task.state",
        **_names(subject),
        at=at,
        who=who,
        from_state=from_state,
        to_state=to_state,
        reason=reason,
    )


def run_event(
    names: tuple[str, str], from_state: RunState | None, to_state: RunState, at: datetime, who: str, reason: str | None
) -> dict[str, Any]:
    """The history's line for a move of a run, or for its creation."""
    dag_id, run_id = names
    return history_line(
        "run.state",
        at=at,
        who=who,
        dag_id=dag_id,
        run_id=run_id,
        from_state=from_state,
        to_state=to_state,
        reason=reason,
    )


def _stop_event(subject: Subject, at: datetime, who: str, reason: str) -> dict[str, Any]:
    return history_line("task.cancel", **_names(subject), at=at, who=who, reason=reason)


def _names(subject: Subject) -> dict[str, Any]:
    return {
        "dag_id": subject.dag_id,
        "run_id": subject.run_id,
        "task_id": subject.task_id,
        "map_index": subject.map_index,
        "attempt_id": subject.attempt_id,
    }


def history_line(kind: str, **columns: Any) -> dict[str, Any]:
    """One line of the history, with every column, so that lines of all kinds go in with one statement."""
    return {**_BLANK_LINE, "kind": kind, **columns}


def check_task_move(from_state: TaskState, to_state: TaskState, *, by_person: bool = False) -> None:
    """Raises ValueError for a move that the engine, or a person, may not make."""
    if (from_state, to_state) not in (PERSON_MOVES if by_person else TASK_MOVES):
        raise ValueError(f"a task instance does not move from {from_state} to {to_state}")


def plain_text(text: str | None) -> str | None:
    """The text as every database takes it: without NUL and half characters, and not without end."""
    if text is None:
        return None
    return text[:LONGEST_TEXT].replace("\0", "").encode("utf-8", "replace").decode()


def chunks(items: Iterable[T], size: int) -> Iterable[list[T]]:
    """The items in lists of at most `size`."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk

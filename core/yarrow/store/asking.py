"""Questions to people: how they are put down, answered and closed. The moves of their task instances go with them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from yarrow.approvals import APPROVE
from yarrow.decision.decisions import Question
from yarrow.states import AttemptState, TaskState
from yarrow.store.database import Database, upsert
from yarrow.store.rows import AnyRow
from yarrow.store.tables import approval, attempt, task_instance, xcom
from yarrow.store.transitions import CHUNK, Subject, chunks, move_task, plain_text
from yarrow.tokens import new_nonce

CLOSED = "closed"
"""In place of an answer: nobody gave one, and nobody can any more."""

BY_DEFAULT = "default"
"""Who answers when nobody does."""

_ADD_ATTEMPT = insert(attempt)
_ADD_XCOM = insert(xcom)
_ASKED = (
    select(approval.c.asked_at, task_instance.c.queue, task_instance.c.try_number)
    .join(task_instance, task_instance.c.id == approval.c.task_instance_id)
    .where(approval.c.task_instance_id == bindparam("id"), approval.c.answer.is_(None))
)
_ANSWER = update(approval).where(approval.c.task_instance_id == bindparam("subject_id"), approval.c.answer.is_(None))
_CLOSE = (
    update(approval)
    .where(approval.c.task_instance_id.in_(bindparam("ids", expanding=True)), approval.c.answer.is_(None))
    .values(answer=CLOSED)
)
_CLOSE_OF_RUN = (
    update(approval)
    .where(
        approval.c.task_instance_id.in_(
            select(task_instance.c.id).where(task_instance.c.dag_run_id == bindparam("run"))
        ),
        approval.c.answer.is_(None),
    )
    .values(answer=CLOSED)
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody said, and when."""

    word: str  # approve or reject
    by: str
    at: datetime
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an answer makes of its task instance."""

    state: TaskState
    follow: Sequence[str] | None = None  # () cuts off what comes after it
    reason: str | None = None


def ask(database: Database, connection: Connection, asked: Iterable[tuple[int, Question]], at: datetime) -> None:
    """Puts down what these task instances ask. One that asks anew forgets the answer that it had."""
    rows = [
        {
            "task_instance_id": id,
            "message": plain_text(question.message),
            "default_answer": question.default,
            "asked_at": at,
            "due_at": question.due_at,
            "answer": None,
            "answered_at": None,
            "answered_by": None,
            "comment": None,
        }
        for id, question in asked
    ]
    if rows:
        connection.execute(upsert(database, approval, [approval.c.task_instance_id]), rows)


def settle(
    database: Database, connection: Connection, subject: Subject, answer: Answer, outcome: Outcome, who: str
) -> bool:
    """Ends a task instance as its answer says, with an attempt that nobody executed, whose XCom is the answer.

    Returns:
        False, and changes nothing, when it does not wait for an answer any more.
    """
    asked = connection.execute(_ASKED, {"id": subject.id}).one_or_none()
    if asked is None:
        return False
    attempt_id = database.new_id()
    moved = move_task(
        connection,
        subject,
        TaskState.AWAITING_INPUT,
        outcome.state,
        at=answer.at,
        who=who,
        reason=outcome.reason,
        attempt_id=attempt_id,
        try_number=asked.try_number + 1,
        follow=None if outcome.follow is None else list(outcome.follow),
        wait_until=None,
        ended_at=answer.at,
    )
    if moved:
        connection.execute(_ADD_ATTEMPT, _attempt_row(subject, attempt_id, asked, answer, outcome))
        if outcome.state is TaskState.SUCCESS:
            connection.execute(_ADD_XCOM, {"attempt_id": attempt_id, "value": _told(answer)})
        connection.execute(_ANSWER, {"subject_id": subject.id, **_columns(answer)})
    return moved


def close(connection: Connection, ids: Collection[int]) -> None:
    """Closes what these task instances still ask, for they have ended without an answer."""
    for chunk in chunks(sorted(ids), CHUNK):
        connection.execute(_CLOSE, {"ids": chunk})


def close_of_run(connection: Connection, dag_run_id: int) -> None:
    """Closes what the task instances of a run still ask, for it has ended."""
    connection.execute(_CLOSE_OF_RUN, {"run": dag_run_id})


def _attempt_row(subject: Subject, attempt_id: str, asked: AnyRow, answer: Answer, outcome: Outcome) -> dict[str, Any]:
    return {
        "attempt_id": attempt_id,
        "task_instance_id": subject.id,
        "try_number": asked.try_number + 1,
        "state": AttemptState(outcome.state),
        "queue": asked.queue,
        "nonce": new_nonce(),
        "created_at": asked.asked_at,
        "reason": plain_text(outcome.reason),
        "started_at": asked.asked_at,
        "ended_at": answer.at,
    }


def _told(answer: Answer) -> dict[str, Any]:
    """The XCom of an answered question."""
    return {
        "approved": answer.word == APPROVE,
        "by": answer.by,
        "comment": answer.comment,
        "at": answer.at.isoformat(),
    }


def _columns(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer.word,
        "answered_at": answer.at,
        "answered_by": answer.by,
        "comment": answer.comment,
    }

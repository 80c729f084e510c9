"""Approvals: what runs ask people, and the answers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, CursorResult, bindparam, select

from yarrow import approvals
from yarrow.errors import Conflict, NotFound
from yarrow.states import TaskState
from yarrow.store import asking, notifications, outlets
from yarrow.store.asking import Answer, Outcome
from yarrow.store.database import Database, Raced
from yarrow.store.records import ApprovalRecord
from yarrow.store.rows import AnyRow, columns_of
from yarrow.store.runs import Runs
from yarrow.store.specs import Specs
from yarrow.store.tables import approval, dag_run, task_instance
from yarrow.store.transitions import Subject, plain_text, touch_later_runs, touch_run

_COLUMNS = columns_of(ApprovalRecord, approval, task_instance, dag_run)
_JOINED = approval.join(task_instance, task_instance.c.id == approval.c.task_instance_id).join(
    dag_run, dag_run.c.id == task_instance.c.dag_run_id
)
_OPEN = (
    select(*_COLUMNS)
    .select_from(_JOINED)
    .where(approval.c.answer.is_(None))
    .order_by(approval.c.asked_at, approval.c.task_instance_id)
)
_RUN = select(dag_run.c.id).where(
    dag_run.c.dag_id == bindparam("of_dag_id"), dag_run.c.run_id == bindparam("of_run_id")
)
_ONE = (
    select(
        *_COLUMNS,
        task_instance.c.id,
        task_instance.c.attempt_id,
        dag_run.c.version,
        dag_run.c.logical_date,
    )
    .select_from(_JOINED)
    .where(
        dag_run.c.dag_id == bindparam("of_dag_id"),
        dag_run.c.run_id == bindparam("of_run_id"),
        task_instance.c.task_id == bindparam("of_task_id"),
        task_instance.c.map_index == bindparam("of_map_index"),
    )
)


class Approvals:
    """Questions to people. Every method is one transaction."""

    def __init__(self, database: Database, specs: Specs) -> None:
        self._database = database
        self._specs = specs

    def open(self, dag_id: str | None = None) -> list[ApprovalRecord]:
        """The questions that nobody has answered yet, the oldest first; of one DAG or of all."""
        query = _OPEN if dag_id is None else _OPEN.where(dag_run.c.dag_id == dag_id)
        return self._database.read(lambda connection: [ApprovalRecord(*row) for row in connection.execute(query)])

    def get(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> ApprovalRecord:
        """What a task instance asks, or asked. Raises NotFound."""
        row = self._database.read(
            lambda connection: _read(connection, dag_id, run_id, task_id, map_index).one_or_none()
        )
        if row is not None:
            return _record(row)
        instance = Runs(self._database, self._specs).task_instance(dag_id, run_id, task_id, map_index)
        raise NotFound(
            f"The task {task_id!r} of the run {run_id!r} of the DAG {dag_id!r} asks nothing: it is {instance.state}.",
            hint="`yarrow approvals list` shows what is asked.",
        )

    def answer(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int = -1,
        *,
        approve: bool,
        who: str,
        comment: str | None = None,
        now: datetime | None = None,
    ) -> ApprovalRecord:
        """Answers what a task instance asks, and ends it so that its run goes on.

        Raises:
            NotFound: There is no such task instance, or it asks nothing.
            Conflict: It has been answered or closed before, or its deadline has passed.
        """
        at = self._database.now(now)
        word, by = approvals.APPROVE if approve else approvals.REJECT, str(plain_text(who))
        answer = Answer(word, by, at, plain_text(comment))

        self.get(dag_id, run_id, task_id, map_index)

        def work(connection: Connection) -> ApprovalRecord:
            # The run comes first, as in every transaction that moves its tasks.
            touch_run(connection, connection.execute(_RUN, {"of_dag_id": dag_id, "of_run_id": run_id}).scalar_one())
            row = _read(connection, dag_id, run_id, task_id, map_index).one()
            _check_open(row, at)
            self._settle(connection, row, answer)
            return _record(_read(connection, dag_id, run_id, task_id, map_index).one())

        return self._database.write(work)

    def _settle(self, connection: Connection, row: AnyRow, answer: Answer) -> None:
        spec = self._specs.get(connection, row.dag_id, row.version)
        state, follow = approvals.outcome(spec.tasks[row.task_id], answer.word)
        outcome = Outcome(state, follow, _reason(answer))
        subject = Subject(row.id, row.dag_id, row.run_id, row.task_id, row.map_index, row.attempt_id)
        if not asking.settle(self._database, connection, subject, answer, outcome, answer.by):
            raise Raced
        touch_later_runs(connection, spec, row.dag_run_id, row.logical_date)
        notifications.task_moved(
            connection,
            spec,
            subject,
            state,
            at=answer.at,
            reason=outcome.reason,
            dag_run_id=row.dag_run_id,
            logical_date=row.logical_date,
        )
        if state is TaskState.SUCCESS and answer.word == approvals.APPROVE:
            outlets.publish(self._database, connection, spec, subject, answer.at)


def _read(connection: Connection, dag_id: str, run_id: str, task_id: str, map_index: int) -> CursorResult[Any]:
    names = {"of_dag_id": dag_id, "of_run_id": run_id, "of_task_id": task_id, "of_map_index": map_index}
    return connection.execute(_ONE, names)


def _record(row: AnyRow) -> ApprovalRecord:
    return ApprovalRecord(*row[: len(_COLUMNS)])


def _check_open(row: AnyRow, at: datetime) -> None:
    what = f"The question of the task {row.task_id!r} of the run {row.run_id!r} of the DAG {row.dag_id!r}"
    if row.answer is not None and row.answer != asking.CLOSED:
        given = f"{row.answer}, by {row.answered_by} at {row.answered_at:%Y-%m-%d %H:%M} UTC"
        raise Conflict(f"{what} has been answered before: {given}.")
    if row.answer is not None or row.state is not TaskState.AWAITING_INPUT:
        raise Conflict(f"{what} is closed: the task is {row.state}.")
    if row.due_at is not None and row.due_at <= at:
        counts = f"the answer is {row.default_answer} by default" if row.default_answer else "the task fails"
        raise Conflict(f"{what} was to be answered by {row.due_at:%Y-%m-%d %H:%M} UTC. It is too late now: {counts}.")


def _reason(answer: Answer) -> str:
    verb = "Approved" if answer.word == approvals.APPROVE else "Rejected"
    return f"{verb} by {answer.by}." if not answer.comment else f"{verb} by {answer.by}: {answer.comment}"

"""How decisions on runs are carried out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, literal_column, select, update

from yarrow.approvals import REJECT
from yarrow.decision.decisions import Decisions, RunDecision, TaskDecision
from yarrow.errors import NotFound
from yarrow.language.spec import DagSpec
from yarrow.mapping import Instance
from yarrow.states import RunState, TaskState
from yarrow.store import asking, notifications, outlets
from yarrow.store.database import Database
from yarrow.store.ending import ended
from yarrow.store.instances import expand
from yarrow.store.pausing import pause_after_failures
from yarrow.store.rows import AnyRow
from yarrow.store.specs import Specs
from yarrow.store.tables import dag_run, task_instance
from yarrow.store.transitions import (
    CHUNK,
    Subject,
    cancel_open_attempts,
    chunks,
    move_run,
    move_tasks,
    plain_text,
    stop_running,
    touch_later_runs,
)

_RUNNING = dag_run.c.state == literal_column("'running'")  # a partial index wants the word itself, not a parameter
_LOCKED = (
    select(
        dag_run.c.id,
        dag_run.c.dag_id,
        dag_run.c.run_id,
        dag_run.c.version,
        dag_run.c.logical_date,
        dag_run.c.state,
        dag_run.c.decided_seq,
        dag_run.c.fenced_seq,
        dag_run.c.priority_class,
    )
    .where(dag_run.c.id == bindparam("id"))
    .with_for_update()
)
_SUBJECTS = select(
    task_instance.c.id, task_instance.c.task_id, task_instance.c.map_index, task_instance.c.attempt_id
).where(
    task_instance.c.dag_run_id == bindparam("id"),
    task_instance.c.task_id.in_(bindparam("task_ids", expanding=True)),
    task_instance.c.map_index.in_(bindparam("map_indexes", expanding=True)),
)
_UPDATE_RUN = update(dag_run).where(dag_run.c.id == bindparam("subject_id"))
_WITH_OPEN_ATTEMPT = frozenset({TaskState.SCHEDULED, TaskState.QUEUED, TaskState.UP_FOR_RESCHEDULE})


@dataclass(frozen=True, slots=True)
class _Act:
    """Decisions on one run being carried out: where, on what, by whom and when."""

    database: Database
    connection: Connection
    specs: Specs
    spec: DagSpec
    run: AnyRow
    queued_timeout: float
    who: str
    at: datetime

    @property
    def names(self) -> tuple[str, str]:
        return self.run.dag_id, self.run.run_id


def apply(
    database: Database,
    specs: Specs,
    connection: Connection,
    id: int,
    decisions: Decisions,
    seen_seq: int,
    queued_timeout: float,
    who: str,
    at: datetime,
) -> bool:
    """Carries out decisions on a snapshot. Returns whether all of it could be.

    Nothing is done when a person has cleared or marked anything in the run since.
    """
    run = connection.execute(_LOCKED, {"id": id}).one_or_none()
    if run is None or run.state != RunState.RUNNING or seen_seq < run.fenced_seq:
        return False
    spec = specs.get(connection, run.dag_id, run.version)
    act = _Act(database, connection, specs, spec, run, queued_timeout, who, at)
    if run.decided_seq < run.fenced_seq:
        # For the first time since a person changed it. While it was queued later runs looked past it; what they wait
        # for may have ended in it before, and then nothing else tells them.
        touch_later_runs(connection, spec, id, run.logical_date)
    expanded = [expand(connection, run, spec, one, at=at, who=who) for one in decisions.expansions]
    moved, succeeded = _move_tasks(act, decisions.tasks)
    complete = all(expanded) and moved == len(decisions.tasks)
    settled = {"quarantine_until": None, "quarantine_count": 0}
    if decisions.run is not None:
        complete = complete and _end_run(act, decisions.run, seen_seq, settled)
    elif run.decided_seq <= seen_seq:  # else another scheduler has decided on a later state
        seen = {"decided_seq": seen_seq, "wait_until": decisions.wait_until, "reason": None} if complete else {}
        connection.execute(_UPDATE_RUN, {"subject_id": id, **settled, **seen})
    for subject in succeeded:
        outlets.publish(database, connection, spec, subject, at)
    return complete


def _end_run(act: _Act, decision: RunDecision, seen_seq: int, settled: Mapping[str, Any]) -> bool:
    moved = move_run(
        act.connection,
        act.run.id,
        act.names,
        RunState.RUNNING,
        decision.to_state,
        at=act.at,
        who=act.who,
        reason=decision.reason,
        seen_seq=seen_seq,
        ended_at=act.at,
        decided_seq=seen_seq,
        wait_until=None,
        **settled,
    )
    if not moved:
        return False
    ended(act.connection, act.spec, act.run, decision.to_state, at=act.at, reason=decision.reason)
    if decision.to_state is RunState.FAILED:
        pause_after_failures(act.connection, act.specs, act.run.dag_id, act.at)
    return True


def _move_tasks(act: _Act, decisions: Sequence[TaskDecision]) -> tuple[int, list[Subject]]:
    """Makes the moves, those that are alike with few statements.

    Returns:
        How many were possible, and the task instances that succeeded by it.
    """
    subjects = _subjects(act, decisions)
    alike: dict[tuple[Any, ...], list[TaskDecision]] = {}
    for decision in decisions:
        due_at = decision.question.due_at if decision.question is not None else None
        key = (decision.from_state, decision.to_state, decision.reason, due_at, decision.answer, decision.follow)
        alike.setdefault(key, []).append(decision)
    moved = 0
    succeeded: list[Subject] = []
    for chosen in alike.values():
        found = _answer(act, subjects, chosen) if chosen[0].answer else _move_alike(act, subjects, chosen)
        moved += len(found)
        if chosen[0].to_state is TaskState.SUCCESS and chosen[0].answer != REJECT:
            succeeded += found
    if any(decision.to_state.finished for decision in decisions):
        touch_later_runs(act.connection, act.spec, act.run.id, act.run.logical_date)
    return moved, succeeded


def _subjects(act: _Act, decisions: Sequence[TaskDecision]) -> dict[Instance, Subject]:
    """The task instances that are decided on; one that is not there (any more) is absent."""
    found: dict[Instance, Subject] = {}
    for chunk in chunks(((decision.task_id, decision.map_index) for decision in decisions), CHUNK):
        wanted = set(chunk)
        task_ids, map_indexes = ({one[part] for one in chunk} for part in (0, 1))
        parameters = {"id": act.run.id, "task_ids": sorted(task_ids), "map_indexes": sorted(map_indexes)}
        for id, task_id, map_index, attempt_id in act.connection.execute(_SUBJECTS, parameters):
            if (task_id, map_index) in wanted:
                found[task_id, map_index] = Subject(id, *act.names, task_id, map_index, attempt_id)
    return found


def _move_alike(act: _Act, subjects: Mapping[Instance, Subject], decisions: Sequence[TaskDecision]) -> list[Subject]:
    """Makes moves that differ in their task instance alone. Returns the task instances that were moved."""
    from_state, to_state, reason = decisions[0].from_state, decisions[0].to_state, decisions[0].reason
    chosen = {
        subject.id: (subject, decision)
        for decision in decisions
        if (subject := subjects.get((decision.task_id, decision.map_index))) is not None
    }
    movable = [subject for subject, _ in chosen.values()]
    if from_state is TaskState.RUNNING:
        return stop_running(act.connection, movable, to_state, at=act.at, who=act.who, reason=reason)
    values = _values(act, decisions[0])
    moved = move_tasks(act.connection, movable, from_state, to_state, at=act.at, who=act.who, reason=reason, **values)
    if to_state is TaskState.AWAITING_INPUT:
        asked = [(id, question) for id in sorted(moved) if (question := chosen[id][1].question) is not None]
        asking.ask(act.database, act.connection, asked, act.at)
    elif from_state is TaskState.AWAITING_INPUT:
        asking.close(act.connection, moved)
    elif from_state in _WITH_OPEN_ATTEMPT and to_state.finished:
        cancel_open_attempts(act.connection, moved, at=act.at, reason=reason)
    subjects_moved = [chosen[id][0] for id in sorted(moved)]
    _tell(act, subjects_moved, to_state, reason)
    return subjects_moved


def _tell(act: _Act, subjects: Sequence[Subject], to_state: TaskState, reason: str | None) -> None:
    """Writes down whom to tell of moves that were made."""
    for subject in subjects if to_state in notifications.TASK_KINDS else ():
        notifications.task_moved(
            act.connection,
            act.spec,
            subject,
            to_state,
            at=act.at,
            reason=reason,
            dag_run_id=act.run.id,
            logical_date=act.run.logical_date,
        )


def _values(act: _Act, decision: TaskDecision) -> dict[str, Any]:
    """The columns that go with a move that was decided on."""
    if decision.to_state is TaskState.SCHEDULED:
        deadline = act.at + timedelta(seconds=act.queued_timeout)
        return {"scheduled_at": act.at, "wait_until": deadline, "ended_at": None}
    if decision.to_state is TaskState.AWAITING_INPUT:
        due_at = decision.question.due_at if decision.question is not None else None
        return {"started_at": act.at, "wait_until": due_at, "ended_at": None}
    return {"wait_until": None, "ended_at": act.at}


def _answer(act: _Act, subjects: Mapping[Instance, Subject], decisions: Sequence[TaskDecision]) -> list[Subject]:
    """Gives the answers that count because nobody gave one. Returns the task instances that still waited for it."""
    answered: list[Subject] = []
    for decision in decisions:
        subject = subjects.get((decision.task_id, decision.map_index))
        answer = asking.Answer(str(decision.answer), asking.BY_DEFAULT, act.at)
        outcome = asking.Outcome(decision.to_state, decision.follow, decision.reason)
        if subject is not None and asking.settle(act.database, act.connection, subject, answer, outcome, act.who):
            answered.append(subject)
    _tell(act, answered, decisions[0].to_state, decisions[0].reason)
    return answered


def quarantine(connection: Connection, id: int, error: str, until: datetime) -> int:
    """Leaves a run alone until then. Returns how often in a row that has happened."""
    statement = (
        update(dag_run)
        .where(dag_run.c.id == id, _RUNNING)
        .values(
            quarantine_until=until,
            wait_until=until,
            quarantine_count=dag_run.c.quarantine_count + 1,
            reason=plain_text(error),
        )
        .returning(dag_run.c.quarantine_count)
    )
    count: int | None = connection.execute(statement).scalar_one_or_none()
    if count is None:
        raise NotFound(f"There is no running run with id {id}.")
    return count

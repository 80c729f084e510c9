"""Who may go next: from scheduled to queued, by priority and within every limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Select,
    and_,
    bindparam,
    false,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from yarrow.states import AttemptState, TaskState
from yarrow.store.database import Database, Raced
from yarrow.store.rows import AnyRow
from yarrow.store.tables import attempt, dag, dag_run, pool, task_instance
from yarrow.store.transitions import SCHEDULER, Subject, append, check_task_move, move_attempt, move_task, task_event
from yarrow.tokens import new_nonce

ALL_QUEUES = "*"
"""What a worker that serves every queue says of itself."""

PAGE = 1000
"""How many candidates are read at once, at most."""

# Partial indexes want these conditions with the words themselves, not with parameters.
_SCHEDULED = task_instance.c.state == literal_column("'scheduled'")
_QUEUED = task_instance.c.state == literal_column("'queued'")
_IN_SLOT = task_instance.c.state.in_([literal_column("'queued'"), literal_column("'running'")])

_ANY_SCHEDULED = select(task_instance.c.id).where(_SCHEDULED).limit(1)
_QUEUES_IN_USE = select(task_instance.c.queue).where(_QUEUED).distinct()
_POOLS = select(pool.c.name, pool.c.slots).order_by(pool.c.name).with_for_update()
_USED = (
    select(
        task_instance.c.pool,
        task_instance.c.dag_id,
        func.sum(task_instance.c.pool_slots).label("slots"),
        func.count().label("tasks"),
    )
    .where(_IN_SLOT)
    .group_by(task_instance.c.pool, task_instance.c.dag_id)
)
_ORDER = (task_instance.c.priority_weight.desc(), task_instance.c.logical_date, task_instance.c.id)
_CANDIDATES = (
    select(
        task_instance.c.id,
        task_instance.c.dag_id,
        task_instance.c.task_id,
        task_instance.c.map_index,
        task_instance.c.try_number,
        task_instance.c.queue,
        task_instance.c.pool,
        task_instance.c.pool_slots,
        task_instance.c.priority_weight,
        task_instance.c.logical_date,
        dag_run.c.run_id,
        dag.c.max_active_tasks,
    )
    .join(dag_run, dag_run.c.id == task_instance.c.dag_run_id)
    .join(dag, dag.c.dag_id == task_instance.c.dag_id)
    .where(
        _SCHEDULED,
        ~dag.c.is_paused,
        or_(
            task_instance.c.priority_weight < bindparam("weight"),
            and_(
                task_instance.c.priority_weight == bindparam("weight"),
                or_(
                    task_instance.c.logical_date > bindparam("date"),
                    and_(task_instance.c.logical_date == bindparam("date"), task_instance.c.id > bindparam("id")),
                ),
            ),
        ),
    )
    .order_by(*_ORDER)
    .limit(bindparam("page"))
    .with_for_update(of=task_instance, skip_locked=True)
)
_START = {"weight": 2**31 - 1, "date": datetime(1, 1, 1, tzinfo=UTC), "id": 0}
_QUEUE_TASK = (
    update(task_instance)
    .where(task_instance.c.id == bindparam("subject_id"), task_instance.c.state == TaskState.SCHEDULED)
    .values(
        state=TaskState.QUEUED,
        attempt_id=bindparam("new_attempt_id"),
        queued_at=bindparam("at"),
        reason=None,
    )
)
_ADD_ATTEMPT = insert(attempt)
_QUEUED_WITH_ATTEMPT = (
    select(
        task_instance.c.id,
        task_instance.c.dag_id,
        task_instance.c.task_id,
        task_instance.c.map_index,
        task_instance.c.queue,
        dag_run.c.run_id,
        attempt.c.attempt_id,
        attempt.c.nonce,
    )
    .select_from(
        task_instance.join(attempt, attempt.c.attempt_id == task_instance.c.attempt_id).join(
            dag_run, dag_run.c.id == task_instance.c.dag_run_id
        )
    )
    .where(_QUEUED)
    .order_by(task_instance.c.id)
)


class Room:
    """What is still free of each limit."""

    def __init__(self, parallelism: int, pools: Mapping[str, int], used: Sequence[AnyRow]) -> None:
        self.tasks = parallelism - sum(row.tasks for row in used)
        self._pools = dict(pools)
        self._dag_tasks: Counter[str] = Counter()
        self._full_dags: set[str] = set()
        for row in used:
            self._dag_tasks[row.dag_id] += row.tasks
            if row.pool in self._pools:
                self._pools[row.pool] -= int(row.slots)

    def take(self, candidate: AnyRow) -> bool:
        """Takes the candidate's slots if all of them are free."""
        if self._dag_tasks[candidate.dag_id] >= candidate.max_active_tasks:
            self._full_dags.add(candidate.dag_id)
            return False
        if candidate.pool_slots > self._pools.get(candidate.pool, 0):
            return False
        self._dag_tasks[candidate.dag_id] += 1
        self._pools[candidate.pool] -= candidate.pool_slots
        self.tasks -= 1
        return True

    def narrow(self, query: Select[Any], served: Collection[str] | None) -> Select[Any]:
        """The query without the candidates that are known to have no room."""
        fits = [
            and_(task_instance.c.pool == name, task_instance.c.pool_slots <= free)
            for name, free in self._pools.items()
            if free > 0
        ]
        query = query.where(or_(false(), *fits))
        if self._full_dags:
            query = query.where(task_instance.c.dag_id.not_in(sorted(self._full_dags)))
        if served is not None and ALL_QUEUES not in served:
            query = query.where(task_instance.c.queue.in_(sorted(served)))
        return query


def pending(connection: Connection, served: Collection[str] | None) -> bool:
    """Whether there is anything to grant or to take back, so that it is worth a write transaction."""
    if connection.execute(_ANY_SCHEDULED).first() is not None:
        return True
    return any(is_unserved(queue, served) for queue in connection.execute(_QUEUES_IN_USE).scalars())


def is_unserved(queue: str, served: Collection[str] | None) -> bool:
    """Whether no live worker takes tasks of the queue."""
    return served is not None and queue not in served and ALL_QUEUES not in served


def grant(
    database: Database, connection: Connection, parallelism: int, served: Collection[str] | None, at: datetime
) -> int:
    """Moves what may go from scheduled to queued, each with a fresh attempt. Returns how many."""
    # Schedulers stand in line here: what is free is counted and taken by one at a time.
    pools = {row.name: row.slots for row in connection.execute(_POOLS)}
    _take_back(connection, served, at)
    room = Room(parallelism, pools, connection.execute(_USED).all())
    chosen = list(_choose(connection, room, served))
    _queue(database, connection, chosen, at)
    return len(chosen)


def _choose(connection: Connection, room: Room, served: Collection[str] | None) -> Iterator[AnyRow]:
    """The candidates that fit, in the order of priority: one walk along the index, past those that are blocked."""
    position: dict[str, Any] = dict(_START)
    while room.tasks > 0:
        page = min(2 * room.tasks + 50, PAGE)
        query = room.narrow(_CANDIDATES, served)
        candidates = connection.execute(query, {**position, "page": page}).all()
        for candidate in candidates:
            if room.tasks > 0 and room.take(candidate):
                yield candidate
        if len(candidates) < page:
            return
        last = candidates[-1]
        position = {"weight": last.priority_weight, "date": last.logical_date, "id": last.id}


def _queue(database: Database, connection: Connection, chosen: Sequence[AnyRow], at: datetime) -> None:
    if not chosen:
        return
    check_task_move(TaskState.SCHEDULED, TaskState.QUEUED)
    attempts = [
        {
            "attempt_id": database.new_id(),
            "task_instance_id": row.id,
            "try_number": row.try_number + 1,
            "state": AttemptState.QUEUED,
            "queue": row.queue,
            "nonce": new_nonce(),
            "created_at": at,
        }
        for row in chosen
    ]
    connection.execute(_ADD_ATTEMPT, attempts)
    connection.execute(
        _QUEUE_TASK,
        [{"subject_id": a["task_instance_id"], "new_attempt_id": a["attempt_id"], "at": at} for a in attempts],
    )
    append(
        connection,
        [
            task_event(
                Subject(row.id, row.dag_id, row.run_id, row.task_id, row.map_index, a["attempt_id"]),
                TaskState.SCHEDULED,
                TaskState.QUEUED,
                at,
                SCHEDULER,
                None,
            )
            for row, a in zip(chosen, attempts, strict=True)
        ],
    )


def _take_back(connection: Connection, served: Collection[str] | None, at: datetime) -> None:
    """Frees the slots of queued tasks that no worker can take; they wait on for a worker without holding up others."""
    queues = connection.execute(_QUEUES_IN_USE).scalars() if served is not None else ()
    for queue in [queue for queue in queues if is_unserved(queue, served)]:
        reason = f"No worker serves the queue {queue!r}."
        for row in connection.execute(_QUEUED_WITH_ATTEMPT.where(task_instance.c.queue == queue)).all():
            _take_back_one(connection, row, reason, at)


def _take_back_one(connection: Connection, row: AnyRow, reason: str, at: datetime) -> None:
    """Cancels a queued attempt; its task instance is scheduled again, and its deadline stays."""
    subject = Subject(row.id, row.dag_id, row.run_id, row.task_id, row.map_index, row.attempt_id)
    moves = (TaskState.QUEUED, TaskState.SCHEDULED)
    if not move_task(connection, subject, *moves, at=at, who=SCHEDULER, reason=reason):
        return  # a worker was faster
    states = (AttemptState.QUEUED, AttemptState.CANCELLED)
    if not move_attempt(connection, row.attempt_id, row.nonce, *states, {"ended_at": at, "reason": reason}):
        raise Raced

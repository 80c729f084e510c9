"""Who may go next: from scheduled to queued, by priority and within every limit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    func,
    insert,
    literal_column,
    or_,
    select,
    true,
    update,
)

from yarrow.protocol import ALL_QUEUES
from yarrow.states import AttemptState, TaskState
from yarrow.store.database import Database, Raced
from yarrow.store.room import Room, TaskRoom
from yarrow.store.rows import AnyRow
from yarrow.store.tables import attempt, dag, dag_run, pool, task_instance
from yarrow.store.transitions import (
    CHUNK,
    SCHEDULER,
    Subject,
    append,
    check_task_move,
    chunks,
    move_attempt,
    move_task,
    task_event,
)
from yarrow.tokens import new_nonce

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
_USED_BY_TASKS = (
    select(
        task_instance.c.dag_id,
        task_instance.c.dag_run_id,
        task_instance.c.task_id,
        func.count().label("tasks"),
    )
    .where(_IN_SLOT)
    .group_by(task_instance.c.dag_id, task_instance.c.dag_run_id, task_instance.c.task_id)
)
ORDER = (
    task_instance.c.priority_class.desc(),
    task_instance.c.priority_weight.desc(),
    task_instance.c.logical_date,
    task_instance.c.id,
)
"""Who goes first, of those that may go and of those that wait for a worker."""

BEHIND = or_(
    task_instance.c.priority_class < bindparam("class_"),
    and_(
        task_instance.c.priority_class == bindparam("class_"),
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
    ),
)
"""Those that come after a place in this order; `place_of` has its parameters."""

CANDIDATE = (
    select(
        task_instance.c.id,
        task_instance.c.dag_id,
        task_instance.c.task_id,
        task_instance.c.map_index,
        task_instance.c.try_number,
        task_instance.c.queue,
        task_instance.c.pool,
        task_instance.c.pool_slots,
        task_instance.c.priority_class,
        task_instance.c.priority_weight,
        task_instance.c.logical_date,
        task_instance.c.dag_run_id,
        task_instance.c.max_per_dag,
        task_instance.c.max_per_run,
        task_instance.c.attempt_id,
        dag_run.c.run_id,
        dag.c.max_active_tasks,
    )
    .join(dag_run, dag_run.c.id == task_instance.c.dag_run_id)
    .join(dag, dag.c.dag_id == task_instance.c.dag_id)
)
"""What is looked at of a task instance before it is granted."""

CANDIDATES = CANDIDATE.where(_SCHEDULED, ~dag.c.is_paused)
"""Those that may go if there is room."""

_START = {"class_": 2**31 - 1, "weight": 2**31 - 1, "date": datetime(1, 1, 1, tzinfo=UTC), "id": 0}
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
_DEFERRED = select(attempt.c.attempt_id).where(
    attempt.c.attempt_id.in_(bindparam("ids", expanding=True)), attempt.c.state == AttemptState.DEFERRED
)
_QUEUE_AGAIN = (
    update(attempt)
    .where(attempt.c.attempt_id == bindparam("subject_id"), attempt.c.state == AttemptState.DEFERRED)
    .values(
        state=AttemptState.QUEUED,
        nonce=bindparam("new_nonce"),
        published_at=None,
        dispatch_deadline=None,
        worker_id=None,
    )
)
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
        attempt.c.started_at,
    )
    .select_from(
        task_instance.join(attempt, attempt.c.attempt_id == task_instance.c.attempt_id).join(
            dag_run, dag_run.c.id == task_instance.c.dag_run_id
        )
    )
    .where(_QUEUED)
    .order_by(task_instance.c.id)
)


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
    """Moves what may go from scheduled to queued, each with an attempt. Returns how many."""
    # Schedulers stand in line here: what is free is counted and taken by one at a time.
    pools = {row.name: row.slots for row in connection.execute(_POOLS)}
    _take_back(connection, served, at)
    room = Room(parallelism, pools, connection.execute(_USED).all())
    chosen = _choose(connection, room, served, CANDIDATES.with_for_update(of=task_instance, skip_locked=True))
    if chosen:
        _queue(database, connection, chosen, at)
    return len(chosen)


def would_grant(
    connection: Connection, parallelism: int, pools: Mapping[str, int], served: Collection[str] | None
) -> tuple[list[AnyRow], Room]:
    """Those that `grant` would choose now, and what it would leave free. Locks nothing and changes nothing."""
    room = room_now(connection, parallelism, pools, served)
    return _choose(connection, room, served, CANDIDATES), room


def room_now(
    connection: Connection, parallelism: int, pools: Mapping[str, int], served: Collection[str] | None
) -> Room:
    """What is free when `grant` begins to choose: slots that it takes back count as free."""
    return Room(parallelism, pools, connection.execute(_USED.where(_keeps_slot(served))).all())


def task_room_now(connection: Connection, served: Collection[str] | None, chosen: Sequence[AnyRow] = ()) -> TaskRoom:
    """What is free of the limits of single tasks then, when some have been chosen."""
    return TaskRoom(connection.execute(_USED_BY_TASKS.where(_keeps_slot(served))).all(), chosen)


def place_of(row: AnyRow) -> dict[str, Any]:
    """The place of a task instance in the order, as parameters of `BEHIND`."""
    return {"class_": row.priority_class, "weight": row.priority_weight, "date": row.logical_date, "id": row.id}


def _choose(
    connection: Connection, room: Room, served: Collection[str] | None, candidates_of: Select[Any]
) -> list[AnyRow]:
    """The candidates that fit, in the order of priority: one walk along the index, past those that are blocked."""
    chosen: list[AnyRow] = []
    position: dict[str, Any] = dict(_START)
    page_of = candidates_of.where(BEHIND).order_by(*ORDER).limit(bindparam("page"))
    while room.tasks > 0:
        page = min(2 * room.tasks + 50, PAGE)
        query = room.narrow(page_of, served)
        candidates = connection.execute(query, {**position, "page": page}).all()
        if room.of_tasks is None and any(_has_own_limit(candidate) for candidate in candidates):
            # Those chosen on earlier pages are not queued yet, but count.
            room.of_tasks = task_room_now(connection, served, chosen)
        chosen += [candidate for candidate in candidates if room.tasks > 0 and room.take(candidate)]
        if len(candidates) < page:
            break
        position = place_of(candidates[-1])
    return chosen


def _has_own_limit(candidate: AnyRow) -> bool:
    return candidate.max_per_dag is not None or candidate.max_per_run is not None


def _queue(database: Database, connection: Connection, chosen: Sequence[AnyRow], at: datetime) -> None:
    """Queues the chosen: an attempt that was put off goes on, all others are fresh."""
    check_task_move(TaskState.SCHEDULED, TaskState.QUEUED)
    deferred = _deferred(connection, chosen)
    attempt_ids = [row.attempt_id if row.attempt_id in deferred else database.new_id() for row in chosen]
    fresh = [
        {
            "attempt_id": attempt_id,
            "task_instance_id": row.id,
            "try_number": row.try_number + 1,
            "state": AttemptState.QUEUED,
            "queue": row.queue,
            "nonce": new_nonce(),
            "created_at": at,
        }
        for row, attempt_id in zip(chosen, attempt_ids, strict=True)
        if attempt_id not in deferred
    ]
    if fresh:
        connection.execute(_ADD_ATTEMPT, fresh)
    if deferred:
        again = [{"subject_id": attempt_id, "new_nonce": new_nonce()} for attempt_id in sorted(deferred)]
        connection.execute(_QUEUE_AGAIN, again)
    connection.execute(
        _QUEUE_TASK,
        [
            {"subject_id": row.id, "new_attempt_id": attempt_id, "at": at}
            for row, attempt_id in zip(chosen, attempt_ids, strict=True)
        ],
    )
    append(
        connection,
        [
            task_event(
                Subject(row.id, row.dag_id, row.run_id, row.task_id, row.map_index, attempt_id),
                TaskState.SCHEDULED,
                TaskState.QUEUED,
                at,
                SCHEDULER,
                None,
            )
            for row, attempt_id in zip(chosen, attempt_ids, strict=True)
        ],
    )


def _deferred(connection: Connection, chosen: Sequence[AnyRow]) -> set[str]:
    """The attempts of the chosen that were put off. Most tasks have had none at all, and cost no look."""
    before = sorted(row.attempt_id for row in chosen if row.attempt_id is not None)
    return {
        attempt_id
        for chunk in chunks(before, CHUNK)
        for attempt_id in connection.execute(_DEFERRED, {"ids": chunk}).scalars()
    }


def _take_back(connection: Connection, served: Collection[str] | None, at: datetime) -> None:
    """Frees the slots of queued tasks that no worker can take; they wait on for a worker without holding up others."""
    queues = connection.execute(_QUEUES_IN_USE).scalars() if served is not None else ()
    for queue in [queue for queue in queues if is_unserved(queue, served)]:
        reason = f"No worker serves the queue {queue!r}."
        for row in connection.execute(_QUEUED_WITH_ATTEMPT.where(task_instance.c.queue == queue)).all():
            _take_back_one(connection, row, reason, at)


def _keeps_slot(served: Collection[str] | None) -> ColumnElement[bool]:
    """Whether a task instance in a slot keeps it although `_take_back` passes by."""
    if served is None or ALL_QUEUES in served:
        return true()
    return or_(task_instance.c.state != TaskState.QUEUED, task_instance.c.queue.in_(sorted(served)))


def _take_back_one(connection: Connection, row: AnyRow, reason: str, at: datetime) -> None:
    """Takes back a queued attempt; its task instance is scheduled again, and its deadline stays.

    One that has been put off before waits on; any other is cancelled, for there may never have been a claim of it.
    """
    subject = Subject(row.id, row.dag_id, row.run_id, row.task_id, row.map_index, row.attempt_id)
    moves = (TaskState.QUEUED, TaskState.SCHEDULED)
    if not move_task(connection, subject, *moves, at=at, who=SCHEDULER, reason=reason):
        return  # a worker was faster
    goes_on = row.started_at is not None
    state = AttemptState.DEFERRED if goes_on else AttemptState.CANCELLED
    values = {} if goes_on else {"ended_at": at, "reason": reason}
    if not move_attempt(connection, row.attempt_id, row.nonce, AttemptState.QUEUED, state, values):
        raise Raced

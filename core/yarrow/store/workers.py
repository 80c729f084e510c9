"""Workers, schedulers and pools: who is there, and what there is to share."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, delete, func, literal_column, select, union_all, update

from yarrow.errors import SecondScheduler
from yarrow.protocol import ALL_QUEUES
from yarrow.states import RunState
from yarrow.store.database import Database, upsert
from yarrow.store.granting import is_unserved
from yarrow.store.records import HealthReport, PoolRecord, QueueRecord, SchedulerRecord, WorkerRecord
from yarrow.store.rows import columns_of
from yarrow.store.tables import attempt, dag_run, pool, scheduler, task_instance, worker

MISSED_BEATS = 3
"""A scheduler that missed as many beats counts as gone."""

_HELD = (
    select(attempt.c.worker_id, func.count().label("running"))
    .where(attempt.c.state == literal_column("'running'"))
    .group_by(attempt.c.worker_id)
    .subquery()
)
_WORKERS: Select[*tuple[Any, ...]] = (
    select(*columns_of(WorkerRecord, worker), func.coalesce(_HELD.c.running, 0))
    .select_from(worker.outerjoin(_HELD, _HELD.c.worker_id == worker.c.worker_id))
    .order_by(worker.c.started_at, worker.c.worker_id)
)
_SCHEDULERS = select(*columns_of(SchedulerRecord, scheduler)).order_by(scheduler.c.seen_at.desc())
# Partial indexes want these conditions with the words themselves, and one condition a query.
_IN_SLOT = task_instance.c.state.in_([literal_column("'queued'"), literal_column("'running'")])
_QUEUES = union_all(
    *[
        select(task_instance.c.queue, task_instance.c.state, func.count())
        .where(condition)
        .group_by(task_instance.c.queue, task_instance.c.state)
        for condition in (task_instance.c.state == literal_column("'scheduled'"), _IN_SLOT)
    ]
)
_POOLS = select(pool.c.name, pool.c.slots).order_by(pool.c.name)
_POOLS_USED = (
    select(task_instance.c.pool, func.sum(task_instance.c.pool_slots)).where(_IN_SLOT).group_by(task_instance.c.pool)
)
_ACTIVE_RUNS = union_all(
    *[
        select(dag_run.c.state, func.count())
        .where(dag_run.c.state == literal_column(f"'{state}'"))
        .group_by(dag_run.c.state)
        for state in (RunState.QUEUED, RunState.RUNNING)
    ]
)


class Workers:
    """The parts of the deployment. Every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def alive(self, lease: float = 60.0, now: datetime | None = None) -> list[WorkerRecord]:
        """Workers heard of within a lease, with the number of attempts each of them holds."""
        return self._database.read(lambda connection: live_workers(self._since(connection, lease, now), connection))

    def forget_stale(self, older_than: datetime) -> int:
        """Removes workers and schedulers not heard of since. Returns how many."""

        def work(connection: Connection) -> int:
            return sum(
                connection.execute(delete(table).where(table.c.seen_at < older_than)).rowcount
                for table in (worker, scheduler)
            )

        return self._database.write(work)

    def remove(self, worker_id: str) -> None:
        """Removes a worker that has stopped."""
        self._database.write(lambda c: c.execute(delete(worker).where(worker.c.worker_id == worker_id)))

    def register_scheduler(
        self,
        scheduler_id: str,
        hostname: str,
        pid: int,
        *,
        beat: float = 5.0,
        now: datetime | None = None,
    ) -> None:
        """Announces a scheduler that beats every `beat` seconds. Raises SecondScheduler when SQLite has one already."""
        row = {"scheduler_id": scheduler_id, "hostname": hostname, "pid": pid}

        def work(connection: Connection) -> None:
            at = self._database.now(now) if now is not None else self._database.lease_now(connection)
            if self._database.dialect == "sqlite":
                _check_alone(connection, scheduler_id, at - timedelta(seconds=MISSED_BEATS * beat))
                connection.execute(delete(scheduler))
            blank = {"loop_seconds": None, "broker_error": None}
            statement = upsert(self._database, scheduler, [scheduler.c.scheduler_id])
            connection.execute(statement, {**row, "started_at": at, "seen_at": at, **blank})

        self._database.write(work)

    def beat_scheduler(
        self,
        scheduler_id: str,
        *,
        loop_seconds: float | None = None,
        broker_error: str | None = None,
        now: datetime | None = None,
    ) -> None:
        """Says that the scheduler is alive. Raises SecondScheduler when its place has been taken meanwhile."""

        def work(connection: Connection) -> None:
            at = now or self._database.lease_now(connection)
            statement = update(scheduler).where(scheduler.c.scheduler_id == scheduler_id)
            values = {"seen_at": at, "loop_seconds": loop_seconds, "broker_error": broker_error}
            if connection.execute(statement.values(**values)).rowcount != 1:
                raise SecondScheduler(
                    "This scheduler was silent for too long and its place was taken.", hint="Start it again."
                )

        self._database.write(work)

    def unregister_scheduler(self, scheduler_id: str) -> None:
        """Takes leave, so that the next scheduler need not wait."""
        statement = delete(scheduler).where(scheduler.c.scheduler_id == scheduler_id)
        self._database.write(lambda connection: connection.execute(statement))

    def schedulers(self) -> list[SchedulerRecord]:
        """All schedulers that registered, the newest beat first."""
        return self._database.read(lambda c: [SchedulerRecord(*row) for row in c.execute(_SCHEDULERS)])

    def set_pools(self, pools: Mapping[str, int]) -> None:
        """Makes these the pools and their slots; others are removed."""
        rows = [{"name": name, "slots": slots} for name, slots in sorted(pools.items())]

        def work(connection: Connection) -> None:
            connection.execute(delete(pool).where(pool.c.name.not_in(sorted(pools))))
            if rows:
                connection.execute(upsert(self._database, pool, [pool.c.name]), rows)

        self._database.write(work)

    def pools(self) -> list[PoolRecord]:
        """The pools with what is taken of them, by name."""
        return self._database.read(read_pools)

    def health(self, now: datetime | None = None, *, lease: float = 60.0, beat: float = 5.0) -> HealthReport:
        """The state of the parts, in six queries."""

        def work(connection: Connection) -> HealthReport:
            workers = live_workers(self._since(connection, lease, now), connection)
            recent = self._since(connection, MISSED_BEATS * beat, now)
            schedulers = [SchedulerRecord(*row) for row in connection.execute(_SCHEDULERS)]
            schedulers = [one for one in schedulers if one.seen_at >= recent]
            queues = _queues(connection, workers)
            return HealthReport(
                database=self._database.dialect,
                schedulers=schedulers,
                workers=workers,
                queues=queues,
                pools=read_pools(connection),
                runs={str(state): count for state, count in connection.execute(_ACTIVE_RUNS)},
                problems=_problems(schedulers, workers, queues),
            )

        return self._database.read(work)

    def _since(self, connection: Connection, seconds: float, now: datetime | None) -> datetime:
        return (now or self._database.lease_now(connection)) - timedelta(seconds=seconds)


def served_queues(workers: Iterable[WorkerRecord]) -> frozenset[str]:
    """The queues that have a live worker; `*` among them stands for all."""
    return frozenset(queue for worker in workers if not worker.stopping for queue in worker.queues)


def live_workers(since: datetime, connection: Connection) -> list[WorkerRecord]:
    """The workers that were heard of since then."""
    return [WorkerRecord(*row) for row in connection.execute(_WORKERS.where(worker.c.seen_at >= since))]


def read_pools(connection: Connection) -> list[PoolRecord]:
    """The pools with what is taken of them, by name."""
    used = {name: int(slots) for name, slots in connection.execute(_POOLS_USED)}
    return [PoolRecord(row.name, row.slots, used.get(row.name, 0)) for row in connection.execute(_POOLS)]


def _queues(connection: Connection, workers: Sequence[WorkerRecord]) -> list[QueueRecord]:
    counts: dict[str, dict[str, int]] = {}
    for queue, state, count in connection.execute(_QUEUES):
        counts.setdefault(queue, {})[state] = count
    names = set(counts) | {queue for one in workers for queue in one.queues if queue != ALL_QUEUES}
    return [_queue(name, counts.get(name, {}), workers) for name in sorted(names)]


def _queue(name: str, counts: Mapping[str, int], workers: Sequence[WorkerRecord]) -> QueueRecord:
    serving = [one for one in workers if not one.stopping and not is_unserved(name, one.queues)]
    return QueueRecord(
        queue=name,
        scheduled=counts.get("scheduled", 0),
        queued=counts.get("queued", 0),
        running=counts.get("running", 0),
        workers=len(serving),
        slots=sum(one.slots for one in serving),
    )


def _problems(
    schedulers: Sequence[SchedulerRecord], workers: Sequence[WorkerRecord], queues: Sequence[QueueRecord]
) -> list[str]:
    problems: list[str] = []
    if not schedulers:
        problems.append("No scheduler is running.")
    if not any(not one.stopping for one in workers):
        problems.append("No worker is running.")
    problems += [f"The broker: {one.broker_error}" for one in schedulers if one.broker_error]
    for queue in queues:
        if queue.workers == 0 and queue.scheduled + queue.queued:
            waiting = queue.scheduled + queue.queued
            problems.append(f"No worker serves the queue {queue.queue!r}; tasks that wait for one: {waiting}.")
    return problems


def _check_alone(connection: Connection, scheduler_id: str, since: datetime) -> None:
    """Raises SecondScheduler when another scheduler has beaten since then and its process may be alive."""
    for row in connection.execute(_SCHEDULERS):
        other = SchedulerRecord(*row)
        if other.scheduler_id != scheduler_id and other.seen_at >= since and _may_be_alive(other.hostname, other.pid):
            raise SecondScheduler(
                f"Another scheduler works on this SQLite database: process {other.pid} on {other.hostname}, "
                f"last seen at {other.seen_at:%H:%M:%S} UTC. SQLite allows only one.",
                hint="Stop it first, or keep the metadata in PostgreSQL.",
            )


def _may_be_alive(hostname: str, pid: int) -> bool:
    if hostname != socket.gethostname():
        return True
    if pid == os.getpid():
        return False  # an earlier process of the same number, as in a restarted container
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""Attempts: how a task instance gets to a worker and its result comes back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import count

from sqlalchemy import Connection, select

from yarrow.errors import NotFound, Refused, StoreError
from yarrow.jsontypes import Json
from yarrow.protocol import Heartbeat, Report
from yarrow.store import awaited, claiming, dispatching, finishing, granting, leases, stopping
from yarrow.store.database import Database
from yarrow.store.finishing import Limits
from yarrow.store.records import AttemptRecord, ClaimedAttempt, FinishOutcome, PublishRow
from yarrow.store.rows import columns_of
from yarrow.store.specs import Specs
from yarrow.store.tables import attempt, dag_run, task_instance
from yarrow.store.xcoms import read_xcoms

_ATTEMPT = select(*columns_of(AttemptRecord, attempt, task_instance, dag_run)).select_from(
    attempt.join(task_instance).join(dag_run)
)
_SHOWN = select(task_instance.c.dag_run_id, task_instance.c.id).join(dag_run)

_log = logging.getLogger(__name__)


class Attempts:
    """Attempts at task instances. Every method is one transaction, every move compare-and-set."""

    def __init__(self, database: Database, specs: Specs) -> None:
        self._database = database
        self._specs = specs

    def grant(self, parallelism: int, *, served: Collection[str] | None = None, now: datetime | None = None) -> int:
        """Moves scheduled task instances to queued, as far as the limits allow: each with a fresh attempt, or with the
        one that was put off.

        By priority weight (highest first), logical date and age; within `parallelism`, the slots of pools,
        `max_active_tasks` of DAGs and the limits of single tasks, of DAGs that are not paused. One that can't go hides
        none that can.

        Args:
            served: The queues that have a live worker ("*" stands for all). Tasks of other queues are not granted, and
                take back their slots when they are queued already. None: every queue counts as served.

        Returns:
            How many were granted.
        """
        at = self._database.now(now)
        if not self._database.read(lambda connection: granting.pending(connection, served)):
            return 0
        return self._database.write(
            lambda connection: granting.grant(self._database, connection, parallelism, served, at)
        )

    def outstanding(self, now: datetime | None = None) -> dict[str, int]:
        """By queue, the queued attempts whose message is out and not overdue: what workers have still to pick up."""
        at = self._database.now(now)
        return self._database.read(lambda connection: dispatching.outstanding(connection, at))

    def waiting(self, now: datetime | None = None) -> dict[str, int]:
        """By queue, the queued attempts that have no message out or an overdue one: what `to_publish` chooses from."""
        at = self._database.now(now)
        return self._database.read(lambda connection: dispatching.waiting(connection, at))

    def to_publish(self, room: Mapping[str, int], now: datetime | None = None) -> list[PublishRow]:
        """Queued attempts that have no message out or an overdue one, best first, at most `room` for each queue.

        An overdue one gets a new nonce, so that its older message claims nothing any more.
        """
        at = self._database.now(now)
        wanting = self._database.read(lambda connection: dispatching.wanting(connection, room, at))
        overdue = [pair for pair in wanting if pair[1].published_at is not None]
        renewed: dict[str, PublishRow] = {}
        if overdue:
            rows = self._database.write(lambda connection: dispatching.renew(connection, overdue, at))
            renewed = {row.attempt_id: row for row in rows}
        fresh = {row.attempt_id: PublishRow(row.attempt_id, row.nonce, q) for q, row in wanting if not row.published_at}
        both = fresh | renewed
        return [both[row.attempt_id] for _, row in wanting if row.attempt_id in both]

    def mark_published(self, rows: Sequence[PublishRow], deadline: datetime, now: datetime | None = None) -> None:
        """Notes that the messages went out; one that is not claimed by `deadline` is sent again."""
        at = self._database.now(now)
        if rows:
            self._database.write(lambda connection: dispatching.mark(connection, rows, deadline, at))

    def next_deadline(self) -> datetime | None:
        """The earliest dispatch deadline, lease end or queue deadline: how long a scheduler may sleep."""
        return self._database.read(dispatching.next_deadline)

    def claim(self, attempt_id: str, nonce: str, worker_id: str, lease: float) -> ClaimedAttempt:
        """Gives a queued attempt to a worker for `lease` seconds. Raises Refused when it is not to be had."""
        return self._database.write(
            lambda connection: claiming.claim(
                self._database, self._specs, connection, attempt_id, nonce, worker_id, lease
            )
        )

    def next_for(self, queue: str, worker_id: str, lease: float) -> ClaimedAttempt | None:
        """Claims the best queued attempt of a queue, with a fresh nonce: a message that is out for it is void."""
        return self._database.write(
            lambda connection: claiming.claim_next(self._database, self._specs, connection, queue, worker_id, lease)
        )

    def finish(
        self,
        report: Report,
        nonce: str,
        worker_id: str,
        *,
        infra_budget: int = 3,
        queued_timeout: float = 3600.0,
        next_for: str | None = None,
        lease: float = 60.0,
    ) -> FinishOutcome:
        """Accepts the report on an attempt, and claims the next attempt of queue `next_for` in the same transaction.

        success, skipped: so ends the task instance. failed: up_for_retry while tries are left and it is retryable,
        else failed. lost: scheduled again at the expense of `infra_budget`, else failed. cancelled: scheduled again
        for free when the worker stopped; failed when somebody cancelled it. deferred: up_for_reschedule until the
        moment that it names; the same attempt goes on then. Whatever is reported, a task instance that a person has
        cleared or marked meanwhile ends as that person wants, and nothing comes of the result.

        A report that was accepted before is accepted again (`repeated`, without a next attempt). Raises Refused when
        the attempt is not this worker's any more.
        """
        limits = Limits(infra_budget, queued_timeout)
        tries = count()

        def work(connection: Connection) -> FinishOutcome:
            at = self._database.now()
            if next(tries):  # a person was faster, and the next one may be: it gets in line before it looks
                finishing.lock_run(connection, report.attempt_id)
            repeated, state = finishing.finish(
                self._database, self._specs, connection, report, nonce, worker_id, limits=limits, at=at
            )
            if repeated or next_for is None:
                return FinishOutcome(repeated, state)
            following = claiming.claim_next(self._database, self._specs, connection, next_for, worker_id, lease)
            return FinishOutcome(repeated, state, following)

        return self._database.write(work)

    def heartbeat(self, heartbeat: Heartbeat, lease: float) -> dict[str, str]:
        """Records the worker, renews the leases of the attempts it executes and stores their progress.

        Returns:
            attempt_id -> reason, for those that it must stop: not its any more, or cancelled.
        """
        return self._database.write(lambda connection: leases.beat(self._database, connection, heartbeat, lease))

    def expire_leases(
        self,
        *,
        infra_budget: int = 3,
        queued_timeout: float = 3600.0,
        not_before: datetime | None = None,
        limit: int = 500,
    ) -> int:
        """Declares attempts lost whose lease has run out, as `finish` does with `lost`. One transaction each.

        Args:
            not_before: Nothing is judged before this moment: leave workers one lease to report after an outage.

        Returns:
            How many were lost.
        """
        limits = Limits(infra_budget, queued_timeout)
        expired = self._database.read(lambda connection: leases.expired(self._database, connection, not_before, limit))
        # One transaction each: a fleet that is lost as a whole must not lock the store for a second.
        expire = partial(leases.expire, self._database, self._specs, limits)
        return self._count((f"attempt {attempt_id}", partial(expire, attempt_id)) for attempt_id in expired)

    def fail_unserved(
        self, queued_timeout: float, *, served: Collection[str] | None = None, now: datetime | None = None
    ) -> int:
        """Fails task instances that waited for `queued_timeout` and that nothing can take: no such pool, a pool that
        is too small, a queue without a worker. The others keep waiting.

        Args:
            served: As for `grant`.

        Returns:
            How many failed.
        """
        at = self._database.now(now)
        overdue = self._database.read(lambda connection: stopping.overdue(connection, at))
        if not overdue:
            return 0
        pools = self._database.read(stopping.pools)
        verdicts = [(row, stopping.why_unservable(row, pools, served)) for row in overdue]
        waiting = [row for row, why in verdicts if why is None]
        if waiting:
            self._database.write(lambda connection: stopping.postpone(connection, waiting, queued_timeout, at))
        give_up = partial(stopping.give_up, self._specs, queued_timeout, at)
        return self._count(
            (f"task {row.task_id} of run {row.run_id} of {row.dag_id}", partial(give_up, row, why))
            for row, why in verdicts
            if why is not None
        )

    def _count(self, works: Iterable[tuple[str, Callable[[Connection], bool]]]) -> int:
        """How many of these transactions did something. One that goes wrong is logged, and keeps none from the others.

        Args:
            works: Each with what it is about.
        """
        done = 0
        for what, work in works:
            try:
                done += self._database.write(work)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one, such as a spec that can't be read
                reason = f"{type(error).__name__}: {error}"
                _log.error("%s can't be given up: %s", what, reason, extra={"action": "give_up_failed"})
        return done

    def cancel(
        self, dag_id: str, run_id: str, task_id: str, map_index: int = -1, *, who: str, reason: str | None = None
    ) -> bool:
        """Stops a task instance for good: failed at once, or as soon as its worker has stopped it.

        Returns:
            Whether there was anything to stop. Raises NotFound.
        """
        at = self._database.now()
        dag_run_id, _ = self._find(dag_id, run_id, task_id, map_index)
        sentence = reason or f"Stopped by {who}."
        return self._database.write(
            lambda connection: stopping.cancel(
                self._specs, connection, dag_run_id, task_id, map_index, who=who, reason=sentence, at=at
            )
        )

    def get(self, attempt_id: str, nonce: str | None = None) -> AttemptRecord:
        """The attempt. Raises NotFound, or Refused when `nonce` is given and is not its newest."""
        query = _ATTEMPT.add_columns(attempt.c.nonce).where(attempt.c.attempt_id == attempt_id)
        row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise NotFound(f"There is no attempt {attempt_id!r}.")
        if nonce is not None and row.nonce != nonce:
            raise Refused(f"The attempt {attempt_id} was given to another worker meanwhile.")
        return AttemptRecord(*row[:-1])

    def attempts(self, task_instance_id: int) -> list[AttemptRecord]:
        """The attempts at a task instance, oldest first."""
        query = _ATTEMPT.where(attempt.c.task_instance_id == task_instance_id)
        query = query.order_by(attempt.c.created_at, attempt.c.try_number, attempt.c.claimed_at)
        return self._database.read(lambda connection: [AttemptRecord(*row) for row in connection.execute(query)])

    def xcom(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> Json:
        """The XCom of the successful attempt. Raises NotFound when there is none."""
        dag_run_id, _ = self._find(dag_id, run_id, task_id, map_index)
        found = self._database.read(lambda connection: read_xcoms(connection, dag_run_id, [task_id], map_index))
        if (task_id, map_index) not in found:
            raise NotFound(f"The task {task_id!r} of the run {run_id!r} of the DAG {dag_id!r} has no XCom.")
        return found[task_id, map_index]

    def awaited(self, dag_id: str, task_id: str | None, logical_date: datetime) -> tuple[str, str] | None:
        """How another run is doing, for a task that waits for it.

        Returns:
            The run_id of the newest run of the DAG with this logical date, and the state of the task in it, of all its
            instances together; without a task that of the run. None: there is no such run yet.

        Raises:
            NotFound: There is no such DAG or task.
        """
        return self._database.read(
            lambda connection: awaited.awaited(connection, self._specs, dag_id, task_id, logical_date)
        )

    def _find(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> tuple[int, int]:
        """The row ids of a run and its task instance. Raises NotFound."""
        query = _SHOWN.where(
            task_instance.c.dag_id == dag_id,
            dag_run.c.dag_id == dag_id,
            dag_run.c.run_id == run_id,
            task_instance.c.task_id == task_id,
            task_instance.c.map_index == map_index,
        )
        row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        if row is None:
            raise NotFound(f"There is no task {task_id!r} in a run {run_id!r} of a DAG {dag_id!r}.")
        return row.dag_run_id, row.id

"""What is read to explain why a task instance does not run: one state of the store, in a bounded number of looks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, and_, bindparam, func, or_, select, text

from yarrow.decision.decisions import TaskView
from yarrow.errors import NotFound
from yarrow.explaining.explain import explain, root_of
from yarrow.explaining.explanation import Explanation
from yarrow.explaining.facts import Asked, Attempt, Circumstances, InstanceFacts, Serving, Slots
from yarrow.mapping import Instance
from yarrow.states import RunState, TaskState
from yarrow.store import granting, lines
from yarrow.store.catalog import read_dag
from yarrow.store.database import Database
from yarrow.store.records import DagRecord, RunRecord, RunSnapshot, WorkerRecord
from yarrow.store.rows import AnyRow, columns_of
from yarrow.store.runs import no_such_instance, one_run
from yarrow.store.snapshots import snapshot_of
from yarrow.store.specs import Specs
from yarrow.store.tables import approval, attempt, dag_run, scheduler, task_instance, worker
from yarrow.store.workers import MISSED_BEATS, live_workers, served_queues

NEWEST_RUN = "-"
"""Stands for the newest run of a DAG."""

_NEWEST = (
    select(*columns_of(RunRecord, dag_run))
    .where(dag_run.c.dag_id == bindparam("dag_id"))
    .order_by(dag_run.c.id.desc())
    .limit(1)
)
_MORE_OF_RUN = select(dag_run).where(dag_run.c.id == bindparam("id"))
_SCHEDULERS = select(func.count()).select_from(scheduler).where(scheduler.c.seen_at >= bindparam("since"))
_INSTANCES = (
    select(
        task_instance,
        attempt.c.attempt_id.label("attempt_there"),
        attempt.c.try_number.label("attempt_number"),
        attempt.c.published_at,
        attempt.c.dispatch_deadline,
        attempt.c.dispatch_count,
        attempt.c.worker_id,
        attempt.c.lease_until,
        attempt.c.cancel_reason,
        attempt.c.cancel_state,
        attempt.c.progress,
        worker.c.hostname,
        approval.c.message,
        approval.c.default_answer,
        approval.c.due_at,
    )
    .select_from(
        task_instance.outerjoin(attempt, attempt.c.attempt_id == task_instance.c.attempt_id)
        .outerjoin(worker, worker.c.worker_id == attempt.c.worker_id)
        .outerjoin(approval, and_(approval.c.task_instance_id == task_instance.c.id, approval.c.answer.is_(None)))
    )
    .where(task_instance.c.dag_run_id == bindparam("id"))
)
_CANDIDATE = granting.CANDIDATE.where(task_instance.c.id == bindparam("id"))


class Explanations:
    """Explains task instances. Every method is one transaction that reads one state of the store."""

    def __init__(self, database: Database, specs: Specs) -> None:
        self._database = database
        self._specs = specs

    def get(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int = -1,
        *,
        parallelism: int,
        lease: float = 60.0,
        beat: float = 5.0,
        now: datetime | None = None,
    ) -> Explanation:
        """Why a task instance does not run, as the scheduler sees it.

        Args:
            run_id: `-` is the newest run of the DAG.
            parallelism: As the schedulers have it.
            lease: Seconds for which a worker counts as alive after its last heartbeat.
            beat: Seconds between two beats of a scheduler.

        Raises:
            NotFound: There is no such DAG, run or task instance; it names the nearest.
        """

        def work(connection: Connection) -> Explanation:
            if self._database.dialect == "postgresql":  # SQLite shows one state anyway
                connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
            at = self._database.now(now)
            alive_at = now or self._database.lease_now(connection)
            workers = live_workers(alive_at - timedelta(seconds=lease), connection)
            since = alive_at - timedelta(seconds=MISSED_BEATS * beat)
            schedulers = connection.execute(_SCHEDULERS, {"since": since}).scalar_one()
            found = _find(connection, self._specs, dag_id, run_id, task_id, map_index)
            reading = _Reading(connection, at, found, workers, parallelism)
            return explain(reading.circumstances((task_id, map_index), schedulers))

        return self._database.read(work)


@dataclass(frozen=True, slots=True)
class _Found:
    dag: DagRecord
    run: RunRecord
    snapshot: RunSnapshot


def _find(connection: Connection, specs: Specs, dag_id: str, run_id: str, task_id: str, map_index: int) -> _Found:
    """The run and its task instances. Raises NotFound."""
    dag = read_dag(connection, dag_id)
    if run_id == NEWEST_RUN:
        row = connection.execute(_NEWEST, {"dag_id": dag_id}).one_or_none()
        if row is None:
            raise NotFound(
                f"The DAG {dag_id!r} has no run yet.", hint=f"Start one with `yarrow dags trigger {dag_id}`."
            )
        run = RunRecord(*row)
    else:
        run = one_run(connection, dag_id, run_id)
    snapshot = snapshot_of(connection, specs, run)
    return _Found(dag, run, snapshot)


class _Reading:
    """Reads what the states of the task instances in question call for."""

    def __init__(
        self,
        connection: Connection,
        now: datetime,
        found: _Found,
        workers: Sequence[WorkerRecord],
        parallelism: int,
    ) -> None:
        self._connection = connection
        self._now = now
        self._dag = found.dag
        self._run = found.run
        self._snapshot = found.snapshot
        self._workers = workers
        self._parallelism = parallelism

    def circumstances(self, instance: Instance, schedulers: int) -> Circumstances:
        run = self._run
        more = self._connection.execute(_MORE_OF_RUN, {"id": run.id}).one()
        given = Circumstances(
            now=self._now,
            spec=self._snapshot.spec,
            run=run.view,
            run_reason=run.reason,
            run_ended_at=run.ended_at,
            is_paused=self._dag.is_paused,
            schedulers=schedulers,
            views=self._snapshot.tasks,
            xcoms=self._snapshot.xcoms,
            past=self._snapshot.past,
            instance=self._facts([instance], known=True)[instance],
            quarantine_until=more.quarantine_until,
        )
        if run.state is RunState.QUEUED:
            start = lines.start(self._connection, more, self._dag.max_active_runs, self._now)
            return replace(given, start=start)
        root = root_of(given)
        return given if root is None else replace(given, root=self._facts([root], known=False)[root])

    def _facts(self, instances: Iterable[Instance], *, known: bool) -> Mapping[Instance, InstanceFacts]:
        """Args:
        known: Whoever asks names them; those that are not there are a mistake. Else they are about to be made.
        """
        wanted = list(instances)
        here = [and_(task_instance.c.task_id == name, task_instance.c.map_index == index) for name, index in wanted]
        rows = self._connection.execute(_INSTANCES.where(or_(*here)), {"id": self._run.id}).all()
        found = {(row.task_id, row.map_index): self._instance(row) for row in rows}
        for instance in wanted:
            if instance not in found:
                found[instance] = self._not_there_yet(instance, known=known)
        return found

    def _not_there_yet(self, instance: Instance, *, known: bool) -> InstanceFacts:
        """A task instance that is made when its run starts, or when its task is expanded. Raises NotFound."""
        task = self._snapshot.spec.tasks.get(instance[0])
        if known and (self._snapshot.tasks or task is None or instance[1] >= 0):
            to_be = [TaskView(task_id, TaskState.NONE) for task_id in self._snapshot.spec.tasks]
            places = self._snapshot.tasks or to_be
            raise no_such_instance(self._run, places, *instance)
        assert task is not None
        return InstanceFacts(*instance, TaskState.NONE, task.queue, 0, task.retries + 1)

    def _instance(self, row: AnyRow) -> InstanceFacts:
        facts = InstanceFacts(
            task_id=row.task_id,
            map_index=row.map_index,
            state=row.state,
            queue=row.queue,
            try_number=row.try_number,
            max_tries=row.max_tries,
            reason=row.reason,
            wait_until=row.wait_until,
            scheduled_at=row.scheduled_at,
            queued_at=row.queued_at,
            started_at=row.started_at,
            ended_at=row.ended_at,
            attempt=None if row.attempt_there is None else _attempt(row),
            question=None if row.message is None else Asked(row.message, row.default_answer, row.due_at),
        )
        if row.state is TaskState.SCHEDULED:
            return replace(facts, slots=self._slots(row.id))
        return replace(facts, serving=self._serving(row.queue)) if row.state is TaskState.QUEUED else facts

    def _slots(self, id: int) -> Slots:
        candidate = self._connection.execute(_CANDIDATE, {"id": id}).one()
        served = served_queues(self._workers)
        paused = self._dag.is_paused
        return lines.slots(self._connection, candidate, self._parallelism, served, is_paused=paused)

    def _serving(self, queue: str) -> Serving:
        serving = [one for one in self._workers if not granting.is_unserved(queue, served_queues([one]))]
        slots = sum(one.slots for one in serving)
        return Serving(len(serving), slots, sum(max(one.slots - one.running, 0) for one in serving))


def _attempt(row: AnyRow) -> Attempt:
    return Attempt(
        attempt_id=row.attempt_there,
        try_number=row.attempt_number,
        published_at=row.published_at,
        dispatch_deadline=row.dispatch_deadline,
        dispatch_count=row.dispatch_count,
        worker_id=row.worker_id,
        hostname=row.hostname,
        lease_until=row.lease_until,
        cancel_reason=row.cancel_reason,
        cancel_state=row.cancel_state,
        progress=row.progress,
    )

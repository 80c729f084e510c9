"""A stage for the store's tests: a DAG, its runs, and the hands that move them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from yarrow.decision.decisions import Decisions, Expansion, RunDecision, TaskDecision
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.protocol import Heartbeat, Report, RunningAttempt
from yarrow.states import RunState, TaskState
from yarrow.store import Store
from yarrow.store.records import ClaimedAttempt, RunRecord, TaskInstanceRecord
from yarrow.store.tables import dag_version

LEASE = 60.0


def task(task_id: str, **fields: Any) -> TaskSpec:
    return TaskSpec(task_id, "bash", {"command": "true"}, **fields)


def dag(dag_id: str = "d", tasks: Sequence[TaskSpec] | None = None, **fields: Any) -> DagSpec:
    chosen = [task("a"), task("b", upstream=("a",))] if tasks is None else tasks
    return DagSpec(dag_id, {one.task_id: one for one in chosen}, **fields)


@dataclass
class Stage:
    """Does in one call what a scheduler or a worker does in several."""

    store: Store
    clock: Any
    task: Callable[..., TaskSpec] = task
    dag: Callable[..., DagSpec] = dag

    def publish(self, *specs: DagSpec) -> None:
        self.store.catalog.publish([(spec, f"# {spec.dag_id}", f"{spec.dag_id}.yaml") for spec in specs])

    def run(self, spec: DagSpec, run_id: str = "r", date: datetime | None = None, *, start: bool = True) -> RunRecord:
        """A run of a published DAG, started unless the limits forbid it."""
        at = date or self.clock()
        interval = (at, at, at + timedelta(days=1), self.clock())
        record = self.store.runs.create(
            spec, spec.version, run_id=run_id, run_type="manual", interval=interval, params={}
        )
        assert record is not None
        if start:
            self.store.runs.start_due()
        return self.store.runs.by_id(record.id)

    def decide(
        self,
        run: RunRecord,
        *moves: Any,
        end: RunState | None = None,
        wait_until: Any = None,
        expand: Mapping[str, int] | None = None,
    ) -> bool:
        """Applies moves (task_id, from, to[, reason]) and perhaps the end of the run on its present state.

        Args:
            expand: Mapped tasks, and how many instances they become; `map.n` is the index.
        """
        snapshot = self.store.runs.snapshot(run.id)
        assert snapshot is not None
        run_move = None if end is None else RunDecision(RunState.RUNNING, end)
        tasks = tuple(move if isinstance(move, TaskDecision) else TaskDecision(*move) for move in moves)
        expansions = tuple(
            Expansion(task_id, tuple({"n": index} for index in range(count)))
            for task_id, count in (expand or {}).items()
        )
        decisions = Decisions(tasks, run_move, wait_until, expansions)
        return self.store.runs.apply(run.id, decisions, snapshot.record.change_seq)

    def schedule(self, run: RunRecord, *task_ids: str) -> None:
        moves = [(task_id, TaskState.NONE, TaskState.SCHEDULED) for task_id in task_ids]
        assert self.decide(run, *moves)

    def end(self, run: RunRecord, state: RunState = RunState.SUCCESS) -> bool:
        return self.decide(run, end=state)

    def begin(self, spec: DagSpec | None = None, *task_ids: str) -> RunRecord:
        """A running run with these tasks scheduled; the DAG's first by default."""
        spec = spec or dag()
        self.publish(spec)
        run = self.run(spec)
        self.schedule(run, *(task_ids or list(spec.tasks)[:1]))
        return run

    def dispatch(self, queue: str = "default") -> tuple[str, str]:
        """Grants all and publishes the best one; its (attempt id, nonce)."""
        self.store.attempts.grant(1000)
        rows = self.store.attempts.to_publish({queue: 1})
        self.store.attempts.mark_published(rows, self.clock() + timedelta(seconds=60))
        return rows[0].attempt_id, rows[0].nonce

    def claim(self, worker: str = "w1", lease: float = LEASE) -> ClaimedAttempt:
        return self.store.attempts.claim(*self.dispatch(), worker, lease)

    def finish(self, claimed: ClaimedAttempt, state: str = "success", **fields: Any) -> Any:
        options = {name: fields.pop(name) for name in ("infra_budget", "next_for", "nonce", "worker") if name in fields}
        nonce, worker = options.pop("nonce", claimed.nonce), options.pop("worker", "w1")
        return self.store.attempts.finish(Report(claimed.attempt_id, state, **fields), nonce, worker, **options)

    def beat(self, *attempt_ids: str, worker: str = "w1", lease: float = LEASE, **fields: Any) -> dict[str, str]:
        """A heartbeat of a worker that executes these attempts."""
        attempts = tuple(RunningAttempt(attempt_id) for attempt_id in attempt_ids)
        settings: dict[str, Any] = {"queues": ["default"], "slots": 4, "version": "0.1.0", "attempts": attempts}
        heartbeat = Heartbeat(worker, "host", 7, **{**settings, **fields})
        return self.store.attempts.heartbeat(heartbeat, lease)

    def instance(self, run: RunRecord, task_id: str = "a", map_index: int = -1) -> TaskInstanceRecord:
        instances = self.store.runs.task_instances(run.id)
        return next(one for one in instances if (one.task_id, one.map_index) == (task_id, map_index))

    def damage(self, dag_id: str) -> None:
        """Makes the specs of a DAG unreadable, as those of a newer Yarrow are."""
        statement = update(dag_version).where(dag_version.c.dag_id == dag_id).values(spec={"new": True})
        self.store.runs._database.write(lambda connection: connection.execute(statement))
        self.store.runs._specs._kept.clear()

    def states(self, run: RunRecord) -> dict[str, TaskState]:
        return {one.task_id: one.state for one in self.store.runs.task_instances(run.id)}


@pytest.fixture
def stage(store: Store, clock: Any) -> Stage:
    """A stage on each database."""
    return Stage(store, clock)


@pytest.fixture
def sqlite_stage(sqlite_store: Store, clock: Any) -> Stage:
    """A stage on SQLite, for what does not differ between databases or only concerns this one."""
    return Stage(sqlite_store, clock)


@pytest.fixture
def postgres_stage(postgres_store: Store, clock: Any) -> Stage:
    """A stage on PostgreSQL, for what several schedulers do at once."""
    return Stage(postgres_store, clock)

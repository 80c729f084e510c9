"""A scheduler whose time the test moves, an executor that can fail in every way, and workers that need no process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import event

from yarrow.config import Config
from yarrow.errors import BrokerError, Refused
from yarrow.executor import Wakeup
from yarrow.language.spec import DagSpec, ScheduleSpec, TaskSpec
from yarrow.protocol import Heartbeat, Report, RunningAttempt
from yarrow.states import RunState
from yarrow.store import Store
from yarrow.store.records import ClaimedAttempt, RunRecord
from yarrow.tokens import read_attempt_token
from yarrow_scheduler.loop import Scheduler

KEY = b"k" * 64

DAY = ScheduleSpec(cron="@daily")
START = datetime(2026, 1, 1, tzinfo=UTC)


class FaultyExecutor:
    """Delivers into a list. `fault` says what goes wrong instead."""

    def __init__(self) -> None:
        self.fault: str | None = None
        self.delivered: list[Wakeup] = []
        self.error: str | None = None
        self.calls = 0

    def publish(self, wakeups: Sequence[Wakeup]) -> Sequence[Wakeup]:
        self.calls += 1
        match self.fault:
            case "drop":  # the broker took them and lost them
                return wakeups
            case "raise":
                raise BrokerError("The broker is down.")
            case "deliver and raise":  # the answer was lost, not the message
                self.delivered += wakeups
                raise BrokerError("Timeout.")
            case "half":
                self.delivered += wakeups[: len(wakeups) // 2]
                self.error = "Connection reset."
                return wakeups[: len(wakeups) // 2]
            case "double":
                self.delivered += [*reversed(wakeups), *wakeups]
            case None:
                self.delivered += wakeups
        self.error = None
        return wakeups

    def close(self) -> None:
        pass


Behaviour = Callable[[ClaimedAttempt], Report]


def succeed(attempt: ClaimedAttempt) -> Report:
    return Report(attempt.attempt_id, "success")


def fail(attempt: ClaimedAttempt) -> Report:
    return Report(attempt.attempt_id, "failed", reason="it broke")


@dataclass
class FakeWorker:
    """Claims what is delivered for its queues and reports what `behave` says, all in one go."""

    store: Store
    executor: FaultyExecutor
    worker_id: str = "worker-1"
    queues: tuple[str, ...] = ("*",)
    slots: int = 4
    behave: Behaviour = succeed
    lease: float = 60.0
    claimed: list[ClaimedAttempt] = field(default_factory=list)
    refused: int = 0

    def heartbeat(self, *, stopping: bool = False, running: Sequence[str] = ()) -> dict[str, str]:
        attempts = tuple(RunningAttempt(attempt_id) for attempt_id in running)
        beat = Heartbeat(self.worker_id, "host", 1, self.queues, self.slots, "0", attempts, stopping)
        return self.store.attempts.heartbeat(beat, self.lease)

    def take(self) -> list[ClaimedAttempt]:
        """Claims everything that was delivered for it."""
        mine = {"any" if queue == "*" else queue for queue in self.queues}
        messages = [wakeup for wakeup in self.executor.delivered if wakeup.queue in mine]
        self.executor.delivered = [wakeup for wakeup in self.executor.delivered if wakeup.queue not in mine]
        taken = []
        for message in messages:
            attempt_id, nonce = read_attempt_token(KEY, message.token)
            assert attempt_id == message.attempt_id
            try:
                taken.append(self.store.attempts.claim(attempt_id, nonce, self.worker_id, self.lease))
            except Refused:
                self.refused += 1
        self.claimed += taken
        return taken

    def report(self, attempt: ClaimedAttempt) -> None:
        self.store.attempts.finish(self.behave(attempt), attempt.nonce, self.worker_id)

    def work(self) -> int:
        """Executes everything that was delivered for it. Returns how much that was."""
        taken = self.take()
        for attempt in taken:
            self.report(attempt)
        return len(taken)


class Engine:
    """A scheduler with everything around it, driven by hand."""

    def __init__(self, store: Store, clock: Any, config: Config) -> None:
        self.store, self.clock, self.config = store, clock, config
        self.executor = FaultyExecutor()
        self.scheduler = self.start_scheduler()
        self.workers: list[FakeWorker] = []

    def start_scheduler(self) -> Scheduler:
        """A new scheduler, as after a restart."""
        scheduler = Scheduler(self.config, self.store, self.executor, KEY, self.clock)
        self.store.workers.register_scheduler(scheduler.scheduler_id, socket.gethostname(), os.getpid())
        self.scheduler = scheduler
        return scheduler

    def add_worker(self, worker_id: str = "worker-1", **settings: Any) -> FakeWorker:
        worker = FakeWorker(self.store, self.executor, worker_id, **settings)
        worker.heartbeat()
        self.workers.append(worker)
        return worker

    def publish(self, *specs: DagSpec) -> None:
        self.store.catalog.publish([(spec, "source", f"{spec.dag_id}.yaml") for spec in specs])

    def tick(self, times: int = 1) -> float | None:
        """Passes of the scheduler at the present moment, each published to the end."""
        pause = None
        for _ in range(times):
            pause = self.scheduler.tick(self.clock())
            assert self.scheduler.publisher.flush(10)
        return pause

    def settle(self, ticks: int = 500) -> None:
        """Schedules and works until nothing more happens at this moment."""
        for _ in range(ticks):
            pause = self.tick()
            if not sum([worker.work() for worker in self.workers]) and pause is None:
                return
        raise AssertionError("it does not come to rest")

    def advance(self, seconds: float, step: float = 10.0) -> None:
        """Lets time pass in steps, with ticks and heartbeats as in life."""
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            for worker in self.workers:
                worker.heartbeat()
            self.tick()

    def runs(self, dag_id: str) -> list[RunRecord]:
        """The runs of a DAG, oldest first."""
        return sorted(self.store.runs.list(dag_id, limit=10_000), key=lambda run: run.logical_date)

    def states(self, run: RunRecord) -> dict[str, str]:
        return {task.task_id: str(task.state) for task in self.store.runs.task_instances(run.id)}

    def assert_ended(self, dag_id: str, state: RunState = RunState.SUCCESS) -> None:
        runs = self.runs(dag_id)
        assert runs
        assert {run.state for run in runs} == {state}


@pytest.fixture
def engine_on(clock: Any, make_config: Callable[..., Config]) -> Iterator[Callable[[Store], Engine]]:
    """Makes an engine on a store, with the timers of a real deployment."""
    made: list[Engine] = []

    def make(store: Store) -> Engine:
        config = make_config(
            lease=60.0, heartbeat_interval=5.0, dispatch_timeout=60.0, queued_timeout=3600.0, parse_interval=5.0
        )
        made.append(Engine(store, clock, config))
        return made[-1]

    yield make
    for engine in made:
        engine.scheduler.publisher.close()


@pytest.fixture
def engine(store: Store, engine_on: Callable[[Store], Engine]) -> Engine:
    """On both databases."""
    return engine_on(store)


@pytest.fixture
def sqlite_engine(sqlite_store: Store, engine_on: Callable[[Store], Engine]) -> Engine:
    """On SQLite alone."""
    return engine_on(sqlite_store)


@pytest.fixture
def make_dag() -> Callable[..., DagSpec]:
    """Makes a DAG: `make_dag("d", "a", "b", b=["a"], schedule=..., ...)`. Other keywords are fields of the DAG."""

    def make(dag_id: str, *task_ids: str, upstream: dict[str, list[str]] | None = None, **settings: Any) -> DagSpec:
        task_settings = settings.pop("task", {})
        tasks = {
            task_id: TaskSpec(
                task_id, "bash", {"command": "true"}, upstream=tuple((upstream or {}).get(task_id, ())), **task_settings
            )
            for task_id in task_ids
        }
        return DagSpec(dag_id, settings.pop("tasks", None) or tasks, **settings)

    return make


@pytest.fixture
def statements() -> Callable[[], AbstractContextManager[list[str]]]:
    """Collects the SQL that is executed inside a block: what a step costs, whatever machine it runs on."""

    @contextmanager
    def collect() -> Iterator[list[str]]:
        found: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if not statement.startswith("BEGIN"):
                found.append(statement)

        event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
        try:
            yield found
        finally:
            event.remove(sqlalchemy.Engine, "before_cursor_execute", note)

    return collect

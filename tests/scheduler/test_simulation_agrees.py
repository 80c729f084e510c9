"""The real scheduler and store end the runs of DAGs made by chance as the simulator says."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from run_oracle import End, Instance
from small_dags import START, Case, Ends, Maker
from yarrow.protocol import Heartbeat, Report, RunningAttempt
from yarrow.states import TaskState
from yarrow.store import Store
from yarrow.store.records import ClaimedAttempt, RunRecord
from yarrow_scheduler.decide import Decider

LEASE = 10_000.0
WORKER = "worker-1"


@dataclass
class Life:
    """One run in the store: decided on, granted, claimed and ended task by task, in the order of its case."""

    store: Store
    clock: Any
    case: Case
    dag_id: str
    running: dict[Instance, ClaimedAttempt] = field(default_factory=dict)
    started: dict[Instance, None] = field(default_factory=dict)

    def live(self) -> Ends:
        decider = Decider(self.store, queued_timeout=LEASE)
        spec = replace(self.case.spec, dag_id=self.dag_id, max_active_tasks=100)
        self.store.catalog.publish([(spec, "source", f"{self.dag_id}.yaml")])
        run = self.store.runs.trigger(self.dag_id, logical_date=START, who="test")
        self.store.runs.start_due()
        for _ in range(500):
            while self.store.runs.undecided(self.clock()):
                decider.decide(self.clock())
            run = self.store.runs.by_id(run.id)
            if run.state.finished:
                return self.ends(run)
            self.claim()
            if not self.stop():
                self.go_on(run)
        raise AssertionError(f"it does not end: {self.case.describe()}")

    def claim(self) -> None:
        self.store.attempts.grant(1000)
        while (claimed := self.store.attempts.next_for("default", WORKER, LEASE)) is not None:
            instance = (claimed.task_id, claimed.map_index)
            self.running[instance] = claimed
            self.started.setdefault(instance)

    def stop(self) -> bool:
        """Stops what the heartbeat is told to stop."""
        attempts = tuple(RunningAttempt(one.attempt_id) for one in self.running.values())
        told = self.store.attempts.heartbeat(Heartbeat(WORKER, "host", 1, ["default"], 100, "0", attempts), LEASE)
        for instance, claimed in list(self.running.items()):
            if claimed.attempt_id in told:
                self.report(instance, Report(claimed.attempt_id, "cancelled", reason=told[claimed.attempt_id]))
        return bool(told)

    def go_on(self, run: RunRecord) -> None:
        """Ends what is to end next; when nothing runs, time passes."""
        asked = {(one.task_id, one.map_index) for one in self.store.approvals.open(self.dag_id)}
        present = [instance for instance in self.case.order if instance in self.running or instance in asked]
        if not present:
            assert run.wait_until is not None, f"nothing goes on: {self.case.describe()}"
            self.clock.now = max(self.clock.now, run.wait_until)
            return
        task_id, index = instance = present[0]
        end = self.case.ends.get(instance, self.case.ends.get((task_id, -1), End()))
        if instance in asked:
            approve = end.state == "success"
            self.store.approvals.answer(self.dag_id, run.run_id, task_id, index, approve=approve, who="test")
            return
        xcom = self.case.xcoms.get(task_id)
        follow = None if end.follow is None else list(end.follow)
        has_xcom = end.state == "success" and xcom is not None
        report = Report(self.running[instance].attempt_id, end.state, follow=follow, xcom=xcom, has_xcom=has_xcom)
        self.report(instance, report)

    def report(self, instance: Instance, report: Report) -> None:
        self.store.attempts.finish(report, self.running.pop(instance).nonce, WORKER)

    def ends(self, run: RunRecord) -> Ends:
        states = {(one.task_id, one.map_index): str(one.state) for one in self.store.runs.task_instances(run.id)}
        return Ends(str(run.state), states, list(self.started))


Agree = Callable[[Store, int], None]


@pytest.fixture
def agrees(clock: Any) -> Agree:
    def check(store: Store, seed: int) -> None:
        case = Maker(random.Random(seed)).case()
        expected, found = case.simulated(), Life(store, clock, case, f"small_{seed}").live()
        assert found.states == expected.states, case.describe()
        assert found.run_state == expected.run_state, case.describe()
        assert set(found.started) == set(expected.started), case.describe()

    return check


@pytest.mark.parametrize("seed", range(40))
def test_a_run_ends_as_simulated(sqlite_store: Store, agrees: Agree, seed: int) -> None:
    agrees(sqlite_store, seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1000, 1400, 50))
def test_many_runs_end_as_simulated(sqlite_store: Store, agrees: Agree, first: int) -> None:
    for seed in range(first, first + 50):
        agrees(sqlite_store, seed)


@pytest.mark.slow
def test_runs_on_postgresql_end_as_simulated(postgres_store: Store, agrees: Agree) -> None:
    for seed in range(2000, 2040):
        agrees(postgres_store, seed)


def test_the_sample_has_all_that_decides_about_a_run() -> None:
    """Else the agreement would say little."""
    cases = [Maker(random.Random(seed)).case() for seed in (*range(40), *range(1000, 1200))]
    tasks = [task for case in cases for task in case.spec.tasks.values()]
    ends = [case.simulated() for case in cases]
    states = [state for end in ends for state in end.states.values()]
    assert {task.operator for task in tasks} == {"bash", "branch", "short_circuit", "empty", "approval"}
    assert len({task.trigger_rule for task in tasks}) == 13
    assert {bool(task.map_group) for task in tasks if task.expand is not None} == {True, False}
    assert any(task.setup for task in tasks)
    assert any(task.teardown for task in tasks)
    assert any(case.spec.fail_fast for case in cases)
    assert {end.run_state for end in ends} == {"success", "failed"}
    for state in (TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED, TaskState.UPSTREAM_FAILED):
        assert states.count(state) > 50

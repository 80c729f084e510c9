"""The whole way of a task through the scheduler: order, limits, retries, losses, and runs that can't be decided on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from yarrow.errors import NotFound, StoreError
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.protocol import Report
from yarrow.states import RunState
from yarrow.store.records import ClaimedAttempt, RunRecord
from yarrow.xcom import spill

MakeDag = Callable[..., DagSpec]

DIAMOND = {"left": ["top"], "right": ["top"], "bottom": ["left", "right"]}


def trigger(engine: Any, dag_id: str, run_id: str | None = None) -> RunRecord:
    run: RunRecord = engine.store.runs.trigger(dag_id, who="tester", run_id=run_id)
    return run


def failing(reason: str = "it broke") -> Callable[[ClaimedAttempt], Report]:
    return lambda attempt: Report(attempt.attempt_id, "failed", reason=reason)


def test_a_run_goes_through_its_graph_in_order(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "top", "left", "right", "bottom", upstream=DIAMOND))
    worker = engine.add_worker()
    run = trigger(engine, "d")
    engine.settle()
    engine.assert_ended("d")
    order = [attempt.task_id for attempt in worker.claimed]
    assert order[0] == "top"
    assert order[-1] == "bottom"
    assert sorted(order) == ["bottom", "left", "right", "top"]
    assert set(engine.states(run).values()) == {"success"}


def test_a_failure_stops_what_comes_after_it(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "top", "left", "right", "bottom", upstream=DIAMOND))
    worker = engine.add_worker()
    worker.behave = failing()
    run = trigger(engine, "d")
    engine.settle()
    assert engine.states(run) == {
        "top": "failed",
        "left": "upstream_failed",
        "right": "upstream_failed",
        "bottom": "upstream_failed",
    }
    engine.assert_ended("d", RunState.FAILED)


def test_nothing_more_to_do_is_said(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a"))
    trigger(engine, "d")
    engine.settle()
    assert engine.tick() is None


def test_the_tick_after_the_end_of_a_run_comes_at_once(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a"))
    worker = engine.add_worker()
    trigger(engine, "d")
    engine.tick()
    worker.work()
    assert engine.tick() == 0.0, "its place may be taken by another run"


def test_more_important_tasks_go_first(engine: Any, make_dag: MakeDag) -> None:
    tasks = {
        name: TaskSpec(name, "bash", {}, priority_weight=weight)
        for name, weight in {"low": 1, "high": 10, "middle": 5}.items()
    }
    engine.publish(make_dag("d", tasks=tasks))
    worker = engine.add_worker(slots=4)
    trigger(engine, "d")
    engine.settle()
    assert [attempt.task_id for attempt in worker.claimed] == ["high", "middle", "low"]


def test_priority_counts_across_the_queues_of_one_worker(engine: Any, make_dag: MakeDag) -> None:
    tasks = {
        f"{queue}{weight}": TaskSpec(f"{queue}{weight}", "bash", {}, priority_weight=weight, queue=queue)
        for queue, weight in [("default", 1), ("default", 2), ("default", 9), ("gpu", 5), ("gpu", 8), ("gpu", 3)]
    }
    engine.publish(make_dag("d", tasks=tasks))
    worker = engine.add_worker(slots=1)
    trigger(engine, "d")
    engine.tick()
    assert [attempt.task_id for attempt in worker.take()] == ["default9", "gpu8"], "two messages for one free slot"


def test_the_broker_holds_twice_the_free_slots_at_most(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", *(f"t{number}" for number in range(30)), max_active_tasks=100))
    worker = engine.add_worker(slots=3)
    trigger(engine, "d")
    engine.tick(5)
    assert len(engine.executor.delivered) == 6
    worker.take()
    engine.tick()
    assert engine.executor.delivered == [], "no slot is free"
    for attempt in worker.claimed[:4]:
        worker.report(attempt)
    engine.tick()
    assert len(engine.executor.delivered) == 2, "six slots would be too many, but four of six have ended: one is free"


def test_parallelism_bounds_what_is_queued_and_running(
    sqlite_store: Any, clock: Any, make_config: Any, make_dag: MakeDag, sqlite_engine: Any
) -> None:
    engine = sqlite_engine
    engine.config = make_config(parallelism=5, lease=60.0, heartbeat_interval=5.0)
    engine.start_scheduler()
    engine.publish(make_dag("d", *(f"t{number}" for number in range(20)), max_active_tasks=100))
    worker = engine.add_worker(slots=50)
    run = trigger(engine, "d")
    engine.tick(3)
    assert len(worker.take()) == 5
    engine.tick(3)
    assert worker.take() == []
    for attempt in worker.claimed:
        worker.report(attempt)
    engine.settle()
    assert set(engine.states(run).values()) == {"success"}


def test_a_pool_is_never_overdrawn(engine: Any, make_dag: MakeDag) -> None:
    engine.store.workers.set_pools({"default_pool": 128, "small": 2})
    engine.publish(make_dag("d", *(f"t{number}" for number in range(7)), task={"pool": "small"}), make_dag("e", "free"))
    worker = engine.add_worker(slots=50)
    run, _ = trigger(engine, "d"), trigger(engine, "e")
    for _ in range(10):
        engine.tick()
        taken = worker.take()
        assert sum(attempt.dag_id == "d" for attempt in taken) <= 2
        for attempt in taken:
            worker.report(attempt)
    assert set(engine.states(run).values()) == {"success"}
    engine.assert_ended("e")


def test_max_active_tasks_bounds_a_dag_and_no_other(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", *(f"t{number}" for number in range(9)), max_active_tasks=2), make_dag("e", "x", "y"))
    worker = engine.add_worker(slots=50)
    trigger(engine, "d")
    trigger(engine, "e")
    engine.tick(3)
    assert sorted(attempt.dag_id for attempt in worker.take()) == ["d", "d", "e", "e"]


def test_max_active_runs_starts_the_oldest_first(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", max_active_runs=1))
    worker = engine.add_worker()
    for day in (3, 1, 2):
        engine.store.runs.trigger("d", who="tester", logical_date=datetime(2025, 1, day, tzinfo=UTC))
    engine.settle()
    assert [attempt.logical_date.day for attempt in worker.claimed] == [1, 2, 3]


def test_a_failed_task_is_tried_again_when_its_delay_is_over(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", "b", upstream={"b": ["a"]}, task={"retries": 2, "retry_delay": 30.0}))
    worker = engine.add_worker()
    worker.behave = failing()
    run = trigger(engine, "d")
    engine.settle()
    assert engine.states(run) == {"a": "up_for_retry", "b": "none"}
    engine.advance(29)
    engine.settle()
    assert len(worker.claimed) == 1
    engine.advance(2)
    worker.behave = lambda attempt: Report(attempt.attempt_id, "success")
    engine.settle()
    assert [attempt.try_number for attempt in worker.claimed if attempt.task_id == "a"] == [1, 2]
    engine.assert_ended("d")


def test_a_condition_sees_a_result_that_is_kept_in_the_object_store(sqlite_engine: Any, tmp_path: Path) -> None:
    rows = list(range(1000))
    kept = spill({"rows": rows}, f"file://{tmp_path}", "d/a", inline_limit=100)
    command = {"command": "true"}
    tasks = {
        "a": TaskSpec("a", "bash", command),
        "many": TaskSpec("many", "bash", command, ("a",), when="xcom.a.rows | length > 999", when_xcoms=("a",)),
        "few": TaskSpec("few", "bash", command, ("a",), when="xcom.a.rows | length < 999", when_xcoms=("a",)),
    }
    sqlite_engine.publish(DagSpec("d", tasks))
    worker = sqlite_engine.add_worker()
    worker.behave = lambda attempt: Report(attempt.attempt_id, "success", xcom=kept, has_xcom=True)
    run = trigger(sqlite_engine, "d")
    sqlite_engine.settle()
    assert sqlite_engine.states(run) == {"a": "success", "many": "success", "few": "skipped"}


def test_a_task_fails_when_its_tries_are_used_up(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", task={"retries": 1, "retry_delay": 5.0}))
    worker = engine.add_worker()
    worker.behave = failing()
    trigger(engine, "d")
    engine.settle()
    engine.advance(6)
    engine.settle()
    assert len(worker.claimed) == 2
    engine.assert_ended("d", RunState.FAILED)


def test_a_lost_worker_costs_the_task_no_try(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a"))
    dead, alive = engine.add_worker("dead"), engine.add_worker("alive")
    run = trigger(engine, "d")
    engine.tick()
    (attempt,) = dead.take()
    engine.workers.remove(dead)
    engine.advance(55, step=5)
    assert engine.states(run) == {"a": "running"}
    engine.advance(20, step=5)
    engine.settle()
    engine.assert_ended("d")
    assert [taken.try_number for taken in alive.claimed] == [attempt.try_number]
    (instance,) = engine.store.runs.task_instances(run.id)
    assert instance.infra_losses == 1


def test_a_worker_that_reports_is_never_lost(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a"))
    worker = engine.add_worker()
    trigger(engine, "d")
    engine.tick()
    (attempt,) = worker.take()
    for _ in range(40):
        engine.clock.advance(30)
        assert worker.heartbeat(running=[attempt.attempt_id]) == {}
        engine.tick()
    worker.report(attempt)
    engine.settle()
    engine.assert_ended("d")
    assert len(worker.claimed) == 1


@pytest.mark.parametrize("restarted", [True, False])
def test_after_an_outage_workers_have_time_to_report(engine: Any, make_dag: MakeDag, restarted: bool) -> None:
    engine.publish(make_dag("d", "a"))
    worker = engine.add_worker()
    run = trigger(engine, "d")
    engine.tick()
    (attempt,) = worker.take()
    engine.clock.advance(600)  # nobody could report: the machine slept, or the database was away
    if restarted:
        engine.start_scheduler()
    engine.tick()
    assert engine.states(run) == {"a": "running"}
    assert worker.heartbeat(running=[attempt.attempt_id]) == {}
    engine.advance(60, step=5)
    assert engine.states(run) == {"a": "running"}


def test_the_infrastructure_may_lose_a_task_only_so_often(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a"))
    run = trigger(engine, "d")
    for number in range(engine.config.infra_budget + 1):
        worker = engine.add_worker(f"worker-{number}")
        engine.tick()
        assert len(worker.take()) == 1
        engine.workers.clear()
        engine.advance(90, step=10)
    assert engine.states(run) == {"a": "failed"}


def test_a_queue_goes_to_its_own_workers(engine: Any, make_dag: MakeDag) -> None:
    tasks = {queue: TaskSpec(queue, "bash", {}, queue=queue) for queue in ("gpu", "default", "odd")}
    engine.publish(make_dag("d", tasks=tasks))
    gpu = engine.add_worker("gpu", queues=("gpu",))
    every = engine.add_worker("every", queues=("*",))
    trigger(engine, "d")
    engine.settle()
    assert [attempt.task_id for attempt in gpu.claimed] == ["gpu"]
    assert sorted(attempt.task_id for attempt in every.claimed) == ["default", "odd"]


def test_a_queue_whose_worker_is_gone_goes_to_those_that_serve_all(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", task={"queue": "gpu"}))
    gpu = engine.add_worker("gpu", queues=("gpu",))
    every = engine.add_worker("every")
    trigger(engine, "d")
    engine.tick()
    assert [wakeup.queue for wakeup in engine.executor.delivered] == ["gpu"]
    engine.workers.remove(gpu)
    engine.advance(130)
    engine.settle()
    assert [attempt.task_id for attempt in every.claimed] == ["a"]
    engine.assert_ended("d")


def test_a_stopping_worker_gets_nothing(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a"))
    worker = engine.add_worker()
    worker.heartbeat(stopping=True)
    trigger(engine, "d")
    engine.tick(3)
    assert engine.executor.delivered == []


def test_a_task_that_nobody_serves_fails_with_the_reason(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", task={"queue": "gpu"}), make_dag("e", "a", task={"pool": "nope"}))
    engine.add_worker(queues=("default",))
    unserved, poolless = trigger(engine, "d"), trigger(engine, "e")
    engine.advance(3590)
    assert engine.states(unserved) == {"a": "scheduled"}
    engine.advance(30)
    engine.settle()
    for run, word in ((unserved, "gpu"), (poolless, "nope")):
        (instance,) = engine.store.runs.task_instances(run.id)
        assert instance.state == "failed"
        assert word in instance.reason
    engine.assert_ended("d", RunState.FAILED)


def test_a_paused_dag_starts_nothing_new(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", "b", upstream={"b": ["a"]}))
    worker = engine.add_worker()
    run = trigger(engine, "d")
    engine.tick()
    worker.take()
    engine.store.catalog.set_paused("d", True, "tester")
    worker.report(worker.claimed[0])
    engine.settle()
    assert engine.states(run) == {"a": "success", "b": "scheduled"}
    engine.store.catalog.set_paused("d", False, "tester")
    engine.settle()
    engine.assert_ended("d")


def test_a_run_keeps_the_version_it_began_with(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", "b", upstream={"b": ["a"]}))
    worker = engine.add_worker()
    run = trigger(engine, "d", "old")
    engine.tick()
    engine.publish(make_dag("d", "c"))
    engine.store.catalog.deactivate(["d"])
    engine.settle()
    assert engine.states(run) == {"a": "success", "b": "success"}
    assert len(worker.claimed) == 2


def test_a_run_that_cannot_be_decided_on_stops_no_other(
    engine: Any, make_dag: MakeDag, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine.publish(make_dag("bad", "a"), make_dag("good", "a"))
    engine.add_worker()
    bad, _ = trigger(engine, "bad"), trigger(engine, "good")
    snapshot = type(engine.store.runs).snapshot
    looks: list[datetime] = []

    def corrupt(self: Any, id: int) -> Any:
        if id == bad.id:
            looks.append(engine.clock())
            raise NotFound("There is no version 123 of the DAG 'bad'.")
        return snapshot(self, id)

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(type(engine.store.runs), "snapshot", corrupt)
        engine.settle()
        for _ in range(200):
            engine.advance(1, step=1)
    engine.assert_ended("good")
    waits = [(after - before).total_seconds() for before, after in pairwise(looks)]
    assert waits == [1, 2, 4, 8, 16, 32, 64]
    reason = engine.store.runs.by_id(bad.id).reason
    assert reason is not None
    assert "NotFound" in reason
    assert "version 123" in reason
    assert {record.action for record in caplog.records} == {"run_quarantined"}  # type: ignore[attr-defined]
    engine.advance(70)
    engine.settle()
    engine.assert_ended("bad")


def test_a_broken_database_is_not_taken_for_a_bad_run(
    sqlite_engine: Any, make_dag: MakeDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sqlite_engine
    engine.publish(make_dag("d", "a"))
    run = trigger(engine, "d")

    def fail(*_: Any) -> Any:
        raise StoreError("The database can't be used.")

    with monkeypatch.context() as patch:
        patch.setattr(type(engine.store.runs), "snapshot", fail)
        with pytest.raises(StoreError):
            engine.tick()
    assert engine.store.runs.by_id(run.id).reason is None
    engine.add_worker()
    engine.settle()
    engine.assert_ended("d")


def test_it_says_that_it_is_alive(engine: Any) -> None:
    engine.tick()
    (record,) = engine.store.workers.schedulers()
    assert record.scheduler_id == engine.scheduler.scheduler_id
    assert record.loop_seconds > 0
    assert record.seen_at == engine.clock()
    engine.advance(4, step=1)
    (record,) = engine.store.workers.schedulers()
    assert record.seen_at == engine.clock() - timedelta(seconds=4), "not at every tick"
    engine.advance(1, step=1)
    (record,) = engine.store.workers.schedulers()
    assert record.seen_at == engine.clock()


def test_dead_workers_are_forgotten_in_the_end(engine: Any) -> None:
    engine.add_worker("dead")
    engine.workers.clear()
    engine.advance(500, step=20)
    assert engine.store.workers.alive(10**6) != []
    engine.advance(200, step=20)
    assert engine.store.workers.alive(10**6) == []


def test_two_schedulers_share_the_work(
    postgres_store: Any, clock: Any, make_config: Any, make_dag: MakeDag, engine_on: Any
) -> None:
    engine = engine_on(postgres_store)
    first, second = engine.scheduler, engine.start_scheduler()
    dag = make_dag("d", "top", "left", "right", "bottom", upstream=DIAMOND)
    engine.publish(dag)
    worker = engine.add_worker()
    run = trigger(engine, "d")
    for _ in range(10):
        for scheduler in (first, second):
            scheduler.tick(clock())
            assert scheduler.publisher.flush(10)
        worker.work()
    first.publisher.close()
    assert set(engine.states(run).values()) == {"success"}
    assert len(worker.claimed) == 4


def test_a_tick_with_nothing_to_do_asks_little(
    sqlite_engine: Any, make_dag: MakeDag, statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    engine = sqlite_engine
    engine.publish(*(make_dag(f"d{number}", "a") for number in range(100)))
    engine.add_worker()
    for number in range(5):
        trigger(engine, f"d{number}")
    engine.settle()
    engine.tick(20)
    with statements() as found:
        engine.tick()
    assert len(found) <= 10, "however many DAGs and ended runs there are"
    assert all(statement.startswith("SELECT") for statement in found), "nothing is written, so nobody is held up"

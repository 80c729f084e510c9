"""How long the loop sleeps, what wakes it, and what it does when a pass fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from yarrow.errors import SecondScheduler, StoreError
from yarrow.language.spec import DagSpec, ScheduleSpec, TaskSpec
from yarrow.protocol import Report
from yarrow_scheduler.bell import Bell

MakeDag = Callable[..., DagSpec]


def test_an_idle_scheduler_sleeps_for_a_heartbeat(sqlite_engine: Any) -> None:
    assert sqlite_engine.scheduler._pass() == 5.0


def test_it_sleeps_until_the_next_run_is_due(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", schedule=ScheduleSpec(cron="* * * * *")))
    engine.add_worker()
    engine.settle()
    engine.advance(57.5)
    engine.settle()
    assert engine.scheduler._pass() == 2.5


def test_it_sleeps_until_a_retry_is_due(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", task={"retries": 1, "retry_delay": 2.0}))
    worker = engine.add_worker()
    worker.behave = lambda attempt: Report(attempt.attempt_id, "failed")
    engine.store.runs.trigger("d", who="tester")
    engine.settle()
    assert engine.scheduler._pass() == 2.0


def test_it_sleeps_until_a_lease_ends(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a"))
    worker = engine.add_worker(lease=3.0)
    engine.store.runs.trigger("d", who="tester")
    engine.tick()
    worker.take()
    assert engine.scheduler._pass() == 3.0


def test_it_sleeps_until_the_broker_is_tried_again(sqlite_engine: Any, make_dag: MakeDag) -> None:
    engine = sqlite_engine
    engine.publish(make_dag("d", "a"))
    engine.add_worker()
    engine.store.runs.trigger("d", who="tester")
    engine.executor.fault = "raise"
    engine.tick()
    assert engine.scheduler.publisher.retry_at == engine.clock() + timedelta(seconds=1)
    assert engine.scheduler._pass() == 1.0


def test_what_is_overdue_does_not_keep_it_awake(sqlite_engine: Any, make_dag: MakeDag) -> None:
    engine = sqlite_engine
    engine.publish(
        make_dag(
            "d", "a", schedule=ScheduleSpec(every=60.0), start_date=engine.clock() - timedelta(days=1), catchup=True
        )
    )
    engine.tick(3)
    assert engine.store.catalog.next_due() < engine.clock()
    assert engine.scheduler._pass() == 1.0


def test_a_run_that_has_ended_is_followed_at_once(sqlite_engine: Any, make_dag: MakeDag) -> None:
    engine = sqlite_engine
    engine.publish(make_dag("d", tasks={"a": TaskSpec("a", "empty", {})}))
    engine.store.runs.trigger("d", who="tester")
    assert engine.scheduler._pass() == 0.0
    assert engine.scheduler._pass() == 5.0
    engine.assert_ended("d")


def test_a_decision_that_came_too_late_is_taken_anew_soon(
    sqlite_engine: Any, make_dag: MakeDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sqlite_engine
    engine.publish(make_dag("d", "a"))
    engine.store.runs.trigger("d", who="tester")
    monkeypatch.setattr(type(engine.store.runs), "apply", lambda *_, **__: False)
    assert engine.scheduler._pass() == 0.05


def test_a_pass_that_fails_is_told_and_tried_again(
    sqlite_engine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = sqlite_engine
    failures: list[Exception] = [StoreError("The database is away."), RuntimeError("a bug")]

    def fail(_now: Any) -> None:
        raise failures[0]

    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(engine.scheduler, "tick", fail)
        assert 0.2 <= engine.scheduler._pass() <= 2.0
        failures.pop(0)
        assert all(0.2 <= engine.scheduler._pass() <= 10.0 for _ in range(50))
    with caplog.at_level(logging.INFO):
        assert engine.scheduler._pass() == 5.0
    actions = [record.action for record in caplog.records]  # type: ignore[attr-defined]
    assert actions == ["pass_failed"] * 51 + ["pass_recovered"]
    assert caplog.records[0].exc_info is None
    assert caplog.records[1].exc_info is not None


def test_a_scheduler_whose_place_was_taken_ends(sqlite_engine: Any) -> None:
    engine = sqlite_engine
    engine.store.workers.unregister_scheduler(engine.scheduler.scheduler_id)
    with pytest.raises(SecondScheduler):
        engine.scheduler._pass()


def test_the_bell_wakes_whoever_waits() -> None:
    bell = Bell()
    threading.Thread(target=bell.ring).start()
    assert bell.wait(10), "it was woken, not out of time"


def test_rings_are_kept_and_heard_as_one() -> None:
    bell = Bell()
    for _ in range(3):
        bell.ring()
    assert bell.wait(10)
    assert not bell.wait(0)
    assert not bell.wait(-1)

"""Deadlines in the loop: judged as they pass, slept towards, and told of even when nothing runs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from yarrow.language.spec import DagSpec, DeadlineSpec, ScheduleSpec
from yarrow.protocol import Report
from yarrow.timetable import scheduled_run_id
from yarrow_scheduler import deadlines

MakeDag = Callable[..., DagSpec]

DAY = ScheduleSpec(cron="@daily")
HOUR = 3600.0


def told(engine: Any) -> list[tuple[str, str | None]]:
    return [(one.run_id, one.task_id) for one in reversed(engine.store.notifications.list(limit=1000))]


def test_a_run_that_takes_too_long_is_told_of(engine: Any, make_dag: MakeDag, caplog: pytest.LogCaptureFixture) -> None:
    engine.publish(
        make_dag("d", "a", deadline=DeadlineSpec(60.0, "queued_at"), on_deadline=("ops",), task={"on_success": ()})
    )
    worker = engine.add_worker()
    run = engine.store.runs.trigger("d", who="tester")
    engine.tick()
    (claimed,) = worker.take()
    assert engine.scheduler._pass() <= 5.0
    engine.clock.advance(59.0)
    worker.heartbeat(running=[claimed.attempt_id])
    assert engine.scheduler._pass() == 1.0, "it sleeps until the deadline"
    assert told(engine) == []
    engine.clock.advance(1.0)
    with caplog.at_level(logging.WARNING):
        engine.tick()
    assert told(engine) == [(run.run_id, None)]
    assert f"run {run.run_id} of d missed the deadline" in caplog.text
    engine.tick(3)
    worker.report(claimed)
    engine.settle()
    engine.assert_ended("d")
    assert len(told(engine)) == 1


def test_a_run_that_ends_in_time_is_not(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", deadline=DeadlineSpec(60.0, "queued_at"), on_deadline=("ops",)))
    engine.add_worker()
    engine.store.runs.trigger("d", who="tester")
    engine.settle()
    engine.clock.advance(60)
    engine.settle()
    assert told(engine) == []
    assert engine.store.deadlines.list(missed=False) == [], "it is forgotten"


def test_a_run_that_can_not_begin_is_told_of(engine: Any, make_dag: MakeDag) -> None:
    """The first run holds the only place, and the second one is due, late, and never made."""
    dag = make_dag("d", "a", schedule=DAY, max_active_runs=1, deadline=DeadlineSpec(26 * HOUR), on_deadline=("ops",))
    engine.publish(dag)
    engine.tick(3)
    (first,) = engine.runs("d")
    assert first.logical_date == datetime(2025, 12, 31, tzinfo=UTC)
    engine.clock.advance(26 * HOUR)
    engine.tick(3)
    assert len(engine.runs("d")) == 1
    assert told(engine) == [(first.run_id, None), (scheduled_run_id(first.logical_date + timedelta(days=1)), None)]
    engine.add_worker()
    engine.settle()
    assert len(engine.runs("d")) == 2
    engine.tick(3)
    assert len(told(engine)) == 2, "nobody is told again when it comes to be"


def test_a_scheduler_that_was_away_tells_it_when_it_is_back(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(
        make_dag(
            "d",
            "a",
            schedule=DAY,
            catchup=True,
            start_date=engine.clock(),
            deadline=DeadlineSpec(26 * HOUR),
            on_deadline=("ops",),
        )
    )
    engine.tick(2)
    assert engine.runs("d") == []
    engine.clock.advance(27 * HOUR)
    engine.start_scheduler()
    engine.tick(3)
    assert len(engine.runs("d")) == 1
    assert told(engine) == [(scheduled_run_id(datetime(2026, 1, 1, tzinfo=UTC)), None)]


def test_a_paused_dag_is_not_waited_for(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(
        make_dag(
            "d",
            "a",
            schedule=DAY,
            deadline=DeadlineSpec(26 * HOUR),
            on_deadline=("ops",),
            catchup=True,
            start_date=engine.clock(),
        )
    )
    engine.tick(2)
    engine.store.catalog.set_paused("d", True, "ann")
    engine.clock.advance(40 * HOUR)
    engine.tick(3)
    assert told(engine) == []


def test_a_task_has_its_own(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", task={"deadline": DeadlineSpec(60.0, "queued_at"), "on_deadline": ("me",)}))
    worker = engine.add_worker()
    worker.behave = lambda attempt: Report(attempt.attempt_id, "failed", reason="it broke")
    run = engine.store.runs.trigger("d", who="tester")
    engine.settle()
    engine.clock.advance(60)
    engine.tick()
    assert told(engine) == [(run.run_id, "a")], "it has failed, so it was not done in time"


def test_many_at_once_are_judged_in_several_passes(
    sqlite_engine: Any, make_dag: MakeDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sqlite_engine
    monkeypatch.setattr(deadlines, "_AT_ONCE", 4)
    task = {"deadline": DeadlineSpec(60.0, "queued_at")}
    engine.publish(make_dag("d", *(f"t{number}" for number in range(10)), task=task))
    engine.store.runs.trigger("d", who="tester")
    engine.tick(3)
    engine.clock.advance(60)
    assert [engine.tick(), engine.tick()] == [0.0, 0.0]
    engine.tick()
    assert len(engine.store.deadlines.list()) == 10


def test_nothing_due_costs_one_question(
    sqlite_engine: Any, make_dag: MakeDag, statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    engine = sqlite_engine
    engine.publish(make_dag("d", "a", deadline=DeadlineSpec(HOUR, "queued_at")))
    engine.store.runs.trigger("d", who="tester")
    engine.tick(3)
    with statements() as found:
        engine.tick()
    assert len([statement for statement in found if "FROM deadline" in statement]) == 1

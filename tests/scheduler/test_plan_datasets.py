"""Data sets that were published become runs of the DAGs that wait for them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from yarrow.language.spec import DagSpec, ScheduleSpec, TaskSpec

MakeDag = Callable[..., DagSpec]


def waits_for(*names: str, mode: str = "all") -> ScheduleSpec:
    return ScheduleSpec(datasets=names, mode=mode)


def test_a_task_that_succeeds_starts_the_dags_that_wait(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(
        make_dag("source", "t", task={"outlets": ("a",)}),
        make_dag("reader", "t", schedule=waits_for("a"), task={"outlets": ("b",)}),
        make_dag("both", "t", schedule=waits_for("a", "b")),
        make_dag("either", "t", schedule=waits_for("a", "c", mode="any")),
        make_dag("other", "t", schedule=waits_for("c")),
    )
    engine.add_worker()
    engine.settle()
    assert [engine.runs(dag_id) for dag_id in ("reader", "both", "either")] == [[], [], []]
    engine.store.runs.trigger("source", who="tester")
    engine.settle()
    for dag_id in ("reader", "both", "either"):
        engine.assert_ended(dag_id)
        assert len(engine.runs(dag_id)) == 1
        assert engine.runs(dag_id)[0].run_type == "dataset"
    assert engine.runs("other") == []


def test_what_comes_during_a_run_is_gathered_for_the_next(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "t", schedule=waits_for("a"), max_active_runs=1))
    worker = engine.add_worker()
    engine.store.datasets.publish("a", "somebody")
    engine.tick(2)
    (first,) = worker.take()
    for _ in range(3):
        engine.clock.advance(1)
        engine.store.datasets.publish("a", "somebody")
        engine.tick()
    assert len(engine.runs("d")) == 1
    worker.heartbeat(running=[first.attempt_id])
    worker.report(first)
    engine.settle()
    assert len(engine.runs("d")) == 2
    engine.assert_ended("d")
    assert engine.store.datasets.ready("d") == []


def test_a_paused_dag_gets_one_run_for_all_when_it_goes_on(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "t", schedule=waits_for("a")))
    engine.add_worker()
    engine.store.catalog.set_paused("d", True, "somebody")
    for _ in range(3):
        engine.store.datasets.publish("a", "somebody")
        engine.settle()
    assert engine.runs("d") == []
    engine.store.catalog.set_paused("d", False, "somebody")
    engine.settle()
    assert len(engine.runs("d")) == 1


def test_waiting_costs_no_statement(
    sqlite_engine: Any, make_dag: MakeDag, statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    engine = sqlite_engine
    engine.publish(make_dag("none", "t"))
    engine.settle()
    with statements() as before:
        engine.tick()
    engine.publish(make_dag("d", "t", schedule=waits_for("a", "b")))
    engine.store.datasets.publish("a", "somebody")
    engine.settle()
    with statements() as found:
        engine.tick()
    assert len(found) == len(before)
    assert not [statement for statement in found if "dataset" in statement]


def test_a_run_that_can_not_be_made_is_tried_again(
    sqlite_engine: Any, make_dag: MakeDag, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = sqlite_engine
    engine.publish(make_dag("d", "t", schedule=waits_for("a")))
    engine.store.datasets.publish("a", "somebody")

    def fail(*_: Any, **__: Any) -> Any:
        raise ValueError("a bug")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(type(engine.store.datasets), "make_run", fail)
        engine.tick(3)
    assert {record.action for record in caplog.records} == {"plan_failed"}  # type: ignore[attr-defined]
    engine.clock.advance(61)
    engine.tick()
    assert len(engine.runs("d")) == 1


def test_what_is_published_without_a_worker_is_seen_at_once(engine: Any) -> None:
    """The run goes on, and nothing else would wake the loop."""
    tasks = {"e": TaskSpec("e", "empty", {}, outlets=("a",)), "t": TaskSpec("t", "bash", {}, ("e",))}
    engine.publish(
        DagSpec("source", tasks), DagSpec("reader", {"t": TaskSpec("t", "bash", {})}, schedule=waits_for("a"))
    )
    engine.settle()
    engine.store.runs.trigger("source", who="tester")
    now = engine.clock()
    assert engine.scheduler.tick(now) == 0.0
    assert [run.state for run in engine.runs("source")] == ["running"]
    engine.scheduler.tick(now)
    assert len(engine.runs("reader")) == 1

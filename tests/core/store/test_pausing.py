"""DAGs that pause themselves after too many failed runs."""

from threading import Event, Thread
from typing import Any

import pytest

from yarrow.states import RunState
from yarrow.store import deciding

SUCCESS, FAILED = RunState.SUCCESS, RunState.FAILED


def end_runs(stage: Any, spec: Any, *states: RunState) -> None:
    """Has one run after the other end like that, a minute apart."""
    for state in states:
        stage.clock.advance(60)
        assert stage.end(stage.run(spec, f"r{stage.clock():%H%M%S}"), state)


def paused(stage: Any) -> bool:
    return bool(stage.store.catalog.dag("d").is_paused)


def test_a_dag_whose_last_runs_failed_is_paused(stage: Any) -> None:
    spec = stage.dag(max_consecutive_failed_dag_runs=3)
    stage.publish(spec)
    end_runs(stage, spec, FAILED, FAILED)
    assert not paused(stage)
    end_runs(stage, spec, FAILED)
    assert paused(stage)
    (line,) = [line for line in stage.store.runs.events("d") if line.kind == "dag.paused"]
    assert line.who == "scheduler"
    assert line.reason.startswith("The last 3 runs failed, as many as `max_consecutive_failed_dag_runs` allows.")


def test_a_success_in_between_starts_the_count_anew(stage: Any) -> None:
    spec = stage.dag(max_consecutive_failed_dag_runs=2)
    stage.publish(spec)
    end_runs(stage, spec, FAILED, SUCCESS, FAILED)
    assert not paused(stage)
    end_runs(stage, spec, FAILED)
    assert paused(stage)


def test_unpausing_starts_the_count_anew(stage: Any) -> None:
    spec = stage.dag(max_consecutive_failed_dag_runs=2)
    stage.publish(spec)
    end_runs(stage, spec, FAILED, FAILED)
    assert paused(stage)
    stage.clock.advance(1)
    stage.store.catalog.set_paused("d", False, "ann")
    end_runs(stage, spec, FAILED)
    assert not paused(stage)
    end_runs(stage, spec, FAILED)
    assert paused(stage)


def test_runs_count_in_the_order_in_which_they_ended(stage: Any) -> None:
    spec = stage.dag(max_consecutive_failed_dag_runs=2)
    stage.publish(spec)
    runs = [stage.run(spec, f"r{number}") for number in range(3)]
    for run, state in zip(reversed(runs), (FAILED, SUCCESS, FAILED), strict=True):
        stage.clock.advance(60)
        assert stage.end(run, state)
    assert not paused(stage)


def test_the_newest_version_says_how_many(stage: Any) -> None:
    old, new = stage.dag(), stage.dag(max_consecutive_failed_dag_runs=1)
    stage.publish(old)
    run = stage.run(old)
    stage.publish(new)
    assert stage.end(run, FAILED)
    assert paused(stage)


@pytest.mark.parametrize(("limit", "state"), [(0, FAILED), (1, SUCCESS)])
def test_no_other_dag_is_paused(stage: Any, limit: int, state: RunState) -> None:
    spec = stage.dag(max_consecutive_failed_dag_runs=limit)
    stage.publish(spec)
    end_runs(stage, spec, state)
    assert not paused(stage)


def test_a_dag_that_is_paused_already_is_left_alone(stage: Any) -> None:
    spec = stage.dag(max_consecutive_failed_dag_runs=1)
    stage.publish(spec)
    run = stage.run(spec)
    stage.store.catalog.set_paused("d", True, "ann")
    assert stage.end(run, FAILED)
    assert [line.who for line in stage.store.runs.events("d") if line.kind == "dag.paused"] == ["ann"]


def test_runs_that_fail_at_the_same_moment_see_each_other(postgres_stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = postgres_stage
    spec = stage.dag(max_consecutive_failed_dag_runs=2)
    stage.publish(spec)
    first, second = stage.run(spec, "r1"), stage.run(spec, "r2")
    counted, go_on = Event(), Event()
    pause_after_failures = deciding.pause_after_failures

    def hesitate(*arguments: Any) -> bool:
        found = pause_after_failures(*arguments)
        if not counted.is_set():  # the first one, before it commits
            counted.set()
            go_on.wait(30)
        return found

    monkeypatch.setattr(deciding, "pause_after_failures", hesitate)
    threads = [Thread(target=stage.end, args=(run, FAILED)) for run in (first, second)]
    threads[0].start()
    assert counted.wait(30)
    threads[1].start()
    threads[1].join(0.5)  # it waits for the first one
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert paused(stage)

"""What past runs tell of those to come."""

from __future__ import annotations

from datetime import timedelta

from yarrow.plans.requests import MarkRequest
from yarrow.states import RunState
from yarrow.store.history import NEWEST_RUNS


def execute(stage, spec, name: str, seconds: float, state: str = "success", **report) -> None:
    """A run of one task, which takes so long."""
    run = stage.run(spec, name, stage.clock() + timedelta(days=1))
    stage.schedule(run, *spec.tasks)
    claimed = stage.claim("w1")
    stage.clock.advance(seconds)
    stage.finish(claimed, state, **report)
    stage.end(run, RunState.SUCCESS if state == "success" else RunState.FAILED)


def test_nothing_has_run(stage) -> None:
    stage.publish(stage.dag())
    assert stage.store.history.durations() == {}


def test_the_mean_of_successes(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a")])
    other = stage.dag("other", tasks=[stage.task("b")])
    stage.publish(spec, other)
    for number, seconds in enumerate((10.0, 20.5)):
        execute(stage, spec, f"r{number}", seconds)
    execute(stage, spec, "bad", 500.0, "failed")
    execute(stage, spec, "again", 0.1, cached=True, cache_key="0" * 64)
    execute(stage, other, "r0", 7.0)
    assert stage.store.history.durations() == {spec.dag_id: {"a": 15.25}, "other": {"b": 7.0}}
    assert stage.store.history.durations(["other", "gone"]) == {"other": {"b": 7.0}}
    stage.store.catalog.deactivate(["other"])
    assert stage.store.history.durations() == {spec.dag_id: {"a": 15.25}}


def test_only_the_newest_runs_count(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a")])
    stage.publish(spec)
    for number in range(NEWEST_RUNS + 3):
        execute(stage, spec, f"r{number}", 1000.0 if number < 3 else 4.0)
    assert stage.store.history.durations() == {spec.dag_id: {"a": 4.0}}


def test_what_a_person_marked_took_no_time_that_tells(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a")])
    stage.publish(spec)
    execute(stage, spec, "good", 4.0)
    execute(stage, spec, "bad", 5.0, "failed")
    stage.clock.advance(86_400)
    request = MarkRequest(dag_id=spec.dag_id, run_ids=("bad",), state="success", tasks="a")
    stage.store.plans.carry_out(request, who="ann")
    assert stage.store.history.durations() == {spec.dag_id: {"a": 4.0}}

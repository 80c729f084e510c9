"""Tasks that are put off between two looks, results that are too old, and limits of single tasks, in a whole loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from yarrow.language.spec import CacheSpec, DagSpec, TaskSpec
from yarrow.protocol import Report
from yarrow.states import AttemptState, RunState
from yarrow.store.records import ClaimedAttempt

MakeDag = Callable[..., DagSpec]


def looking(clock: Any, until: datetime) -> Callable[[ClaimedAttempt], Report]:
    """What a sensor does that looks once a minute for something that is there from then on."""

    def behave(attempt: ClaimedAttempt) -> Report:
        if attempt.task_id != "wait" or clock() >= until:
            return Report(attempt.attempt_id, "success")
        resume_at = (clock() + timedelta(minutes=1)).isoformat()
        return Report(attempt.attempt_id, "deferred", reason="Not yet.", resume_at=resume_at)

    return behave


def test_a_sensor_looks_again_and_again_and_leaves_its_slot_to_others(engine: Any, make_dag: MakeDag) -> None:
    began = engine.clock()
    tasks = {"wait": TaskSpec("wait", "bash", {}, priority_weight=9), "work": TaskSpec("work", "bash", {})}
    engine.publish(make_dag("d", tasks=tasks, max_active_tasks=1))
    worker = engine.add_worker(slots=1, behave=looking(engine.clock, began + timedelta(minutes=10)))
    engine.store.runs.trigger("d", run_id="r", who="test")
    engine.settle()
    run = engine.store.runs.get("d", "r")
    assert engine.states(run) == {"wait": "up_for_reschedule", "work": "success"}
    for _ in range(60):
        engine.advance(10)
        engine.settle()
    engine.assert_ended("d", RunState.SUCCESS)
    looks = [attempt for attempt in worker.claimed if attempt.task_id == "wait"]
    assert len(looks) == 11
    assert len({attempt.attempt_id for attempt in looks}) == 1
    assert {(attempt.try_number, attempt.first_started_at) for attempt in looks} == {(1, began)}
    instance = engine.store.runs.task_instance("d", "r", "wait")
    assert (instance.started_at, instance.try_number) == (began, 1)
    (attempt,) = engine.store.attempts.attempts(instance.id)
    assert (attempt.state, attempt.dispatch_count) == (AttemptState.SUCCESS, 11)


def test_many_sensors_need_no_more_than_one_slot(engine: Any, make_dag: MakeDag) -> None:
    tasks = {f"wait{number}": TaskSpec(f"wait{number}", "bash", {}) for number in range(200)}
    engine.publish(make_dag("d", tasks=tasks, max_active_tasks=1))
    until = engine.clock() + timedelta(hours=1)

    def behave(attempt: ClaimedAttempt) -> Report:
        return Report(attempt.attempt_id, "deferred", resume_at=until.isoformat())

    engine.add_worker(slots=1, behave=behave)
    engine.store.runs.trigger("d", run_id="r", who="test")
    engine.settle()
    assert Counter(engine.states(engine.store.runs.get("d", "r")).values()) == {"up_for_reschedule": 200}


def test_the_loop_sleeps_until_the_next_look(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", tasks={"wait": TaskSpec("wait", "bash", {})}))
    engine.add_worker(behave=looking(engine.clock, engine.clock() + timedelta(days=1)))
    engine.store.runs.trigger("d", run_id="r", who="test")
    engine.settle()
    assert engine.store.runs.next_wait() == engine.clock() + timedelta(minutes=1)


def test_results_that_are_too_old_are_removed_in_the_end(engine: Any, make_dag: MakeDag) -> None:
    tasks = {name: TaskSpec(name, "bash", {}, cache=CacheSpec(ttl)) for name, ttl in (("short", 60.0), ("long", None))}
    engine.publish(make_dag("d", tasks=tasks))

    def behave(attempt: ClaimedAttempt) -> Report:
        key = ("a" if attempt.task_id == "short" else "b") * 64
        return Report(attempt.attempt_id, "success", cache_key=key)

    engine.add_worker(behave=behave)
    engine.store.runs.trigger("d", run_id="r", who="test")
    engine.settle()
    assert len(engine.store.cache.entries()) == 2
    engine.advance(300)
    assert [entry.task_id for entry in engine.store.cache.entries()] == ["long"]

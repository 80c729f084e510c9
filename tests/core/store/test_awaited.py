"""What a task that waits for another DAG is told."""

from datetime import timedelta
from typing import Any

import pytest

from yarrow.errors import NotFound
from yarrow.states import TaskState
from yarrow.store.awaited import summary

S = TaskState


def test_the_state_of_a_run_and_of_its_task(stage: Any) -> None:
    awaited = stage.store.attempts.awaited
    run = stage.begin(stage.dag(), "a")
    assert awaited("d", None, run.logical_date) == ("r", "running")
    assert awaited("d", "a", run.logical_date) == ("r", "scheduled")
    assert awaited("d", "b", run.logical_date) == ("r", "none")
    assert awaited("d", "a", run.logical_date + timedelta(seconds=1)) is None
    assert awaited("d", None, run.logical_date - timedelta(days=1)) is None
    stage.finish(stage.claim())
    assert awaited("d", "a", run.logical_date) == ("r", "success")
    newer = stage.run(stage.dag(), "newer", run.logical_date)
    assert awaited("d", "a", run.logical_date) == ("newer", "none")
    assert newer.run_id == "newer"


def test_what_does_not_exist_is_named(stage: Any) -> None:
    run = stage.begin(stage.dag("orders", [stage.task("load")]), "load")
    with pytest.raises(NotFound, match="Did you mean 'orders'"):
        stage.store.attempts.awaited("order", None, run.logical_date)
    for date in (run.logical_date, run.logical_date + timedelta(days=1)):
        with pytest.raises(NotFound, match="'orders' has no task 'lod'"):
            stage.store.attempts.awaited("orders", "lod", date)


def test_a_task_that_is_newer_than_the_run_is_not_in_it(stage: Any) -> None:
    run = stage.begin(stage.dag(), "a")
    stage.publish(stage.dag(tasks=[stage.task("a"), stage.task("c")]))
    assert stage.store.attempts.awaited("d", "c", run.logical_date) == ("r", "removed")
    assert stage.store.attempts.awaited("d", "b", run.logical_date) == ("r", "none")


@pytest.mark.parametrize(
    ("states", "state"),
    [
        ({S.SUCCESS}, S.SUCCESS),
        ({S.SUCCESS, S.SKIPPED}, S.SUCCESS),
        ({S.SKIPPED}, S.SKIPPED),
        ({S.SUCCESS, S.FAILED, S.UPSTREAM_FAILED}, S.FAILED),
        ({S.SUCCESS, S.UPSTREAM_FAILED}, S.UPSTREAM_FAILED),
        ({S.SUCCESS, S.FAILED, S.RUNNING}, S.RUNNING),
        ({S.SCHEDULED, S.NONE}, S.SCHEDULED),
        ({S.UP_FOR_RETRY, S.SUCCESS}, S.UP_FOR_RETRY),
        ({S.AWAITING_INPUT}, S.AWAITING_INPUT),
    ],
)
def test_the_instances_of_a_task_have_one_state_together(states: set[TaskState], state: TaskState) -> None:
    assert summary(states) is state


def test_every_state_is_a_summary_of_itself() -> None:
    assert [summary({state}) for state in TaskState] == list(TaskState)

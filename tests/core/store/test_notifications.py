"""The outbox: what is written into it, in the transaction of the move, and how its rows are claimed and done with."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from yarrow.decision.decisions import TaskDecision
from yarrow.states import RunState, TaskState

NONE, FAILED, SUCCESS, SKIPPED = TaskState.NONE, TaskState.FAILED, TaskState.SUCCESS, TaskState.SKIPPED

EVERY = {name: (name,) for name in ("on_success", "on_failure", "on_retry", "on_deadline")}


def told(stage: Any) -> list[tuple[str, str | None, str]]:
    """(kind, task, target) of every notification, oldest first."""
    return [(one.kind, one.task_id, one.target) for one in reversed(stage.store.notifications.list(limit=1000))]


def claim(stage: Any, limit: int = 100, seconds: float = 60.0, **options: Any) -> list[Any]:
    until = stage.clock() + timedelta(seconds=seconds)
    found: list[Any] = stage.store.notifications.claim(limit, until, **options)[0]
    return found


def outbox(stage: Any, *targets: str) -> None:
    """Fills the outbox: one failure of a task, told to these targets."""
    stage.begin(stage.dag(tasks=[stage.task("a", on_failure=targets)]))
    stage.finish(stage.claim(), "failed")


# What is written


def test_a_failure_is_told_to_each_target_once(stage: Any) -> None:
    stage.begin(stage.dag(tasks=[stage.task("a", **EVERY | {"on_failure": ("log", "ops", "log")})]))
    stage.finish(stage.claim(), "failed", reason="it broke")
    assert told(stage) == [("failure", "a", "log"), ("failure", "a", "ops")]
    (first, _) = reversed(stage.store.notifications.list())
    assert first.payload["reason"] == "it broke"
    assert first.payload["path"] == f"/runs/{stage.store.runs.get('d', 'r').id}/tasks/a"
    assert (first.payload["try_number"], first.payload["max_tries"]) == (1, 1)
    assert (first.created_at, first.next_try_at, first.tries) == (stage.clock(), stage.clock(), 0)


def test_a_retry_is_told_to_the_targets_of_task_and_dag(stage: Any) -> None:
    task = stage.task("a", retries=1, retry_delay=30.0, on_retry=("ops", "both"), on_failure=("bad",))
    stage.begin(stage.dag(tasks=[task], on_retry=("both", "boss")))
    stage.finish(stage.claim(), "failed")
    assert told(stage) == [("retry", "a", "ops"), ("retry", "a", "both"), ("retry", "a", "boss")]
    retry = stage.store.notifications.list()[0]
    assert retry.payload["next_try_at"] == stage.instance(stage.store.runs.get("d", "r")).wait_until.isoformat()
    assert retry.payload["event"] == "task.retry"


def test_a_success_is_told(stage: Any) -> None:
    stage.begin(stage.dag(tasks=[stage.task("a", **EVERY)]))
    stage.finish(stage.claim())
    assert told(stage) == [("success", "a", "on_success")]


@pytest.mark.parametrize(("state", "kind", "target"), [("success", "success", "good"), ("failed", "failure", "bad")])
def test_the_end_of_a_run_is_told(stage: Any, state: str, kind: str, target: str) -> None:
    spec = stage.dag(on_success=("good",), on_failure=("bad",), on_retry=("x",), on_deadline=("x",))
    stage.publish(spec)
    run = stage.run(spec)
    assert stage.end(run, RunState(state))
    assert told(stage) == [(kind, None, target)]
    assert stage.store.notifications.list()[0].payload["path"] == f"/runs/{run.id}"
    assert stage.store.notifications.list()[0].map_index is None


def test_what_was_skipped_or_could_not_begin_is_not_told(stage: Any) -> None:
    tasks = [stage.task("a", **EVERY, soft_fail=True), stage.task("b", **EVERY), stage.task("c", **EVERY)]
    run = stage.begin(stage.dag(tasks=tasks), "a")
    stage.finish(stage.claim(), "failed")
    assert stage.decide(run, ("b", NONE, SKIPPED), ("c", NONE, TaskState.UPSTREAM_FAILED))
    assert stage.states(run) == {"a": SKIPPED, "b": SKIPPED, "c": TaskState.UPSTREAM_FAILED}
    assert told(stage) == []


def test_tasks_that_end_without_an_attempt_are_told(stage: Any) -> None:
    tasks = [stage.task(name, **EVERY) for name in ("broken", "empty", "unserved", "stopped")]
    spec = stage.dag(tasks=tasks)
    run = stage.begin(spec, "unserved")
    assert stage.decide(run, ("broken", NONE, FAILED, "`when` is not a condition."), ("empty", NONE, SUCCESS))
    stage.clock.advance(3600)
    assert stage.store.attempts.fail_unserved(3600, served=set()) == 1
    assert stage.store.attempts.cancel("d", "r", "stopped", who="ann")
    assert sorted(told(stage)) == [
        ("failure", "broken", "on_failure"),
        ("failure", "stopped", "on_failure"),
        ("failure", "unserved", "on_failure"),
        ("success", "empty", "on_success"),
    ]
    reasons = {one.task_id: one.payload["reason"] for one in stage.store.notifications.list()}
    assert reasons["broken"] == "`when` is not a condition."
    assert "No worker serves the queue 'default'." in reasons["unserved"]
    assert reasons["stopped"] == "Stopped by ann."


def test_a_task_that_is_stopped_or_lost_for_good_is_told(stage: Any) -> None:
    stage.begin(stage.dag(tasks=[stage.task("a", **EVERY)]))
    stage.claim(lease=10)
    stage.clock.advance(11)
    assert stage.store.attempts.expire_leases(infra_budget=1) == 1
    assert told(stage) == [], "it is scheduled again: nothing that people need to hear of"
    stage.claim(lease=10)
    stage.clock.advance(11)
    assert stage.store.attempts.expire_leases(infra_budget=1) == 1
    assert told(stage) == [("failure", "a", "on_failure")]


def test_instances_of_a_mapped_task_are_told_one_by_one(stage: Any) -> None:
    spec = stage.dag(tasks=[stage.task("a", **EVERY, expand={"n": [1, 2]})])
    stage.publish(spec)
    run = stage.run(spec)
    assert stage.decide(run, expand={"a": 2})
    moves = [TaskDecision("a", NONE, FAILED, "no", map_index=index) for index in range(2)]
    assert stage.decide(run, *moves)
    found = stage.store.notifications.list()
    assert [(one.map_index, one.payload["title"]) for one in reversed(found)] == [
        (0, "d: task a[0] failed"),
        (1, "d: task a[1] failed"),
    ]


def test_it_is_one_transaction_with_the_move(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stage.begin(stage.dag(tasks=[stage.task("a", **EVERY)]))
    claimed = stage.claim()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the machine is on fire")

    with monkeypatch.context() as patch:
        patch.setattr("yarrow.store.notifications.payload_of", fail)
        with pytest.raises(RuntimeError):
            stage.finish(claimed)
    assert stage.states(run)["a"] is TaskState.RUNNING
    assert told(stage) == []
    stage.finish(claimed)
    assert stage.finish(claimed).repeated
    assert told(stage) == [("success", "a", "on_success")], "a report that is repeated tells nobody again"


# How it is delivered


def test_a_claimed_one_is_nobody_elses_until_the_lease_ends(stage: Any) -> None:
    outbox(stage, "ops")
    (claimed,) = claim(stage)
    assert (claimed.target, claimed.kind, claimed.task_id) == ("ops", "failure", "a")
    assert claim(stage) == []
    assert stage.store.notifications.claim(9, stage.clock())[1] == stage.clock() + timedelta(seconds=60)
    stage.clock.advance(60)
    assert [(one.id, one.tries) for one in claim(stage)] == [(claimed.id, 1)]


def test_of_two_that_look_at_once_one_gets_it(stage: Any) -> None:
    outbox(stage, "ops")
    notifications = stage.store.notifications
    second: list[Any] = []
    read = notifications._database.read

    def read_and_be_overtaken(work: Any) -> Any:
        found = read(work)
        if not second:
            second.append(None)
            second[0] = claim(stage)
        return found

    notifications._database.read = read_and_be_overtaken
    try:
        assert claim(stage) == []
    finally:
        del notifications._database.read
    assert len(second[0]) == 1


def test_each_target_gets_one_at_a_time_and_those_in_work_are_left_alone(stage: Any) -> None:
    tasks = [stage.task(name, on_success=("ops", "boss")) for name in ("a", "b")]
    stage.begin(stage.dag(tasks=tasks), "a", "b")
    for _ in range(2):
        stage.finish(stage.claim())
    assert [one.target for one in claim(stage)] == ["ops", "boss"]
    assert claim(stage, but=["ops", "boss"]) == []
    assert [one.target for one in claim(stage, but=["ops"])] == ["boss"]
    assert [one.target for one in claim(stage, limit=1)] == ["ops"]


def test_a_delivered_one_is_done_with(stage: Any) -> None:
    outbox(stage, "ops")
    (claimed,) = claim(stage)
    stage.store.notifications.delivered(claimed)
    (kept,) = stage.store.notifications.list()
    assert (kept.delivered_at, kept.next_try_at, kept.tries, kept.given_up) == (stage.clock(), None, 1, False)
    stage.clock.advance(10_000)
    assert stage.store.notifications.claim(9, stage.clock()) == ([], None)
    assert not stage.store.notifications.failed(claimed, "too late", stage.clock())


def test_a_failed_one_is_tried_again_then(stage: Any) -> None:
    outbox(stage, "ops")
    (claimed,) = claim(stage)
    again_at = stage.clock() + timedelta(seconds=10)
    assert stage.store.notifications.failed(claimed, "It answered 500.", again_at)
    (kept,) = stage.store.notifications.list(failed=True)
    assert (kept.error, kept.next_try_at, kept.tries) == ("It answered 500.", again_at, 1)
    assert stage.store.notifications.claim(9, stage.clock()) == ([], again_at)
    stage.clock.advance(10)
    (again,) = claim(stage)
    stage.store.notifications.delivered(again)
    assert stage.store.notifications.list(failed=True) == []
    assert stage.store.notifications.list()[0].error is None


def test_one_that_is_given_up_is_kept_and_stands_in_the_history(stage: Any) -> None:
    outbox(stage, "https://hooks.example.com/topsecret")
    (claimed,) = claim(stage)
    assert stage.store.notifications.failed(claimed, "It answered 500.", None)
    (kept,) = stage.store.notifications.list(failed=True)
    assert kept.given_up
    event = stage.store.runs.events("d", "r", "a")[-1]
    assert event.kind == "notification.given_up"
    assert event.reason == "failure to https://hooks.example.com/..., 1 tries: It answered 500."
    assert claim(stage) == []


def test_a_courier_that_was_too_slow_changes_nothing(stage: Any) -> None:
    outbox(stage, "ops")
    (slow,) = claim(stage)
    stage.clock.advance(60)
    (fast,) = claim(stage)
    assert not stage.store.notifications.failed(slow, "It hung.", None), "the other one may be just about to deliver it"
    assert stage.store.notifications.failed(fast, "It answered 500.", stage.clock())
    stage.store.notifications.delivered(slow)
    assert stage.store.notifications.list()[0].delivered_at is not None, "what has arrived has arrived"


def test_they_are_listed_by_dag(stage: Any) -> None:
    outbox(stage, "ops")
    assert len(stage.store.notifications.list(dag_id="d")) == 1
    assert stage.store.notifications.list(dag_id="other") == []
    assert stage.store.notifications.list(failed=True) == [], "it was not tried yet"

from datetime import timedelta

import pytest

from yarrow.errors import NotFound, Refused
from yarrow.states import AttemptState, TaskState


def test_a_claim_answers_with_all_that_an_assignment_needs(stage) -> None:
    spec = stage.dag(
        tasks=[
            stage.task("a"),
            stage.task("b", upstream=("a",), xcoms=("a",), retries=2, variables=("v",), connections=("c",)),
            stage.task("c", upstream=("b",)),
        ],
        timezone="Asia/Tokyo",
    )
    run = stage.begin(spec, "a", "b")
    stage.finish(stage.claim(), xcom={"rows": 3}, has_xcom=True)
    claimed = stage.claim(lease=30)
    assert (claimed.dag_id, claimed.run_id, claimed.task_id, claimed.map_index) == ("d", "r", "b", -1)
    assert (claimed.try_number, claimed.max_tries, claimed.queue) == (1, 3, "default")
    assert claimed.task == spec.tasks["b"]
    assert claimed.downstream == ("c",)
    assert claimed.xcoms == {"a": {"rows": 3}}
    assert (claimed.logical_date, claimed.data_interval_end) == (run.logical_date, run.data_interval_end)
    assert (claimed.timezone, claimed.params) == ("Asia/Tokyo", {})
    assert claimed.lease_until == stage.clock() + timedelta(seconds=30)
    instance = stage.instance(run, "b")
    assert (instance.state, instance.try_number, instance.started_at) == (TaskState.RUNNING, 1, stage.clock())
    assert (instance.wait_until, instance.worker_id) == (None, "w1")


def test_the_second_delivery_is_refused(stage) -> None:
    stage.begin()
    attempt_id, nonce = stage.dispatch()
    stage.store.attempts.claim(attempt_id, nonce, "w1", 60)
    for worker in ("w1", "w2"):
        with pytest.raises(Refused, match="was taken before by worker w1: it is running"):
            stage.store.attempts.claim(attempt_id, nonce, worker, 60)


def test_an_unknown_attempt_or_nonce_is_refused(stage) -> None:
    stage.begin()
    attempt_id, _ = stage.dispatch()
    with pytest.raises(Refused, match="There is no attempt nope"):
        stage.store.attempts.claim("nope", "x", "w1", 60)
    with pytest.raises(Refused, match="sent again"):
        stage.store.attempts.claim(attempt_id, "x", "w1", 60)


def test_the_next_attempt_is_claimed_with_a_nonce_of_its_own(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a", priority_weight=2), stage.task("b")])
    stage.begin(spec, "a", "b")
    attempt_id, nonce = stage.dispatch()
    claimed = stage.store.attempts.next_for("default", "w1", 60)
    assert (claimed.attempt_id, claimed.task_id) == (attempt_id, "a")
    assert claimed.nonce != nonce
    with pytest.raises(Refused):
        stage.store.attempts.claim(attempt_id, nonce, "w2", 60)
    assert stage.store.attempts.get(attempt_id, claimed.nonce).state is AttemptState.RUNNING
    with pytest.raises(Refused, match="another worker"):
        stage.store.attempts.get(attempt_id, nonce)
    assert stage.store.attempts.next_for("gpu", "w1", 60) is None
    assert stage.store.attempts.next_for("default", "w1", 60).task_id == "b"
    assert stage.store.attempts.next_for("default", "w1", 60) is None


def test_an_upstream_without_xcom_is_absent(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a"), stage.task("s"), stage.task("b", upstream=("a", "s"), xcoms=("a", "s"))])
    run = stage.begin(spec, "a", "b")
    stage.decide(run, ("s", TaskState.NONE, TaskState.SKIPPED))
    stage.finish(stage.claim())
    assert stage.claim().xcoms == {}
    with pytest.raises(NotFound, match="has no XCom"):
        stage.store.attempts.xcom("d", "r", "a")
    with pytest.raises(NotFound, match="no task 'x'"):
        stage.store.attempts.xcom("d", "r", "x")
    with pytest.raises(NotFound, match="no attempt 'x'"):
        stage.store.attempts.get("x")

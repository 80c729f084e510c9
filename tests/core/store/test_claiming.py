from datetime import timedelta

import pytest

from yarrow.decide import Decisions, Expansion
from yarrow.errors import NotFound, Refused
from yarrow.language.spec import CacheSpec
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


def expand(stage, run, **values) -> None:
    """Makes of each of these tasks as many instances as there are values."""
    found = tuple(Expansion(task_id, tuple({"day": day} for day in days)) for task_id, days in values.items())
    snapshot = stage.store.runs.snapshot(run.id)
    assert stage.store.runs.apply(run.id, Decisions(expansions=found), snapshot.record.change_seq)


def schedule(stage, run, *instances) -> None:
    assert stage.decide(run, *[(name, TaskState.NONE, TaskState.SCHEDULED, None, index) for name, index in instances])


def test_a_mapped_task_instance_is_given_its_value(stage) -> None:
    tasks = [stage.task("a", expand={"day": ["mon", "tue", "wed"]})]
    spec = stage.dag(tasks=tasks)
    stage.publish(spec)
    run = stage.run(spec)
    expand(stage, run, a=["mon", "tue", "wed"])
    schedule(stage, run, ("a", 0), ("a", 1), ("a", 2))
    claims = [stage.claim() for _ in range(3)]
    assert [(one.task_id, one.map_index, one.map_value) for one in claims] == [
        ("a", 0, {"day": "mon"}),
        ("a", 1, {"day": "tue"}),
        ("a", 2, {"day": "wed"}),
    ]


def test_the_xcom_of_a_mapped_task_is_the_list_of_those_of_its_instances(stage) -> None:
    tasks = [
        stage.task("a", expand={"day": []}),
        stage.task("p"),
        stage.task("b", upstream=("a", "p"), xcoms=("a", "p")),
    ]
    spec = stage.dag(tasks=tasks)
    stage.publish(spec)
    run = stage.run(spec)
    expand(stage, run, a=[1, 2, 3, 4])
    schedule(stage, run, ("a", 0), ("a", 1), ("a", 2), ("a", 3), ("p", -1))
    claims = {(one.task_id, one.map_index): one for one in [stage.claim() for _ in range(5)]}
    stage.finish(claims["a", 2], xcom="two", has_xcom=True)
    stage.finish(claims["a", 0], xcom=None, has_xcom=True)
    stage.finish(claims["a", 1])  # it has none
    stage.finish(claims["a", 3], "failed", xcom="failed", has_xcom=True)
    stage.finish(claims["p", -1], xcom=[7], has_xcom=True)
    schedule(stage, run, ("b", -1))
    claimed = stage.claim()
    assert claimed.xcoms == {"a": [None, "two"], "p": [7]}
    assert (claimed.mapped_xcoms, claimed.map_value) == (["a"], None)
    assert stage.store.attempts.xcom("d", "r", "a", 2) == "two"
    with pytest.raises(NotFound, match="has no XCom"):
        stage.store.attempts.xcom("d", "r", "a", 1)


def test_within_a_mapped_group_an_instance_sees_its_own_index(stage) -> None:
    group = {"expand": {"day": []}, "map_group": "g"}
    tasks = [
        stage.task("g.a", **group),
        stage.task("m", expand={"x": []}),
        stage.task("g.b", upstream=("g.a", "m"), xcoms=("g.a", "m"), **group),
    ]
    spec = stage.dag(tasks=tasks)
    stage.publish(spec)
    run = stage.run(spec)
    expand(stage, run, **{"g.a": [1, 2, 3], "g.b": [1, 2, 3], "m": [1, 2]})
    schedule(stage, run, ("g.a", 0), ("g.a", 1), ("m", 0), ("m", 1))
    for claimed in [stage.claim() for _ in range(4)]:
        stage.finish(claimed, xcom=[claimed.task_id, claimed.map_index], has_xcom=True)
    schedule(stage, run, ("g.b", 0), ("g.b", 1), ("g.b", 2))
    found = {one.map_index: (one.xcoms, one.mapped_xcoms) for one in [stage.claim() for _ in range(3)]}
    everything = [["m", 0], ["m", 1]]
    assert found == {
        0: ({"g.a": ["g.a", 0], "m": everything}, ["m"]),
        1: ({"g.a": ["g.a", 1], "m": everything}, ["m"]),
        2: ({"m": everything}, ["m"]),
    }


def test_a_claim_tells_when_the_attempt_began_and_of_its_cache(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a", cache=CacheSpec(60.0))])
    run = stage.begin(spec)
    claimed = stage.claim()
    assert (claimed.first_started_at, claimed.task.cache) == (stage.clock(), CacheSpec(60.0))
    stage.finish(claimed, cached=True, cache_key="a" * 64)
    assert stage.instance(run).cached


@pytest.mark.parametrize("end", ["lost", "cancelled", "expired"])
def test_a_try_that_another_attempt_goes_on_with_began_with_the_first(stage, end) -> None:
    run = stage.begin(stage.dag(tasks=[stage.task("a", retries=1, retry_delay=0.0)]))
    began = stage.clock()
    first = stage.claim()
    stage.clock.advance(30)
    resume_at = (stage.clock() + timedelta(seconds=60)).isoformat()
    stage.finish(first, "deferred", resume_at=resume_at)
    stage.clock.advance(60)
    assert stage.decide(run, ("a", TaskState.UP_FOR_RESCHEDULE, TaskState.SCHEDULED))
    again = stage.claim()
    assert (again.attempt_id, again.first_started_at) == (first.attempt_id, began)
    stage.clock.advance(100)
    if end == "expired":
        assert stage.store.attempts.expire_leases() == 1
    else:
        stage.finish(again, end)
    replaced = stage.claim()
    assert (replaced.try_number, replaced.first_started_at) == (1, began)
    assert replaced.attempt_id != first.attempt_id
    assert stage.store.attempts.get(replaced.attempt_id).started_at == stage.clock()

    stage.clock.advance(10)
    stage.finish(replaced, "failed")
    assert stage.decide(run, ("a", TaskState.UP_FOR_RETRY, TaskState.SCHEDULED))
    retried = stage.claim()
    assert (retried.try_number, retried.first_started_at) == (2, stage.clock())

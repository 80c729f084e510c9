from datetime import timedelta

import pytest

from yarrow.errors import Refused
from yarrow.protocol import Heartbeat, RunningAttempt
from yarrow.states import AttemptState, TaskState


def test_a_heartbeat_renews_leases_and_keeps_progress(stage) -> None:
    run = stage.begin()
    claimed = stage.claim(lease=10)
    stage.clock.advance(8)
    running = RunningAttempt(claimed.attempt_id, done=50, total=200, unit="rows")
    heartbeat = Heartbeat("w1", "host", 7, ["default"], 4, "0.1.0", (running,))
    assert stage.store.attempts.heartbeat(heartbeat, 10) == {}
    attempt = stage.store.attempts.get(claimed.attempt_id)
    assert attempt.lease_until == stage.clock() + timedelta(seconds=10)
    assert stage.instance(run).progress == {"done": 50, "total": 200, "unit": "rows"}
    stage.beat(claimed.attempt_id)  # says nothing about progress
    assert stage.instance(run).progress == {"done": 50, "total": 200, "unit": "rows"}
    stage.clock.advance(9)
    assert stage.store.attempts.expire_leases() == 0


def test_a_heartbeat_tells_what_is_not_the_workers_any_more(stage) -> None:
    stage.begin(stage.dag(), "a", "b")
    mine, other = stage.claim("w1", lease=10), stage.claim("w2", lease=1000)
    stage.clock.advance(11)
    assert stage.store.attempts.expire_leases() == 1
    stop = stage.beat(mine.attempt_id, other.attempt_id, "unknown")
    assert stop[mine.attempt_id].startswith("The attempt has ended as lost: Worker w1 was not heard of any more")
    assert stop[other.attempt_id] == "The attempt belongs to another worker."
    assert stop["unknown"] == "The attempt is not known here."
    assert stage.store.attempts.get(mine.attempt_id).state is AttemptState.LOST


def test_a_lease_that_ran_out_gives_the_task_to_another_worker(stage) -> None:
    run = stage.begin()
    lost = stage.claim(lease=10)
    stage.clock.advance(10)
    assert stage.store.attempts.expire_leases() == 0  # it ends after that moment
    stage.clock.advance(1)
    assert stage.store.attempts.expire_leases() == 1
    assert stage.store.attempts.expire_leases() == 0
    instance = stage.instance(run)
    assert (instance.state, instance.infra_losses, instance.try_number) == (TaskState.SCHEDULED, 1, 0)
    assert instance.reason == "Worker w1 was not heard of any more; its lease ran out at 00:00:10 UTC."
    assert stage.claim("w2").try_number == 1
    with pytest.raises(Refused):
        stage.finish(lost)


def test_a_lease_that_was_renewed_after_the_look_is_kept(stage, monkeypatch) -> None:
    run = stage.begin()
    claimed = stage.claim(lease=10)
    ended = stage.claim() if stage.decide(run, ("b", TaskState.NONE, TaskState.SCHEDULED)) else None
    stage.finish(ended)
    stale = [claimed.attempt_id, ended.attempt_id, "gone"]
    monkeypatch.setattr("yarrow.store.leases.expired", lambda *_: stale)
    assert stage.store.attempts.expire_leases() == 0
    assert stage.states(run) == {"a": TaskState.RUNNING, "b": TaskState.SUCCESS}


def test_a_task_that_is_lost_too_often_fails(stage) -> None:
    run = stage.begin()
    stage.claim(lease=1)
    stage.clock.advance(2)
    assert stage.store.attempts.expire_leases(infra_budget=0) == 1
    assert stage.instance(run).state is TaskState.FAILED
    assert stage.store.runs.undecided() == [run.id]


def test_nothing_is_judged_before_workers_could_report(stage) -> None:
    stage.begin()
    stage.claim(lease=10)
    stage.clock.advance(600)  # the scheduler was down
    assert stage.store.attempts.expire_leases(not_before=stage.clock() + timedelta(seconds=10)) == 0
    stage.clock.advance(10)
    assert stage.store.attempts.expire_leases(not_before=stage.clock()) == 1


def test_a_fleet_is_lost_in_portions(stage) -> None:
    spec = stage.dag(tasks=[stage.task(f"t{number}") for number in range(7)])
    stage.begin(spec, *spec.tasks)
    for _ in spec.tasks:
        stage.claim(lease=1)
    stage.clock.advance(2)
    assert [stage.store.attempts.expire_leases(limit=5) for _ in range(3)] == [5, 2, 0]


def test_a_worker_that_forgot_an_attempt_loses_it(stage) -> None:
    run = stage.begin()
    stage.claim(lease=10)
    for _ in range(3):
        stage.clock.advance(5)
        stage.beat(lease=10)
    assert stage.store.attempts.expire_leases() == 1
    assert stage.states(run)["a"] is TaskState.SCHEDULED


def test_a_big_worker_needs_one_request(stage) -> None:
    spec = stage.dag(tasks=[stage.task(f"t{number}") for number in range(1200)], max_active_tasks=2000)
    stage.store.workers.set_pools({"default_pool": 2000})
    stage.begin(spec, *spec.tasks)
    stage.store.attempts.grant(2000)
    claimed = [stage.store.attempts.next_for("default", "w1", 10).attempt_id for _ in range(1200)]
    stage.clock.advance(9)
    assert stage.beat(*claimed, lease=10) == {}
    stage.clock.advance(9)
    assert stage.store.attempts.expire_leases() == 0

from datetime import timedelta

import pytest

from yarrow.decision.decisions import Question, TaskDecision
from yarrow.errors import Conflict, NotFound, Refused
from yarrow.language.spec import TaskSpec
from yarrow.plans.requests import ClearRequest
from yarrow.states import AttemptState, TaskState
from yarrow.store import stopping

FAILED, SCHEDULED = TaskState.FAILED, TaskState.SCHEDULED


def test_what_nothing_can_take_fails_after_the_timeout_with_the_reason(stage) -> None:
    stage.store.workers.set_pools({"default_pool": 5, "small": 0})
    tasks = [
        stage.task("no_pool", pool="nope"),
        stage.task("no_slot", pool="small"),
        stage.task("no_worker", queue="gpu"),
        stage.task("fine"),
    ]
    spec = stage.dag(tasks=tasks)
    run = stage.begin(spec, *spec.tasks)
    stage.clock.advance(3599)
    assert stage.store.attempts.fail_unserved(3600, served={"default"}) == 0
    stage.clock.advance(1)
    assert stage.store.attempts.fail_unserved(3600, served={"default"}) == 3
    found = {one.task_id: (one.state, one.reason) for one in stage.store.runs.task_instances(run.id)}
    assert found == {
        "no_pool": (FAILED, "There is no pool 'nope'; the pools are: default_pool, small. It waited for 1h."),
        "no_slot": (FAILED, "The pool 'small' has 0 slots, fewer than the 1 that it takes. It waited for 1h."),
        "no_worker": (FAILED, "No worker serves the queue 'gpu'. It waited for 1h."),
        "fine": (SCHEDULED, None),
    }
    assert stage.instance(run, "fine").wait_until == stage.clock() + timedelta(hours=1)  # it only waits for its turn
    assert stage.store.runs.undecided() == [run.id]
    assert stage.store.attempts.fail_unserved(3600, served={"default"}) == 0


def test_a_queued_task_fails_too_and_its_message_is_void(stage) -> None:
    run = stage.begin()
    attempt_id, nonce = stage.dispatch()
    stage.clock.advance(3600)
    assert stage.store.attempts.fail_unserved(3600) == 0  # every queue counts as served
    stage.clock.advance(3600)
    assert stage.store.attempts.fail_unserved(3600, served=set()) == 1
    assert stage.states(run)["a"] is FAILED
    assert stage.store.attempts.get(attempt_id).state is AttemptState.CANCELLED
    with pytest.raises(Refused, match="it is cancelled"):
        stage.store.attempts.claim(attempt_id, nonce, "w1", 60)


@pytest.mark.parametrize("state", ["none", "scheduled", "queued", "up_for_retry"])
def test_what_does_not_run_is_stopped_at_once(stage, state) -> None:
    spec = stage.dag(tasks=[stage.task("a", retries=3)])
    stage.publish(spec)
    run = stage.run(spec)
    if state != "none":
        stage.schedule(run, "a")
    if state == "queued":
        stage.dispatch()
    if state == "up_for_retry":
        stage.finish(stage.claim(), "failed")
    assert stage.states(run)["a"] == state
    assert stage.store.attempts.cancel("d", "r", "a", who="ann", reason="wrong month")
    instance = stage.instance(run)
    assert (instance.state, instance.reason, instance.wait_until) == (FAILED, "wrong month", None)
    assert not stage.store.attempts.cancel("d", "r", "a", who="ann")
    assert stage.store.runs.events("d", "r", "a")[-1].who == "ann"
    assert stage.store.attempts.next_for("default", "w1", 60) is None


@pytest.mark.parametrize("end", ["cancelled", "failed", "lost"])
def test_a_running_task_is_stopped_by_its_worker_and_never_comes_back(stage, end) -> None:
    run = stage.begin(stage.dag(tasks=[stage.task("a", retries=3)]))
    claimed = stage.claim()
    assert stage.store.attempts.cancel("d", "r", "a", who="ann")
    assert not stage.store.attempts.cancel("d", "r", "a", who="bob")  # it is being stopped already
    assert stage.states(run)["a"] is TaskState.RUNNING
    assert stage.beat(claimed.attempt_id) == {claimed.attempt_id: "Stopped by ann."}
    assert stage.finish(claimed, end, reason="SIGTERM").state is FAILED
    assert stage.instance(run).reason == "Stopped by ann."


def test_a_result_that_was_faster_than_the_stop_counts(stage) -> None:
    stage.begin()
    claimed = stage.claim()
    stage.store.attempts.cancel("d", "r", "a", who="ann")
    assert stage.finish(claimed).state is TaskState.SUCCESS


def test_a_stopped_task_whose_worker_is_lost_stays_stopped(stage) -> None:
    run = stage.begin()
    stage.claim(lease=10)
    stage.store.attempts.cancel("d", "r", "a", who="ann")
    stage.clock.advance(11)
    assert stage.store.attempts.expire_leases() == 1
    assert stage.states(run)["a"] is FAILED


def test_an_unknown_task_can_not_be_stopped(stage) -> None:
    stage.begin()
    with pytest.raises(NotFound):
        stage.store.attempts.cancel("d", "r", "x", who="ann")


def test_what_asks_a_person_is_stopped_and_asks_no_more(stage) -> None:
    spec = stage.dag(tasks=[TaskSpec("a", "approval", {"message": "Go on?"})])
    stage.publish(spec)
    run = stage.run(spec)
    stage.decide(run, TaskDecision("a", TaskState.NONE, TaskState.AWAITING_INPUT, question=Question("Go on?")))
    assert stage.store.attempts.cancel("d", "r", "a", who="ann", reason="no need")
    assert (stage.instance(run).state, stage.instance(run).reason) == (FAILED, "no need")
    assert stage.store.approvals.open() == []
    with pytest.raises(Conflict):
        stage.store.approvals.answer("d", "r", "a", approve=True, who="bob")


def test_one_instance_of_a_mapped_task_is_stopped(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a", expand={"n": []})])
    stage.publish(spec)
    run = stage.run(spec)
    stage.decide(
        run,
        *[TaskDecision("a", TaskState.NONE, SCHEDULED, map_index=index) for index in range(3)],
        expand={"a": 3},
    )
    assert stage.store.attempts.cancel("d", "r", "a", 1, who="ann")
    assert [one.state for one in stage.store.runs.task_instances(run.id)] == [SCHEDULED, FAILED, SCHEDULED]
    with pytest.raises(NotFound):
        stage.store.attempts.cancel("d", "r", "a", who="ann")


@pytest.mark.parametrize("claimed", [True, False])
def test_what_can_not_be_given_up_hinders_no_other(stage, caplog, claimed) -> None:
    runs = [stage.begin(stage.dag(dag_id)) for dag_id in ("bad", "good")]
    if claimed:
        bad, _ = stage.claim(), stage.claim()
    stage.damage("bad")
    stage.clock.advance(3600)
    if claimed:
        assert stage.store.attempts.expire_leases() == 1
        states, what = (TaskState.RUNNING, TaskState.SCHEDULED), f"attempt {bad.attempt_id}"
    else:
        assert stage.store.attempts.fail_unserved(60.0, served=[]) == 1
        states, what = (TaskState.SCHEDULED, TaskState.FAILED), "task a of run r of bad"
    assert tuple(stage.instance(run).state for run in runs) == states
    assert f"{what} can't be given up: KeyError" in caplog.text


def test_what_was_cleared_since_it_was_looked_at_is_not_given_up(stage, monkeypatch) -> None:
    run = stage.begin()
    stage.clock.advance(3600)
    look = stopping.pools

    def clear_and_look(connection) -> dict[str, int]:
        monkeypatch.setattr(stopping, "pools", look)
        stage.store.plans.carry_out(ClearRequest(dag_id="d", run_ids=("r",), tasks="a"), who="ann")
        stage.schedule(run, "a")
        return look(connection)

    monkeypatch.setattr(stopping, "pools", clear_and_look)
    assert stage.store.attempts.fail_unserved(3600, served=set()) == 0
    assert stage.states(run)["a"] is SCHEDULED
    stage.clock.advance(3600)
    assert stage.store.attempts.fail_unserved(3600, served=set()) == 1

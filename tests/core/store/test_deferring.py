"""Attempts that are put off: they give their slot back, and go on later within the same try."""

import itertools
from datetime import timedelta
from typing import Any

import pytest

from yarrow.decide import Decisions, TaskDecision
from yarrow.errors import Refused
from yarrow.states import AttemptState, TaskState

SCHEDULED, QUEUED, RUNNING, UP_FOR_RESCHEDULE, FAILED = (
    TaskState.SCHEDULED,
    TaskState.QUEUED,
    TaskState.RUNNING,
    TaskState.UP_FOR_RESCHEDULE,
    TaskState.FAILED,
)
AGAIN = ("a", UP_FOR_RESCHEDULE, SCHEDULED)


def put_off(stage: Any, claimed: Any, seconds: float = 60, **fields: Any) -> Any:
    resume_at = (stage.clock() + timedelta(seconds=seconds)).isoformat()
    return stage.finish(claimed, "deferred", resume_at=resume_at, **fields)


def go_on(stage: Any, run: Any) -> Any:
    assert stage.decide(run, AGAIN)
    return stage.claim()


def test_it_waits_without_a_slot_and_goes_on_as_the_same_attempt(stage: Any) -> None:
    run = stage.begin(stage.dag(tasks=[stage.task("a", retries=1)]))
    first = stage.claim()
    began = stage.clock()
    stage.clock.advance(3)
    outcome = put_off(stage, first, 60, reason="The file is not there yet.", metrics={"looks": 1})
    assert (outcome.repeated, outcome.state) == (False, UP_FOR_RESCHEDULE)
    instance = stage.instance(run)
    assert (instance.state, instance.wait_until) == (UP_FOR_RESCHEDULE, stage.clock() + timedelta(seconds=60))
    assert (instance.try_number, instance.ended_at, instance.started_at) == (1, None, began)
    assert instance.reason == "The file is not there yet."
    attempt = stage.store.attempts.get(first.attempt_id)
    assert (attempt.state, attempt.lease_until, attempt.ended_at) == (AttemptState.DEFERRED, None, None)
    assert stage.store.runs.undecided() == [run.id]
    assert [pool.used for pool in stage.store.workers.pools()] == [0]
    assert stage.store.attempts.expire_leases() == 0

    stage.clock.advance(60)
    second = go_on(stage, run)
    assert (second.attempt_id, second.try_number, second.first_started_at) == (first.attempt_id, 1, began)
    assert second.nonce != first.nonce
    attempt = stage.store.attempts.get(first.attempt_id)
    assert (attempt.started_at, attempt.claimed_at) == (began, stage.clock())
    assert attempt.metrics == {"looks": 1}
    stage.finish(second)
    instance = stage.instance(run)
    assert (instance.state, instance.try_number, instance.started_at) == (TaskState.SUCCESS, 1, began)
    assert len(stage.store.attempts.attempts(instance.id)) == 1


def test_it_is_dispatched_like_a_fresh_one(stage: Any) -> None:
    run = stage.begin()
    put_off(stage, stage.claim())
    assert stage.store.attempts.to_publish({"default": 5}) == []
    stage.decide(run, AGAIN)
    assert stage.store.attempts.grant(10) == 1
    assert stage.store.attempts.grant(10) == 0
    attempt = stage.store.attempts.attempts(stage.instance(run).id)[0]
    assert (attempt.state, attempt.published_at, attempt.dispatch_deadline, attempt.worker_id) == (
        AttemptState.QUEUED,
        None,
        None,
        None,
    )
    (row,) = stage.store.attempts.to_publish({"default": 5})
    stage.store.attempts.mark_published([row], stage.clock() + timedelta(seconds=60))
    assert stage.store.attempts.outstanding() == {"default": 1}
    assert stage.store.attempts.claim(row.attempt_id, row.nonce, "w2", 60).try_number == 1


def test_the_report_may_come_again_and_too_late(stage: Any) -> None:
    run = stage.begin()
    first = stage.claim()
    put_off(stage, first)
    before = (stage.instance(run), stage.store.runs.events())
    assert put_off(stage, first, 99, next_for="default").repeated
    assert (stage.instance(run), stage.store.runs.events()) == before
    with pytest.raises(Refused, match="is deferred: its report of success comes too late"):
        stage.finish(first)
    stage.decide(run, AGAIN)
    assert put_off(stage, first).repeated, "scheduled, but not granted yet"
    second = stage.claim()
    with pytest.raises(Refused, match="another worker"):
        put_off(stage, first)
    assert put_off(stage, second).state is UP_FOR_RESCHEDULE


def test_an_old_message_claims_nothing(stage: Any) -> None:
    run = stage.begin()
    old = stage.dispatch()
    put_off(stage, stage.store.attempts.claim(*old, "w1", 60))
    with pytest.raises(Refused, match="it is deferred"):
        stage.store.attempts.claim(*old, "w2", 60)
    stage.decide(run, AGAIN)
    stage.store.attempts.grant(10)
    with pytest.raises(Refused, match="sent again"):
        stage.store.attempts.claim(*old, "w2", 60)


def test_a_worker_that_still_thinks_it_has_it_is_told(stage: Any) -> None:
    stage.begin()
    claimed = stage.claim()
    put_off(stage, claimed)
    assert "put off" in stage.beat(claimed.attempt_id)[claimed.attempt_id]


@pytest.mark.parametrize("resume_at", ["soon", None, "2026-01-01"])
def test_what_can_not_be_waited_for_fails_the_task_for_good(stage: Any, resume_at: Any) -> None:
    run = stage.begin(stage.dag(tasks=[stage.task("a", retries=3)]))
    claimed = stage.claim()
    assert stage.finish(claimed, "deferred", resume_at=resume_at).state is FAILED
    assert "can't be put off until" in stage.instance(run).reason
    assert stage.finish(claimed, "deferred", resume_at=resume_at).repeated
    assert stage.store.attempts.get(claimed.attempt_id).state is AttemptState.FAILED


def test_a_retry_after_it_is_a_fresh_attempt(stage: Any) -> None:
    run = stage.begin(stage.dag(tasks=[stage.task("a", retries=1, retry_delay=0.0)]))
    put_off(stage, stage.claim())
    second = go_on(stage, run)
    stage.clock.advance(5)
    assert stage.finish(second, "failed").state is TaskState.UP_FOR_RETRY
    stage.decide(run, ("a", TaskState.UP_FOR_RETRY, SCHEDULED))
    third = stage.claim()
    assert third.attempt_id != second.attempt_id
    assert (third.try_number, third.first_started_at) == (2, stage.clock())
    assert stage.instance(run).started_at == stage.clock()
    assert put_off(stage, third).state is UP_FOR_RESCHEDULE
    assert go_on(stage, run).attempt_id == third.attempt_id


@pytest.mark.parametrize("end", ["lost", "lease", "cancelled"])
def test_one_that_is_lost_after_it_costs_no_try(stage: Any, end: str) -> None:
    run = stage.begin()
    put_off(stage, stage.claim())
    second = go_on(stage, run)
    if end == "lease":
        stage.clock.advance(61)
        assert stage.store.attempts.expire_leases() == 1
    else:
        assert stage.finish(second, end).state is SCHEDULED
    instance = stage.instance(run)
    assert (instance.state, instance.try_number, instance.infra_losses) == (SCHEDULED, 0, int(end != "cancelled"))
    third = stage.claim()
    assert (third.attempt_id != second.attempt_id, third.try_number) == (True, 1)


def test_one_whose_queue_loses_its_workers_waits_on_as_the_same_attempt(stage: Any) -> None:
    run = stage.begin(stage.dag(tasks=[stage.task("a", retries=0)]))
    first = stage.claim()
    put_off(stage, first)
    stage.decide(run, AGAIN)
    old = stage.dispatch()
    assert stage.store.attempts.grant(10, served={"gpu"}) == 0
    assert stage.states(run)["a"] is SCHEDULED
    assert stage.store.attempts.get(first.attempt_id).state is AttemptState.DEFERRED
    with pytest.raises(Refused, match="deferred"):
        stage.store.attempts.claim(*old, "w2", 60)
    again = stage.claim()
    assert (again.attempt_id, again.try_number) == (first.attempt_id, 1)


@pytest.mark.parametrize("state", ["up_for_reschedule", "scheduled", "queued"])
def test_it_is_stopped_at_once(stage: Any, state: str) -> None:
    run = stage.begin(stage.dag(tasks=[stage.task("a", retries=3)]))
    claimed = stage.claim()
    put_off(stage, claimed)
    if state != "up_for_reschedule":
        stage.decide(run, AGAIN)
    if state == "queued":
        stage.store.attempts.grant(10)
    assert stage.states(run)["a"] == state
    assert stage.store.attempts.cancel("d", "r", "a", who="ann")
    instance = stage.instance(run)
    assert (instance.state, instance.reason, instance.wait_until) == (FAILED, "Stopped by ann.", None)
    assert stage.store.attempts.get(claimed.attempt_id).state is AttemptState.CANCELLED
    assert stage.store.attempts.next_for("default", "w1", 60) is None
    assert not stage.store.attempts.cancel("d", "r", "a", who="ann")
    with pytest.raises(Refused):
        put_off(stage, claimed)


def test_one_that_is_being_stopped_is_not_put_off(stage: Any) -> None:
    run = stage.begin()
    claimed = stage.claim()
    stage.store.attempts.cancel("d", "r", "a", who="ann")
    assert put_off(stage, claimed).state is FAILED
    assert stage.instance(run).reason == "Stopped by ann."
    assert stage.store.attempts.get(claimed.attempt_id).state is AttemptState.CANCELLED


def test_one_that_nothing_can_take_any_more_fails_with_its_attempt(stage: Any) -> None:
    run = stage.begin()
    claimed = stage.claim()
    put_off(stage, claimed)
    stage.decide(run, AGAIN)
    stage.clock.advance(3601)
    assert stage.store.attempts.fail_unserved(3600, served=set()) == 1
    assert stage.states(run)["a"] is FAILED
    assert stage.store.attempts.get(claimed.attempt_id).state is AttemptState.CANCELLED


WORDS = ("claim", "put off", "resume", "claim again", "old success", "success", "cancel")


class Expected:
    """What must become of one task that may be put off, whatever is said of it in which order."""

    def __init__(self) -> None:
        self.attempt, self.task, self.stopped, self.sent = "queued", "queued", False, 1

    def say(self, word: str) -> str:
        match word:
            case "claim" | "claim again":
                message = 1 if word == "claim" else 2
                if self.attempt != "queued" or self.sent != message:
                    return "refused"
                self.attempt = self.task = "running"
                return "accepted"
            case "put off":
                return self._report(1, "deferred", "failed" if self.stopped else "up_for_reschedule")
            case "old success":
                return self._report(1, "success", "success")
            case "success":
                return self._report(self.sent, "success", "success")
            case "resume":
                if self.task != "up_for_reschedule":
                    return "nothing"
                self.attempt, self.task, self.sent = "queued", "queued", 2
                return "accepted"
        return self._cancel()

    def _report(self, message: int, attempt: str, task: str) -> str:
        if message != self.sent:
            return "refused"
        if self.attempt == attempt:
            return "repeated"
        if self.attempt != "running":
            return "refused"
        self.attempt = "cancelled" if self.stopped and attempt == "deferred" else attempt
        self.task = task
        return "accepted"

    def _cancel(self) -> str:
        if self.task in ("success", "failed") or self.stopped:
            return "nothing"
        if self.task == "running":
            self.stopped = True
        else:
            self.attempt, self.task = "cancelled", "failed"
        return "accepted"


class Told:
    """Says the words to the store."""

    def __init__(self, stage: Any, run: Any, task_id: str, message: tuple[str, str]) -> None:
        self.stage, self.run, self.task_id = stage, run, task_id
        self.messages = [message]

    def say(self, word: str) -> str:
        attempts = self.stage.store.attempts
        attempt_id, nonce = self.messages[0 if word in ("claim", "put off", "old success") else -1]
        try:
            if word in ("claim", "claim again"):
                if word == "claim again" and len(self.messages) == 1:
                    return "refused"
                attempts.claim(attempt_id, nonce, "w1", 60)
                return "accepted"
            if word == "resume":
                return self.resume()
            if word == "cancel":
                return "accepted" if attempts.cancel("d", "r", self.task_id, who="ann") else "nothing"
            claimed = type("Claim", (), {"attempt_id": attempt_id, "nonce": nonce})
            outcome = put_off(self.stage, claimed) if word == "put off" else self.stage.finish(claimed)
        except Refused:
            return "refused"
        return "repeated" if outcome.repeated else "accepted"

    def resume(self) -> str:
        move = TaskDecision(self.task_id, UP_FOR_RESCHEDULE, SCHEDULED)
        if not self.stage.store.runs.apply(self.run.id, Decisions((move,)), 0):
            return "nothing"
        assert self.stage.store.attempts.grant(100_000) == 1
        (row,) = [
            row
            for row in self.stage.store.attempts.to_publish({"default": 100_000})
            if row.attempt_id == self.messages[0][0]
        ]
        self.messages.append((row.attempt_id, row.nonce))
        return "accepted"


@pytest.mark.slow
def test_every_order_of_what_is_said_of_it_ends_as_the_model_says(sqlite_stage: Any) -> None:
    """Each word once and, right after that, again; orders that begin with a claim, for all others are refused."""
    stage = sqlite_stage
    orders = [("claim", *order) for order in itertools.permutations(WORDS[1:])]
    tasks = [stage.task(f"t{number}") for number in range(len(orders))]
    stage.store.workers.set_pools({"default_pool": len(tasks)})
    run = stage.begin(stage.dag(tasks=tasks, max_active_tasks=len(tasks)), *[one.task_id for one in tasks])
    stage.store.attempts.grant(len(tasks))
    rows = stage.store.attempts.to_publish({"default": len(tasks)})
    stage.store.attempts.mark_published(rows, stage.clock() + timedelta(days=1))
    messages = {stage.store.attempts.get(row.attempt_id).task_id: (row.attempt_id, row.nonce) for row in rows}
    found = []
    for number, order in enumerate(orders):
        told, expected = Told(stage, run, f"t{number}", messages[f"t{number}"]), Expected()
        for word in order:
            for _ in ("once", "twice"):
                assert told.say(word) == expected.say(word), (order, word)
        assert stage.store.attempts.get(messages[f"t{number}"][0]).state == expected.attempt, order
        found.append(expected.task)
    assert [one.state for one in stage.store.runs.task_instances(run.id)] == found
    assert set(found) == {"success", "failed", "running"}

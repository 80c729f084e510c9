from datetime import timedelta

import pytest

from yarrow.errors import Refused
from yarrow.language.spec import ScheduleSpec
from yarrow.retries import retry_delay
from yarrow.states import AttemptState, TaskState
from yarrow.store import finishing

SCHEDULED, UP_FOR_RETRY, FAILED = TaskState.SCHEDULED, TaskState.UP_FOR_RETRY, TaskState.FAILED


def test_success_keeps_the_result_the_choice_and_the_figures(stage) -> None:
    run = stage.begin()
    claimed = stage.claim()
    stage.clock.advance(5)
    outcome = stage.finish(claimed, xcom=[1, {"x": None}], has_xcom=True, follow=["b"], metrics={"rows_in": 7})
    assert (outcome.repeated, outcome.state, outcome.next) == (False, TaskState.SUCCESS, None)
    instance = stage.instance(run)
    assert (instance.state, instance.ended_at, instance.follow) == (TaskState.SUCCESS, stage.clock(), ["b"])
    assert instance.metrics == {"rows_in": 7}
    assert stage.store.attempts.xcom("d", "r", "a") == [1, {"x": None}]
    attempt = stage.store.attempts.get(claimed.attempt_id)
    assert (attempt.state, attempt.ended_at, attempt.lease_until) == (AttemptState.SUCCESS, stage.clock(), None)
    assert stage.store.runs.undecided() == [run.id]


def test_none_is_a_result_too(stage) -> None:
    stage.begin()
    stage.finish(stage.claim(), xcom=None, has_xcom=True)
    assert stage.store.attempts.xcom("d", "r", "a") is None


def test_skipped_and_failed_end_the_task_with_their_reason(stage) -> None:
    run = stage.begin(stage.dag(), "a", "b")
    assert stage.finish(stage.claim(), "skipped", reason="no data").state is TaskState.SKIPPED
    assert stage.finish(stage.claim(), "failed", reason="ValueError: x").state is FAILED
    assert [one.reason for one in stage.store.runs.task_instances(run.id)] == ["no data", "ValueError: x"]
    assert stage.store.runs.events("d", "r", "b")[-1].who == "worker w1"


def test_a_failed_try_is_followed_by_another_one_until_none_is_left(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a", retries=1, retry_delay=30.0, retry_exponential_backoff=2.0)])
    run = stage.begin(spec)
    assert stage.finish(stage.claim(), "failed", reason="first").state is UP_FOR_RETRY
    instance = stage.instance(run)
    delay = retry_delay(spec.tasks["a"], "d", run.logical_date, 1)
    assert instance.wait_until == stage.clock() + timedelta(seconds=delay)
    assert (instance.try_number, instance.reason) == (1, "first")
    assert stage.decide(run, ("a", UP_FOR_RETRY, SCHEDULED))
    claimed = stage.claim()
    assert claimed.try_number == 2
    assert stage.finish(claimed, "failed", reason="second").state is FAILED
    attempts = stage.store.attempts.attempts(stage.instance(run).id)
    assert [(one.try_number, one.reason) for one in attempts] == [(1, "first"), (2, "second")]


def test_what_can_not_be_retried_fails_at_once(stage) -> None:
    stage.begin(stage.dag(tasks=[stage.task("a", retries=5)]))
    assert stage.finish(stage.claim(), "failed", retryable=False).state is FAILED


def test_a_lost_attempt_costs_no_try_but_the_infra_budget(stage) -> None:
    run = stage.begin()
    for loss in (1, 2):
        claimed = stage.claim()
        assert claimed.try_number == 1
        assert stage.finish(claimed, "lost", reason="killed by signal 9", infra_budget=2).state is SCHEDULED
        instance = stage.instance(run)
        assert (instance.infra_losses, instance.try_number) == (loss, 0)
        assert instance.wait_until == stage.clock() + timedelta(hours=1)
    assert stage.finish(stage.claim(), "lost", reason="killed by signal 9", infra_budget=2).state is FAILED
    assert stage.instance(run).reason == (
        "The infrastructure lost it 3 times, the last time because: killed by signal 9"
    )


def test_an_interrupted_attempt_costs_nothing(stage) -> None:
    run = stage.begin()
    for _ in range(5):
        assert stage.finish(stage.claim(), "cancelled", reason="worker shutdown").state is SCHEDULED
    instance = stage.instance(run)
    assert (instance.try_number, instance.infra_losses, instance.reason) == (0, 0, "worker shutdown")


def test_a_report_is_accepted_again_but_changes_nothing(stage) -> None:
    run = stage.begin(stage.dag(tasks=[stage.task("a", retries=1)]))
    claimed = stage.claim()
    stage.finish(claimed, "failed", reason="x")
    before = (stage.instance(run), stage.store.runs.by_id(run.id), stage.store.runs.events())
    outcome = stage.finish(claimed, "failed", reason="x", next_for="default")
    assert (outcome.repeated, outcome.state, outcome.next) == (True, UP_FOR_RETRY, None)
    assert (stage.instance(run), stage.store.runs.by_id(run.id), stage.store.runs.events()) == before


def test_a_contrary_report_is_refused(stage) -> None:
    stage.begin()
    claimed = stage.claim()
    stage.finish(claimed)
    with pytest.raises(Refused, match="is success: its report of failed comes too late"):
        stage.finish(claimed, "failed")
    assert stage.store.attempts.get(claimed.attempt_id).state is AttemptState.SUCCESS


def test_a_report_without_a_claim_is_refused(stage) -> None:
    stage.begin()
    attempt_id, nonce = stage.dispatch()
    claimed = type("Claim", (), {"attempt_id": attempt_id, "nonce": nonce})
    with pytest.raises(Refused, match="is queued"):
        stage.finish(claimed)
    with pytest.raises(Refused, match="another worker"):
        stage.finish(claimed, nonce="x")
    claimed.attempt_id = "nope"
    with pytest.raises(Refused, match="no attempt nope"):
        stage.finish(claimed)


def test_only_ends_are_reported(stage) -> None:
    stage.begin()
    claimed = stage.claim()
    for state in ("running", "nonsense"):
        with pytest.raises(Refused, match=f"can't end as '{state}', only as cancelled, deferred, failed"):
            stage.finish(claimed, state)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"x": object()}])
def test_a_result_that_is_not_json_fails_the_task_for_good(stage, value) -> None:
    run = stage.begin(stage.dag(tasks=[stage.task("a", retries=3)]))
    claimed = stage.claim()
    assert stage.finish(claimed, xcom=value, has_xcom=True).state is FAILED
    assert "it is not JSON" in stage.instance(run).reason
    assert stage.finish(claimed, xcom=value, has_xcom=True).repeated


def test_odd_text_and_figures_are_stored_all_the_same(stage) -> None:
    run = stage.begin()
    xcom = {"nul": "a\0b", "half": "\ud800", "deep": [[[[]]]], "big": 2**70}
    stage.finish(
        stage.claim(), reason="a\0b\ud800" + "x" * 30_000, xcom=xcom, has_xcom=True, metrics={"x": float("nan")}
    )
    instance = stage.instance(run)
    assert instance.reason.startswith("ab?x")
    assert len(instance.reason) < 20_001
    assert instance.metrics == {"x": None}
    assert stage.store.attempts.xcom("d", "r", "a") == xcom


def test_downstream_sees_the_successful_attempt_only(stage) -> None:
    """The first attempt is lost and reports late; the second one succeeds."""
    spec = stage.dag(tasks=[stage.task("a"), stage.task("b", upstream=("a",), xcoms=("a",))])
    run = stage.begin(spec, "a")
    first = stage.claim(lease=10)
    stage.clock.advance(11)
    assert stage.store.attempts.expire_leases() == 1
    second = stage.claim("w2")
    assert second.attempt_id != first.attempt_id
    stage.finish(second, xcom="second", has_xcom=True, worker="w2")
    with pytest.raises(Refused, match="is lost"):
        stage.finish(first, xcom="first", has_xcom=True)
    stage.schedule(run, "b")
    assert stage.claim().xcoms == {"a": "second"}


def test_a_finish_may_bring_the_next_attempt(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a"), stage.task("b"), stage.task("c", queue="gpu")])
    run = stage.begin(spec, "a", "b", "c")
    first = stage.claim()
    second = stage.finish(first, next_for="default").next
    assert (second.task_id, second.lease) == ("b", 60.0)
    assert stage.finish(second, next_for="default").next is None
    assert stage.states(run) == {"a": TaskState.SUCCESS, "b": TaskState.SUCCESS, "c": TaskState.QUEUED}


def test_kinds_of_errors_decide_on_another_try(stage) -> None:
    tasks = [stage.task("a", retries=2, retry_on=("OSError",)), stage.task("b", retries=2, no_retry_on=("OSError",))]
    run = stage.begin(stage.dag(tasks=tasks), "a", "b")
    kinds = ["TimeoutError", "OSError", "Exception"]
    assert stage.finish(stage.claim(), "failed", reason="TimeoutError: x", kinds=kinds).state is UP_FOR_RETRY
    assert stage.finish(stage.claim(), "failed", reason="TimeoutError: x", kinds=kinds).state is FAILED
    assert stage.instance(run, "b").reason == "TimeoutError: x (`no_retry_on` rules out another try)"
    assert stage.instance(run, "b").attempt_id is not None


def test_a_soft_failure_ends_as_skipped_and_its_attempt_as_failed(stage) -> None:
    run = stage.begin(stage.dag(tasks=[stage.task("a", soft_fail=True)]))
    claimed = stage.claim()
    assert stage.finish(claimed, "failed", reason="no file").state is TaskState.SKIPPED
    assert stage.instance(run).reason == "no file (soft_fail)"
    attempt = stage.store.attempts.get(claimed.attempt_id)
    assert (attempt.state, attempt.reason) == (AttemptState.FAILED, "no file")
    assert stage.finish(claimed, "failed", reason="no file").repeated


@pytest.mark.parametrize("end", ["failed", "lost", "cancelled", "deferred", "lease"])
@pytest.mark.parametrize("wish", [TaskState.SKIPPED, FAILED])
def test_what_its_run_has_stopped_ends_as_the_run_wishes(stage, end, wish) -> None:
    run = stage.begin(stage.dag(tasks=[stage.task("a", retries=3, soft_fail=True)]))
    claimed = stage.claim(lease=10)
    assert stage.decide(run, ("a", TaskState.RUNNING, wish, "the run took too long"))
    assert stage.beat(claimed.attempt_id, lease=10) == {claimed.attempt_id: "the run took too long"}
    assert not stage.store.attempts.cancel("d", "r", "a", who="ann"), "it is being stopped already"
    if end == "lease":
        stage.clock.advance(11)
        assert stage.store.attempts.expire_leases() == 1
    else:
        resume_at = (stage.clock() + timedelta(minutes=1)).isoformat()
        assert stage.finish(claimed, end, reason="SIGTERM", resume_at=resume_at).state is wish
    instance = stage.instance(run)
    assert (instance.state, instance.reason, instance.wait_until) == (wish, "the run took too long", None)
    assert stage.store.attempts.get(claimed.attempt_id).state.finished


@pytest.mark.parametrize("end", ["success", "skipped"])
def test_what_was_faster_than_the_wish_of_its_run_counts(stage, end) -> None:
    run = stage.begin()
    claimed = stage.claim()
    stage.decide(run, ("a", TaskState.RUNNING, FAILED, "another task failed"))
    assert stage.finish(claimed, end, reason="by itself").state == end
    assert stage.instance(run).reason == "by itself"


def test_success_publishes_the_outlets_and_nothing_else_does(stage) -> None:
    reader = stage.dag("reader", schedule=ScheduleSpec(datasets=("clean",)))
    writer = stage.dag(tasks=[stage.task("a", outlets=("clean",), soft_fail=True), stage.task("b")])
    stage.publish(reader, writer)
    run = stage.run(writer)
    stage.schedule(run, "a", "b")
    assert stage.finish(stage.claim(), "failed").state is TaskState.SKIPPED
    stage.finish(stage.claim())
    assert stage.store.datasets.ready("reader") == []
    again = stage.run(writer, "again")
    stage.schedule(again, "a")
    claimed = stage.claim()
    for _ in range(2):
        stage.finish(claimed)
    (pending,) = stage.store.datasets.ready("reader")
    assert (pending.dataset, pending.at, pending.who) == ("clean", stage.clock(), "task d again a")


@pytest.mark.parametrize("end", ["success", "failed", "skipped", "lost", "deferred", "cancel"])
def test_the_later_run_of_a_dag_that_looks_back_is_decided_on_again(stage, end) -> None:
    for depends_on_past in (False, True):
        tasks = [stage.task("a", depends_on_past=depends_on_past), stage.task("b")]
        spec = stage.dag(f"d{depends_on_past}", tasks)
        stage.publish(spec)
        early, late = (stage.run(spec, name, stage.clock() + timedelta(days=day)) for day, name in enumerate("el"))
        stage.schedule(early, "a")
        assert stage.decide(late)
        claimed = stage.claim()
        if end == "cancel":
            stage.store.attempts.cancel(spec.dag_id, "e", "b", who="ann")
        else:
            resume_at = (stage.clock() + timedelta(minutes=1)).isoformat()
            stage.finish(claimed, end, resume_at=resume_at)
        ended = end not in ("lost", "deferred")
        assert (late.id in stage.store.runs.undecided()) == (depends_on_past and ended)


@pytest.mark.parametrize("end", ["failed", "lost", "cancelled", "deferred"])
def test_a_stop_that_comes_in_the_middle_of_a_report_counts(postgres_stage, monkeypatch, end) -> None:
    stage = postgres_stage
    run = stage.begin(stage.dag(tasks=[stage.task("a", retries=3)]))
    claimed = stage.claim()
    look, stopped = finishing.read, []

    def look_and_stop(connection, attempt_id):
        row = look(connection, attempt_id)
        if not stopped:
            stopped.append(stage.store.attempts.cancel("d", run.run_id, "a", who="ann"))
        return row

    monkeypatch.setattr(finishing, "read", look_and_stop)
    resume_at = (stage.clock() + timedelta(seconds=60)).isoformat()
    stage.finish(claimed, end, reason="it broke", resume_at=resume_at)
    instance = stage.instance(run)
    assert (stopped, instance.state, instance.reason) == ([True], TaskState.FAILED, "Stopped by ann.")

from datetime import timedelta

import pytest

from yarrow.decision.decisions import Decisions, RunDecision, TaskDecision
from yarrow.errors import NotFound, Refused
from yarrow.states import AttemptState, RunState, TaskState

NONE, SCHEDULED, SKIPPED, FAILED = TaskState.NONE, TaskState.SCHEDULED, TaskState.SKIPPED, TaskState.FAILED


def test_a_snapshot_shows_what_decide_wants(stage) -> None:
    run = stage.begin()
    snapshot = stage.store.runs.snapshot(run.id)
    assert snapshot.spec == stage.dag()
    assert [(view.task_id, view.map_index, view.state) for view in snapshot.tasks] == [
        ("a", -1, SCHEDULED),
        ("b", -1, NONE),
    ]
    assert snapshot.record.view.run_id == "r"
    assert snapshot.xcoms == {}
    assert stage.store.runs.snapshot(999) is None


def test_a_snapshot_shows_a_choice_and_the_xcoms_that_a_condition_names(stage) -> None:
    spec = stage.dag(
        tasks=[
            stage.task("a"),
            stage.task("b", upstream=("a",), when="xcom.a.ok", when_xcoms=("a",)),
            stage.task("c", upstream=("a",)),
        ]
    )
    run = stage.begin(spec, "a")
    stage.finish(stage.claim(), xcom={"ok": True}, has_xcom=True, follow=["b"])
    snapshot = stage.store.runs.snapshot(run.id)
    assert snapshot.tasks[0].follow == ("b",)
    assert snapshot.xcoms == {("a", -1): {"ok": True}}
    stage.decide(run, ("b", NONE, SKIPPED))
    assert stage.store.runs.snapshot(run.id).xcoms == {}  # nobody asks any more


def test_decisions_move_tasks_with_their_deadlines_and_reasons(stage) -> None:
    spec = stage.dag()
    stage.publish(spec)
    run = stage.run(spec)
    assert stage.store.runs.undecided() == [run.id]
    later = stage.clock() + timedelta(hours=2)
    assert stage.decide(run, ("a", NONE, SCHEDULED), ("b", NONE, SKIPPED, "not today"), wait_until=later)
    a, b = stage.store.runs.task_instances(run.id)
    assert (a.state, a.scheduled_at, a.wait_until) == (SCHEDULED, stage.clock(), stage.clock() + timedelta(hours=1))
    assert (b.state, b.reason, b.ended_at, b.wait_until) == (SKIPPED, "not today", stage.clock(), None)
    assert stage.store.runs.undecided() == []
    assert stage.store.runs.next_wait() == later
    stage.clock.advance(7200)
    assert stage.store.runs.undecided() == [run.id]


def test_a_move_that_is_not_legal_is_a_mistake_of_ours(stage) -> None:
    run = stage.begin()
    with pytest.raises(ValueError, match="does not move from scheduled to success"):
        stage.decide(run, ("a", SCHEDULED, TaskState.SUCCESS))


def test_a_task_that_moved_meanwhile_is_left_alone_and_the_run_stays_undecided(stage) -> None:
    spec = stage.dag()
    stage.publish(spec)
    run = stage.run(spec)
    stage.schedule(run, "a")
    assert not stage.decide(run, ("a", NONE, SKIPPED), ("b", NONE, SKIPPED))
    assert stage.states(run) == {"a": SCHEDULED, "b": SKIPPED}
    claimed = stage.claim()
    stage.finish(claimed)
    assert not stage.decide(run, ("a", NONE, SKIPPED))
    assert stage.store.runs.undecided() == [run.id]


def test_a_run_ends_only_when_nothing_happened_since_the_look(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a")])
    run = stage.begin(spec)
    seen = stage.store.runs.snapshot(run.id).record.change_seq
    stage.finish(stage.claim())
    end = Decisions(run=RunDecision(RunState.RUNNING, RunState.FAILED, "too early"))
    assert not stage.store.runs.apply(run.id, end, seen)
    assert stage.store.runs.by_id(run.id).state is RunState.RUNNING
    assert stage.store.runs.undecided() == [run.id]
    assert stage.end(run)
    ended = stage.store.runs.by_id(run.id)
    assert (ended.state, ended.ended_at, ended.wait_until) == (RunState.SUCCESS, stage.clock(), None)
    assert stage.store.runs.undecided() == []
    assert not stage.store.runs.apply(run.id, end, ended.change_seq)


def test_no_task_waits_once_its_run_has_ended(stage) -> None:
    run = stage.begin()
    assert stage.end(run, RunState.FAILED)
    assert stage.instance(run).wait_until is None
    assert stage.store.attempts.next_deadline() is None


def test_an_older_decision_does_not_hide_a_newer_one(stage) -> None:
    run = stage.begin()
    old = stage.store.runs.snapshot(run.id).record.change_seq
    stage.finish(stage.claim())
    later = stage.clock() + timedelta(hours=1)
    assert stage.decide(run, wait_until=later)
    assert stage.store.runs.apply(run.id, Decisions(), old)
    record = stage.store.runs.by_id(run.id)
    assert (record.decided_seq, record.wait_until) == (record.change_seq, later)


def test_a_run_that_can_not_be_decided_on_is_left_alone_for_a_while(stage) -> None:
    spec = stage.dag()
    stage.publish(spec)
    run = stage.run(spec)
    until = stage.clock() + timedelta(seconds=30)
    assert stage.store.runs.quarantine(run.id, "KeyError: 'x\0'", until) == 1
    assert stage.store.runs.undecided() == []
    assert stage.store.runs.next_wait() == until
    assert stage.store.runs.by_id(run.id).reason == "KeyError: 'x'"
    stage.clock.advance(30)
    assert stage.store.runs.undecided() == [run.id]
    assert stage.store.runs.quarantine(run.id, "again", stage.clock()) == 2
    assert stage.decide(run)
    assert stage.store.runs.by_id(run.id).reason is None
    assert stage.store.runs.quarantine(run.id, "anew", stage.clock()) == 1
    with pytest.raises(NotFound):
        stage.store.runs.quarantine(999, "x", until)


def test_a_wide_run_is_moved_with_few_statements(stage) -> None:
    spec = stage.dag(tasks=[stage.task(f"t{number}") for number in range(2500)])
    stage.publish(spec)
    run = stage.run(spec)
    stage.schedule(run, *spec.tasks)
    assert stage.store.runs.task_state_counts([run.id]) == {run.id: {"scheduled": 2500}}


def test_a_wish_to_stop_is_told_to_the_worker_and_moves_nothing(stage) -> None:
    run = stage.begin()
    claimed = stage.claim()
    assert stage.decide(run, ("a", TaskState.RUNNING, SKIPPED, "the run took too long"))
    assert stage.states(run) == {"a": TaskState.RUNNING, "b": NONE}
    (view, _) = stage.store.runs.snapshot(run.id).tasks
    assert view.stopping
    assert stage.beat(claimed.attempt_id) == {claimed.attempt_id: "the run took too long"}
    (line,) = [line for line in stage.store.runs.events("d", "r", "a") if line.kind == "task.cancel"]
    assert (line.who, line.reason, line.attempt_id) == ("scheduler", "the run took too long", claimed.attempt_id)
    assert not stage.decide(run, ("a", TaskState.RUNNING, FAILED, "again"))  # told once is enough
    stage.finish(claimed, "cancelled")
    assert stage.states(run)["a"] is SKIPPED
    assert stage.instance(run).reason == "the run took too long"


def test_a_wish_to_stop_what_has_ended_is_not_carried_out(stage) -> None:
    run = stage.begin()
    seen = stage.store.runs.snapshot(run.id).record.change_seq
    stage.finish(stage.claim())
    wish = Decisions((TaskDecision("a", TaskState.RUNNING, FAILED, "too late"),))
    assert not stage.store.runs.apply(run.id, wish, seen)
    assert stage.states(run)["a"] is TaskState.SUCCESS
    assert stage.store.runs.undecided() == [run.id]


@pytest.mark.parametrize("to_state", [SKIPPED, FAILED])
def test_what_is_queued_is_taken_back_when_it_is_given_up(stage, to_state) -> None:
    run = stage.begin()
    attempt_id, nonce = stage.dispatch()
    assert stage.decide(run, ("a", TaskState.QUEUED, to_state, "not needed"))
    assert stage.states(run)["a"] is to_state
    attempt = stage.store.attempts.get(attempt_id)
    assert (attempt.state, attempt.reason, attempt.ended_at) == (AttemptState.CANCELLED, "not needed", stage.clock())
    assert stage.store.attempts.next_deadline() is None
    with pytest.raises(Refused):
        stage.store.attempts.claim(attempt_id, nonce, "w1", 60)


@pytest.mark.parametrize("scheduled", [False, True])
def test_what_is_put_off_is_cancelled_when_it_is_given_up(stage, scheduled) -> None:
    run = stage.begin()
    claimed = stage.claim()
    stage.finish(claimed, "deferred", resume_at=(stage.clock() + timedelta(minutes=5)).isoformat())
    state = TaskState.UP_FOR_RESCHEDULE
    assert stage.states(run)["a"] is state
    if scheduled:
        stage.clock.advance(300)
        assert stage.decide(run, ("a", state, SCHEDULED))
        state = SCHEDULED
    assert stage.decide(run, ("a", state, SKIPPED, "not needed"))
    assert stage.states(run)["a"] is SKIPPED
    assert stage.store.attempts.get(claimed.attempt_id).state is AttemptState.CANCELLED


def test_a_decided_success_publishes_its_outlets(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a", outlets=("x", "y")), stage.task("b", outlets=("z",))])
    stage.publish(spec)
    run = stage.run(spec)
    assert stage.decide(run, ("a", NONE, TaskState.SUCCESS), ("b", NONE, SKIPPED))
    assert [record.dataset for record in stage.store.datasets.list()] == ["x", "y"]

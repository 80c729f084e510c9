from datetime import timedelta
from typing import Any

import pytest

from together import together
from yarrow.decision.decisions import Decisions, Question, TaskDecision
from yarrow.errors import Conflict, NotFound
from yarrow.language.spec import TaskSpec
from yarrow.states import AttemptState, RunState, TaskState
from yarrow.store import Store

NONE, AWAITING, SUCCESS, FAILED = TaskState.NONE, TaskState.AWAITING_INPUT, TaskState.SUCCESS, TaskState.FAILED


def ask_dag(stage: Any, arguments: dict[str, Any] | None = None, **fields: Any) -> Any:
    ask = TaskSpec("ask", "approval", {"message": "Go on?", **(arguments or {})}, **fields)
    return stage.dag(tasks=[ask, stage.task("b", upstream=("ask",), xcoms=("ask",))])


def begin(stage: Any, arguments: dict[str, Any] | None = None, question: Question | None = None, **fields: Any) -> Any:
    """A running run whose task `ask` has asked."""
    spec = ask_dag(stage, arguments, **fields)
    stage.publish(spec)
    run = stage.run(spec)
    asked = TaskDecision("ask", NONE, AWAITING, question=question or Question("Go on?"))
    assert stage.decide(run, asked, wait_until=asked.question.due_at)
    return run


def test_a_question_is_put_down_with_its_deadline(stage: Any) -> None:
    due = stage.clock() + timedelta(hours=2)
    run = begin(stage, question=Question("Publish 7 rows?", "approve", due))
    (record,) = stage.store.approvals.open()
    assert (record.dag_id, record.run_id, record.task_id, record.map_index) == ("d", "r", "ask", -1)
    assert (record.message, record.default_answer, record.due_at) == ("Publish 7 rows?", "approve", due)
    assert (record.state, record.asked_at, record.answer) == (AWAITING, stage.clock(), None)
    assert stage.store.approvals.get("d", "r", "ask") == record
    assert stage.store.approvals.open("d") == [record]
    assert stage.store.approvals.open("other") == []
    instance = stage.instance(run, "ask")
    assert (instance.wait_until, instance.started_at, instance.attempt_id) == (due, stage.clock(), None)
    assert stage.store.runs.undecided() == []
    stage.clock.advance(7200)
    assert stage.store.runs.undecided() == [run.id]  # the deadline is a moment to decide again


def test_approve_lets_the_run_go_on_with_the_answer_as_xcom(stage: Any) -> None:
    run = begin(stage)
    stage.clock.advance(60)
    record = stage.store.approvals.answer("d", "r", "ask", approve=True, who="ann", comment="looks fine")
    assert (record.answer, record.answered_by, record.comment, record.state) == (
        "approve",
        "ann",
        "looks fine",
        SUCCESS,
    )
    assert stage.store.approvals.open() == []
    assert stage.store.runs.undecided() == [run.id]
    told = {"approved": True, "by": "ann", "comment": "looks fine", "at": stage.clock().isoformat()}
    assert stage.store.attempts.xcom("d", "r", "ask") == told
    instance = stage.instance(run, "ask")
    assert (instance.follow, instance.wait_until, instance.ended_at) == (None, None, stage.clock())
    assert (instance.reason, instance.try_number) == ("Approved by ann: looks fine", 1)
    (attempt,) = stage.store.attempts.attempts(instance.id)
    assert (attempt.state, attempt.worker_id, attempt.started_at) == (
        AttemptState.SUCCESS,
        None,
        stage.clock() - timedelta(seconds=60),
    )
    stage.schedule(run, "b")
    assert stage.claim().xcoms == {"ask": told}
    (line,) = stage.store.runs.events("d", "r", "ask")[1:]
    assert (line.from_state, line.to_state, line.who) == ("awaiting_input", "success", "ann")


def test_reject_cuts_off_what_comes_after_it(stage: Any) -> None:
    run = begin(stage)
    stage.store.approvals.answer("d", "r", "ask", approve=False, who="ann")
    (view, _) = stage.store.runs.snapshot(run.id).tasks
    assert (view.state, view.follow) == (SUCCESS, ())
    assert stage.store.attempts.xcom("d", "r", "ask")["approved"] is False


def test_reject_fails_when_the_task_says_so(stage: Any) -> None:
    run = begin(stage, {"on_reject": "fail"})
    record = stage.store.approvals.answer("d", "r", "ask", approve=False, who="ann")
    assert (record.answer, record.state) == ("reject", FAILED)
    with pytest.raises(NotFound, match="has no XCom"):
        stage.store.attempts.xcom("d", "r", "ask")
    assert stage.instance(run, "ask").reason == "Rejected by ann."


def test_a_question_is_answered_once(stage: Any) -> None:
    begin(stage)
    stage.store.approvals.answer("d", "r", "ask", approve=True, who="ann")
    with pytest.raises(Conflict, match=r"answered before: approve, by ann at 2026-01-01 00:00 UTC"):
        stage.store.approvals.answer("d", "r", "ask", approve=False, who="bob")
    assert stage.store.approvals.get("d", "r", "ask").answered_by == "ann"


@pytest.mark.parametrize(("default", "sentence"), [("reject", "the answer is reject by default"), (None, "fails")])
def test_an_answer_after_the_deadline_comes_too_late(stage: Any, default: str | None, sentence: str) -> None:
    run = begin(stage, question=Question("?", default, stage.clock() + timedelta(hours=1)))
    stage.clock.advance(3600)
    with pytest.raises(Conflict, match=f"by 2026-01-01 01:00 UTC. It is too late now: .*{sentence}"):
        stage.store.approvals.answer("d", "r", "ask", approve=True, who="ann")
    assert stage.instance(run, "ask").state is AWAITING


def test_only_what_asks_is_answered(stage: Any) -> None:
    begin(stage)
    with pytest.raises(NotFound, match="asks nothing: it is none"):
        stage.store.approvals.answer("d", "r", "b", approve=True, who="ann")
    with pytest.raises(NotFound, match=r"no task 'aks'\. Did you mean 'ask'"):
        stage.store.approvals.get("d", "r", "aks")
    with pytest.raises(NotFound, match="no run 'x'"):
        stage.store.approvals.answer("d", "x", "ask", approve=True, who="ann")


def test_the_default_answer_is_given_by_a_decision(stage: Any) -> None:
    run = begin(stage, question=Question("?", "reject", stage.clock() + timedelta(hours=1)))
    stage.clock.advance(3600)
    late = TaskDecision("ask", AWAITING, SUCCESS, "nobody answered within 1h", answer="reject", follow=())
    assert stage.decide(run, late)
    record = stage.store.approvals.get("d", "r", "ask")
    assert (record.answer, record.answered_by, record.answered_at) == ("reject", "default", stage.clock())
    instance = stage.instance(run, "ask")
    assert (list(instance.follow), instance.reason) == ([], "nobody answered within 1h")
    assert stage.store.attempts.xcom("d", "r", "ask")["by"] == "default"
    assert not stage.decide(run, late)
    with pytest.raises(Conflict, match="answered before: reject, by default"):
        stage.store.approvals.answer("d", "r", "ask", approve=True, who="ann")


def test_a_question_without_an_answer_is_closed_with_its_task(stage: Any) -> None:
    run = begin(stage)
    assert stage.decide(run, ("ask", AWAITING, FAILED, "nobody answered"))
    assert stage.store.approvals.open() == []
    assert stage.store.approvals.get("d", "r", "ask").answer == "closed"
    with pytest.raises(Conflict, match="is closed: the task is failed"):
        stage.store.approvals.answer("d", "r", "ask", approve=True, who="ann")


def test_stopping_the_task_closes_its_question(stage: Any) -> None:
    begin(stage)
    assert stage.store.attempts.cancel("d", "r", "ask", who="ann")
    assert stage.store.approvals.open() == []
    assert stage.store.approvals.get("d", "r", "ask").state is FAILED


def test_the_end_of_a_run_closes_what_it_asks(stage: Any) -> None:
    run = begin(stage, question=Question("?", None, stage.clock() + timedelta(hours=1)))
    assert stage.end(run, RunState.FAILED)
    assert stage.store.approvals.open() == []
    with pytest.raises(Conflict, match="is closed"):
        stage.store.approvals.answer("d", "r", "ask", approve=True, who="ann")


def test_a_decision_that_repeats_itself_asks_once(stage: Any) -> None:
    run = begin(stage)
    assert not stage.decide(run, TaskDecision("ask", NONE, AWAITING, question=Question("Again?")))
    (record,) = stage.store.approvals.open()
    assert record.message == "Go on?"


def test_outlets_are_published_by_a_yes_alone(stage: Any) -> None:
    begin(stage, outlets=("checked",))
    stage.store.approvals.answer("d", "r", "ask", approve=True, who="ann")
    assert [record.dataset for record in stage.store.datasets.list()] == ["checked"]


def test_outlets_are_not_published_by_a_no(stage: Any) -> None:
    begin(stage, outlets=("checked",))
    stage.store.approvals.answer("d", "r", "ask", approve=False, who="ann")
    assert stage.store.datasets.list() == []


def test_one_of_many_answers_counts(postgres_stage: Any, postgres_url: str) -> None:
    """People and the deadline at once: one answer, one attempt, and everybody else is told."""
    stage = postgres_stage
    run = begin(stage, question=Question("?", "reject", stage.clock() + timedelta(hours=1)))
    seen = stage.store.runs.snapshot(run.id).record.change_seq
    late = Decisions((TaskDecision("ask", AWAITING, SUCCESS, "late", answer="reject", follow=()),))
    stores = [Store.open(postgres_url, clock=stage.clock) for _ in range(6)]
    answers: list[str] = []

    def say(store: Store, word: str) -> None:
        try:
            if word == "default":
                answers.append("accepted" if store.runs.apply(run.id, late, seen) else "refused")
                return
            store.approvals.answer("d", "r", "ask", approve=word == "approve", who=word)
            answers.append("accepted")
        except Conflict:
            answers.append("refused")

    words = ["approve", "default", "reject"] * 2
    assert together(*[lambda s=s, w=w: say(s, w) for s, w in zip(stores, words, strict=True)]) == []
    assert sorted(answers) == ["accepted"] + ["refused"] * 5
    assert len(stage.store.attempts.attempts(stage.instance(run, "ask").id)) == 1
    record = stage.store.approvals.get("d", "r", "ask")
    assert stage.store.attempts.xcom("d", "r", "ask")["approved"] == (record.answer == "approve")
    for store in stores:
        store.close()


def test_two_schedulers_ask_once(postgres_stage: Any, postgres_url: str) -> None:
    stage = postgres_stage
    spec = ask_dag(stage)
    stage.publish(spec)
    run = stage.run(spec)
    ask = Decisions((TaskDecision("ask", NONE, AWAITING, question=Question("Go on?")),))
    stores = [Store.open(postgres_url, clock=stage.clock) for _ in range(3)]
    answers: list[bool] = []
    works = [lambda store=store: answers.append(store.runs.apply(run.id, ask, 1)) for store in stores]
    assert together(*works) == []
    assert sorted(answers) == [False, False, True]
    assert len(stage.store.approvals.open()) == 1
    for store in stores:
        store.close()

"""What is decided about tasks that wait without a slot: sensors, questions to people, and the run before."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from deciding import (
    NOW,
    QUEUED,
    REMOVED,
    RUN,
    RUNNING,
    SCHEDULED,
    F,
    K,
    N,
    S,
    U,
    applied,
    dag,
    decided,
    moves,
    task,
    view,
    views,
)
from yarrow.decide import Decisions, PastView, Question, TaskDecision, decide
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.states import RunState, TaskState

LOOKING, ASKING = TaskState.UP_FOR_RESCHEDULE, TaskState.AWAITING_INPUT
LATER = NOW + timedelta(hours=1)


# Sensors between two looks.


def test_a_sensor_looks_again_when_it_is_due() -> None:
    spec = dag(task("a"), task("b", "a"))
    assert decided(spec, a=view("a", LOOKING, wait_until=LATER)) == Decisions(wait_until=LATER)
    for due in (NOW, NOW - timedelta(days=1), None):
        decisions = decided(spec, a=view("a", LOOKING, wait_until=due))
        assert decisions == Decisions((TaskDecision("a", LOOKING, SCHEDULED),))


def test_the_next_moment_is_the_earliest_of_all_waits() -> None:
    spec = dag(task("a"), task("b"), task("c", operator="approval"))
    minutes = [NOW + timedelta(minutes=number) for number in (3, 1, 2)]
    for order in (minutes, minutes[1:] + minutes[:1], minutes[2:] + minutes[:2]):
        found = decided(
            spec,
            a=view("a", TaskState.UP_FOR_RETRY, wait_until=order[0]),
            b=view("b", LOOKING, wait_until=order[1]),
            c=view("c", ASKING, wait_until=order[2]),
        )
        assert found == Decisions(wait_until=minutes[1])


# Questions.


def ask(**arguments: Any) -> DagSpec:
    fields = arguments.pop("fields", {})
    return dag(task("a"), task("q", "a", operator="approval", arguments=arguments, **fields), task("z", "q"))


def test_an_approval_asks_when_its_rule_lets_it_and_goes_to_no_worker() -> None:
    spec = ask(
        message="Publish {{ xcom.a.rows }} rows of {{ ds }}, limit {{ params.limit }}?", timeout="1d", default="approve"
    )
    assert decided(spec, a=RUNNING) == Decisions()
    question = Question("Publish 7 rows of 2026-01-01, limit 5?", "approve", NOW + timedelta(days=1))
    decisions = decided(spec, {"a": {"rows": 7}}, a=S)
    assert decisions.tasks == (TaskDecision("q", N, ASKING, question=question),)
    assert decisions.wait_until == NOW + timedelta(days=1)
    after = applied(views(spec, a=S), decisions)
    assert decide(spec, RUN, after.values(), NOW, {}) == Decisions(wait_until=NOW + timedelta(days=1))


def test_a_question_without_a_timeout_waits_for_ever() -> None:
    spec = ask(message="Go on?")
    decisions = decided(spec, a=S)
    assert decisions.tasks == (TaskDecision("q", N, ASKING, question=Question("Go on?")),)
    assert decisions.wait_until is None
    assert decide(spec, RUN, views(spec, a=S, q=ASKING).values(), NOW + timedelta(days=9999), {}) == Decisions()


def test_a_question_is_asked_only_when_its_when_is_true() -> None:
    assert moves(decided(ask(message="Go on?", fields={"when": "params.limit > 9"}), a=S)) == {"q": K, "z": K}


def test_a_message_that_can_not_be_rendered_fails_the_task() -> None:
    spec = ask(message="Publish {{ xcom.a.rows }} rows?")
    decisions = decided(spec, {"a": {}}, a=S)
    assert moves(decisions) == {"q": F, "z": U}
    assert (decisions.tasks[0].reason or "").startswith("`message` can't be rendered: `xcom.a.rows` does not exist")


def test_an_approval_in_a_mapped_group_asks_for_each_instance() -> None:
    spec = dag(
        task("g.q", operator="approval", arguments={"message": "{{ map.x }}?"}, expand={"x": [1, 2]}, map_group="g")
    )
    found = [(one.map_index, one.question) for one in decided(spec).tasks]
    assert found == [(0, Question("1?")), (1, Question("2?"))]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            {"default": "approve"},
            TaskDecision("q", ASKING, S, "nobody answered within 1d: approved by default", answer="approve"),
        ),
        (
            {"default": "reject"},
            TaskDecision("q", ASKING, S, "nobody answered within 1d: rejected by default", answer="reject", follow=()),
        ),
        (
            {"default": "reject", "on_reject": "fail"},
            TaskDecision("q", ASKING, F, "nobody answered within 1d: rejected by default", answer="reject"),
        ),
        ({}, TaskDecision("q", ASKING, F, "nobody answered within 1d")),
        ({"fields": {"soft_fail": True}}, TaskDecision("q", ASKING, K, "nobody answered within 1d (soft_fail)")),
    ],
)
def test_when_nobody_answers_in_time_the_default_does(arguments: dict[str, Any], expected: TaskDecision) -> None:
    spec = ask(message="Go on?", timeout="1d", **arguments)
    assert decided(spec, a=S, q=view("q", ASKING, wait_until=LATER)) == Decisions(wait_until=LATER)
    decisions = decided(spec, a=S, q=view("q", ASKING, wait_until=NOW))
    assert decisions.tasks[0] == expected
    follows = {S: SCHEDULED, F: U, K: K}[expected.to_state] if expected.follow is None else K
    assert moves(decisions)["z"] is follows, "all that follows from it is decided at once"


def test_a_rejection_cuts_off_all_that_comes_after_it_whatever_the_rules() -> None:
    spec = dag(
        task("q", operator="approval", arguments={"message": "Go on?"}),
        task("x", "q", trigger_rule="all_done"),
        task("y", "x", trigger_rule="all_done"),
        task("t", "y", teardown=True, trigger_rule="all_done"),
    )
    decisions = decided(spec, q=view("q", S, follow=()))
    assert moves(decisions) == {"x": K, "y": K, "t": SCHEDULED}
    assert decisions.tasks[0].reason == "`q` was rejected"
    assert moves(decided(spec, q=S)) == {"x": SCHEDULED}


def test_a_rejection_by_default_of_an_instance_is_about_its_index() -> None:
    each: Any = {"expand": {"x": [1, 2]}, "map_group": "g"}
    arguments = {"message": "?", "timeout": "1d", "default": "reject"}
    spec = dag(task("g.q", operator="approval", arguments=arguments, **each), task("g.x", "g.q", **each))
    questions = [view("g.q", ASKING, map_index=n, wait_until=(NOW, LATER)[n]) for n in (0, 1)]
    assert moves(decided(spec, None, *questions, g__x=[N, N])) == {("g.q", 0): S, ("g.x", 0): K}


def test_a_run_does_not_end_while_it_asks_or_looks() -> None:
    spec = dag(task("a", operator="approval"), task("b", "a"))
    for state in (ASKING, LOOKING):
        assert decided(spec, a=view("a", state, wait_until=LATER)).run is None


# The run before.


BACK = dag(task("a", depends_on_past=True), task("b", "a"), task("c", "b"))


def looking_back(spec: DagSpec, past: dict[str, list[TaskState]] | None, **states: Any) -> Decisions:
    view_of_past = None if past is None else PastView("before", past)
    return decide(spec, RUN, views(spec, **states).values(), NOW, {}, view_of_past)


@pytest.mark.parametrize("states", [[S], [K], [S, K], []])
def test_a_task_goes_on_when_each_instance_of_it_in_the_run_before_succeeded_or_was_skipped(
    states: list[TaskState],
) -> None:
    assert moves(looking_back(BACK, {"a": states})) == {"a": SCHEDULED}


@pytest.mark.parametrize("state", [state for state in TaskState if state not in (S, K)])
def test_else_it_waits_and_that_is_no_deadlock(state: TaskState) -> None:
    assert looking_back(BACK, {"a": [state]}) == Decisions()
    assert looking_back(BACK, {"a": [S, state]}) == Decisions()


def test_no_run_before_or_no_such_task_in_it_holds_nothing_up() -> None:
    assert moves(looking_back(BACK, None)) == {"a": SCHEDULED}
    assert moves(looking_back(BACK, {"b": [F]})) == {"a": SCHEDULED}


def test_only_the_tasks_that_ask_for_it_look_back() -> None:
    assert moves(looking_back(BACK, {"a": [S], "b": [F]}, a=S)) == {"b": SCHEDULED}


def test_wait_for_downstream_looks_at_the_direct_ones_too_and_at_itself() -> None:
    spec = dag(task("a", wait_for_downstream=True), task("b", "a"), task("c", "b"))
    assert looking_back(spec, {"a": [S], "b": [RUNNING], "c": [S]}) == Decisions()
    assert looking_back(spec, {"a": [F], "b": [S], "c": [S]}) == Decisions()
    assert moves(looking_back(spec, {"a": [S], "b": [K], "c": [F]})) == {"a": SCHEDULED}
    assert moves(looking_back(spec, {"a": [S]})) == {"a": SCHEDULED}


def test_depends_on_past_alone_does_not_look_at_downstream() -> None:
    assert moves(looking_back(BACK, {"a": [S], "b": [F]})) == {"a": SCHEDULED}


def waiting(**fields: Any) -> TaskSpec:
    return task("b", "a", depends_on_past=True, **fields)


def test_the_rule_always_waits_for_the_run_before_as_well() -> None:
    spec = dag(task("a"), waiting(trigger_rule="always"))
    assert looking_back(spec, {"b": [F]}, a=RUNNING) == Decisions()
    assert moves(looking_back(spec, {"b": [S]}, a=RUNNING)) == {"b": SCHEDULED}


def test_a_task_that_ends_by_its_trigger_rule_does_not_wait() -> None:
    assert moves(looking_back(dag(task("a"), waiting()), {"b": [F]}, a=F)) == {"b": U}
    assert moves(looking_back(dag(task("a"), waiting()), {"b": [F]}, a=K)) == {"b": K}


@pytest.mark.parametrize("fields", [{"when": "params.limit > 9"}, {"operator": "empty"}, {"operator": "approval"}])
def test_nothing_of_it_happens_before_that(fields: dict[str, Any]) -> None:
    assert looking_back(dag(task("a"), waiting(**fields)), {"b": [F]}, a=S) == Decisions()


def test_a_mapped_task_waits_before_it_is_expanded_and_so_does_each_instance_of_a_group() -> None:
    spec = dag(task("a"), waiting(expand={"x": [1]}))
    assert looking_back(spec, {"b": [S, F]}, a=S) == Decisions()
    assert moves(looking_back(spec, {"b": [S, K]}, a=S)) == {("b", 0): SCHEDULED}
    spec = dag(task("g.p", depends_on_past=True, expand={"x": [1, 2]}, map_group="g"))
    assert looking_back(spec, {"g.p": [F]}, g__p=[N, S]) == Decisions()


def test_a_run_that_waits_for_the_one_before_still_notes_its_other_waits() -> None:
    spec = dag(task("a", depends_on_past=True), task("b"), dagrun_timeout=60.0)
    found = looking_back(spec, {"a": [F]}, b=view("b", LOOKING, wait_until=LATER))
    assert found == Decisions(wait_until=LATER)


def test_a_deadlock_beside_a_task_that_waits_for_the_run_before_is_none_yet() -> None:
    spec = dag(task("a", depends_on_past=True), task("x"), task("y", "x"))
    assert looking_back(spec, {"a": [F]}, x=REMOVED) == Decisions()
    found = looking_back(spec, {"a": [S]}, a=S, x=REMOVED)
    assert found.run is not None
    assert found.run.to_state is RunState.FAILED


def test_what_is_under_way_goes_on_whatever_the_run_before_does() -> None:
    for state in (QUEUED, RUNNING, SCHEDULED):
        assert looking_back(BACK, {"a": [F]}, a=state) == Decisions()
    assert moves(looking_back(BACK, {"a": [F]}, a=view("a", TaskState.UP_FOR_RETRY))) == {"a": SCHEDULED}

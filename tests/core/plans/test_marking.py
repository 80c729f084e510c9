from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deciding import dag, task
from planning import by_chance, carried_out, fact, facts, situation, words
from small_dags import Maker
from yarrow.errors import NotFound, UsageError
from yarrow.plans.marking import plan_mark
from yarrow.plans.plan import RunAction, RunChange, TaskAction
from yarrow.plans.requests import MarkRequest
from yarrow.plans.scope import instances
from yarrow.plans.situation import RunFacts
from yarrow.states import PERSON_MOVES, PERSON_RUN_MOVES, RunState, TaskState

N, S, F, K, U = TaskState.NONE, TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED, TaskState.UPSTREAM_FAILED
RUNNING, QUEUED = TaskState.RUNNING, TaskState.QUEUED
CHAIN = dag(task("a"), task("b", "a"), task("c", "b"))
MAPPED = dag(
    task("list"),
    task("each", "list", expand={"x": "{{ xcom.list }}"}, expand_xcoms=("list",)),
    task("sum", "each"),
)


def mark(state: str, *runs: RunFacts, **fields: Any) -> list[RunChange]:
    fields.setdefault("run_ids", tuple(run.run_id for run in runs))
    return plan_mark(MarkRequest(dag_id="d", state=state, **fields), situation(*runs))


def marked(state: str, run: RunFacts, **fields: Any) -> list[str]:
    (change,) = mark(state, run, **fields)
    return words(change.tasks)


# Task instances.


@pytest.mark.parametrize("to_state", ["success", "failed", "skipped"])
@pytest.mark.parametrize("state", [state for state in TaskState if state is not TaskState.REMOVED])
def test_any_task_instance_in_another_state_is_marked(state: TaskState, to_state: str) -> None:
    found = marked(to_state, facts(dag(task("a")), a=state, state=RunState.RUNNING), tasks="a")
    if state == to_state:
        assert found == []
    else:
        assert found == [f"a {'stop and mark' if state is RUNNING else 'mark'} to {to_state}"]


@pytest.mark.parametrize(("stopping_to", "is_listed"), [("failed", False), ("none", True), ("success", True)])
def test_what_is_being_stopped_is_listed_when_it_would_end_in_another_state(stopping_to: str, is_listed: bool) -> None:
    run = facts(dag(task("a")), fact("a", RUNNING, stopping_to=stopping_to), state=RunState.RUNNING)
    assert marked("failed", run) == (["a stop and mark to failed"] if is_listed else [])


def test_the_xcom_of_a_former_success_is_lost() -> None:
    run = facts(CHAIN, fact("a", S, has_xcom=True), b=F, c=U)
    (change,) = mark("failed", run, tasks="a")
    assert [one.loses_xcom for one in change.tasks] == [True]
    (change,) = mark("success", run, tasks="b")
    assert [one.loses_xcom for one in change.tasks] == [False, False]


def test_a_mapped_task_that_is_not_expanded_is_marked_as_one() -> None:
    assert marked("success", facts(MAPPED, state=RunState.RUNNING), tasks="each") == ["each mark to success"]


def test_one_instance_of_a_mapped_task() -> None:
    run = facts(MAPPED, list=S, each=[S, F, F], sum=U)
    assert marked("success", run, tasks="each", map_index=1) == ["each[1] mark to success", "sum clear"]
    (change,) = mark("success", run, tasks="each", map_index=7)
    assert (change.action, change.reason) == (RunAction.SKIP, "it has no task instance `each[7]`")


def test_flags_choose_as_for_a_clear() -> None:
    run = facts(CHAIN, a=F, b=RUNNING, state=RunState.RUNNING)
    assert marked("skipped", run, tasks="b", upstream=True) == ["a mark to skipped", "b stop and mark to skipped"]
    assert marked("skipped", run, only_running=True) == ["b stop and mark to skipped"]
    assert marked("skipped", run, only_failed=True) == ["a mark to skipped"]
    (change,) = mark("success", run, tasks="c", only_failed=True)
    assert (change.action, change.reason) == (RunAction.SKIP, "nothing that is selected has failed")
    (change,) = mark("success", run, tasks="c", only_running=True)
    assert (change.action, change.reason) == (RunAction.SKIP, "nothing that is selected is running")


# What comes after them.


@pytest.mark.parametrize("state", ["success", "skipped"])
def test_what_could_not_run_after_it_gets_another_chance(state: str) -> None:
    spec = dag(task("a"), task("b", "a"), task("c", "b"), task("d", "c"), task("e", "a"))
    (change,) = mark(state, facts(spec, a=F, b=F, c=U, d=K, e=S), tasks="a")
    assert words(change.tasks) == [f"a mark to {state}", "b clear", "c clear"]
    assert [one.why for one in change.tasks] == ["selected", "downstream of a", "downstream of a"]
    assert (change.to_state, change.task_count) == ("queued", 2)


def test_a_mark_as_failed_changes_nothing_after_it() -> None:
    assert marked("failed", facts(CHAIN, a=S, b=F, c=U), tasks="a") == ["a mark to failed"]


def test_what_is_in_that_state_already_frees_nothing() -> None:
    (change,) = mark("success", facts(CHAIN, a=S, b=F, c=U), tasks="a")
    assert (change.action, change.reason, change.tasks) == (
        RunAction.SKIP,
        "all that is selected is success already",
        (),
    )


def test_only_what_is_marked_now_frees_what_comes_after_it() -> None:
    spec = dag(task("a"), task("b", "a"), task("x"), task("y", "x"))
    assert marked("success", facts(spec, a=S, b=F, x=F, y=U), tasks="a,x") == ["x mark to success", "y clear"]


def test_what_is_marked_itself_is_not_cleared() -> None:
    assert marked("success", facts(CHAIN, a=F, b=F, c=U), tasks="a+") == [
        "a mark to success",
        "b mark to success",
        "c mark to success",
    ]


def test_what_runs_again_after_it_brings_its_setup() -> None:
    spec = dag(
        task("make", setup=True), task("a"), task("work", "make", "a"), task("drop", "make", "work", teardown=True)
    )
    run = facts(spec, a=F, make=S, work=U, drop=S)
    assert marked("success", run, tasks="a") == ["make clear", "a mark to success", "work clear", "drop clear"]


# The run of marked tasks.


@pytest.mark.parametrize("state", [RunState.RUNNING, RunState.QUEUED])
def test_a_run_that_is_not_over_goes_on(state: RunState) -> None:
    (change,) = mark("success", facts(CHAIN, a=S, b=S, c=RUNNING, state=state), tasks="c")
    assert (change.action, change.from_state, change.to_state) == (RunAction.MARK, state.value, state.value)


@pytest.mark.parametrize(
    ("states", "tasks", "state", "to_state"),
    [
        ({"a": S, "b": S, "c": F}, "c", "success", "success"),
        ({"a": S, "b": S, "c": F}, "c", "skipped", "success"),
        ({"a": S, "b": S, "c": S}, "c", "failed", "failed"),
        ({"a": S, "b": S, "c": S}, "a", "failed", "success"),  # its last task decides
        ({"a": S, "b": F, "c": U}, "b", "success", "queued"),
        ({"a": S, "b": F, "c": N}, "b", "failed", "failed"),
        ({"a": S, "b": S, "c": RUNNING}, "c", "failed", "failed"),
    ],
)
def test_a_run_that_was_over_ends_as_its_tasks_then_say(
    states: dict[str, TaskState], tasks: str, state: str, to_state: str
) -> None:
    run = facts(CHAIN, state=RunState.FAILED, **states)
    (change,) = mark(state, run, tasks=tasks)
    if states[tasks] == state:
        assert change.action is RunAction.SKIP
    else:
        assert (change.from_state, change.to_state) == ("failed", to_state)


def test_a_run_that_was_over_goes_on_for_what_has_not_ended() -> None:
    spec = dag(task("a"), task("b", "a"), task("x"))
    (change,) = mark("success", facts(spec, a=F, b=N, x=S), tasks="a")
    assert (words(change.tasks), change.to_state) == (["a mark to success"], "queued")


def test_a_run_that_was_over_goes_on_when_an_end_would_follow_from_its_states() -> None:
    (change,) = mark("skipped", facts(CHAIN, a=S, b=F, c=N), tasks="b")  # c is skipped with it
    assert (words(change.tasks), change.to_state) == (["b mark to skipped"], "queued")


def test_what_is_being_stopped_in_a_run_that_was_over_counts_as_stopped() -> None:
    spec = dag(task("a"), task("x"))
    run = facts(spec, fact("x", RUNNING, stopping_to="failed"), a=S)
    (change,) = mark("skipped", run, tasks="a")
    assert (words(change.tasks), change.to_state) == (["a mark to skipped"], "failed")


def test_a_choice_of_a_marked_branch_does_not_count_any_more() -> None:
    spec = dag(task("pick", operator="branch"), task("x", "pick"), task("y", "pick"))
    run = facts(spec, fact("pick", S, follow=("x",)), x=S, y=K, state=RunState.SUCCESS)
    (change,) = mark("failed", run, tasks="pick")
    assert change.to_state == "success"


def test_a_run_without_task_instances_has_none_to_mark() -> None:
    (change,) = mark("success", replace(facts(CHAIN, state=RunState.QUEUED), tasks=()), tasks="a")
    assert (change.action, change.reason) == (RunAction.SKIP, "it has no task instances yet")


# Whole runs.

MIXED = dag(*(task(name) for name in ("ok", "bad", "runs", "waits", "queued", "asks")))
STATES = {"ok": S, "bad": F, "runs": RUNNING, "waits": N, "queued": QUEUED, "asks": TaskState.AWAITING_INPUT}


def test_a_run_that_is_marked_failed() -> None:
    (change,) = mark("failed", facts(MIXED, state=RunState.RUNNING, **STATES), runs=True)
    assert (change.action, change.from_state, change.to_state) == (RunAction.MARK, "running", "failed")
    assert words(change.tasks) == [
        "runs stop and mark to failed",
        "waits mark to skipped",
        "queued mark to skipped",
        "asks mark to skipped",
    ]
    assert {one.why for one in change.tasks} == {"its run is marked failed"}
    assert change.task_count == 0


def test_a_run_that_is_marked_success() -> None:
    (change,) = mark("success", facts(MIXED, state=RunState.RUNNING, **STATES), runs=True)
    assert change.to_state == "success"
    assert words(change.tasks) == [
        "runs stop and mark to success",
        "waits mark to success",
        "queued mark to success",
        "asks mark to success",
    ]


def test_a_run_that_has_not_started_is_marked_alone() -> None:
    (change,) = mark("success", replace(facts(CHAIN, state=RunState.QUEUED), tasks=()), runs=True)
    assert (change.action, change.to_state, change.tasks) == (RunAction.MARK, "success", ())


def test_a_run_that_is_in_that_state_is_skipped() -> None:
    (change,) = mark("failed", facts(CHAIN, a=S, b=F, c=U), runs=True)
    assert (change.action, change.reason) == (RunAction.SKIP, "it is failed already")
    (change,) = mark("success", facts(CHAIN, a=S, b=F, c=U), runs=True)
    assert (change.action, change.to_state, change.tasks) == (RunAction.MARK, "success", ())


def test_what_still_runs_in_a_run_in_that_state_is_stopped_another_way() -> None:
    run = facts(CHAIN, fact("c", RUNNING, stopping_to="failed"), a=S, b=S, state=RunState.SUCCESS)
    (change,) = mark("success", run, runs=True)
    assert (change.from_state, change.to_state, words(change.tasks)) == (
        "success",
        "success",
        ["c stop and mark to success"],
    )


# What makes no sense.


@pytest.mark.parametrize(
    ("state", "fields", "message"),
    [
        ("done", {"tasks": "a"}, "choose one of success, failed, skipped"),
        ("skipped", {"runs": True}, "only tasks can be marked skipped"),
        ("failed", {"runs": True, "tasks": "a"}, "A run is marked as a whole"),
        ("failed", {"runs": True, "downstream": True}, "A run is marked as a whole"),
        ("failed", {"runs": True, "only_failed": True}, "A run is marked as a whole"),
        ("failed", {"tasks": "x"}, "The DAG `d` has no task `x`"),
        ("failed", {"run_ids": ()}, "It is not said which runs are meant"),
    ],
)
def test_refuses_what_makes_no_sense(state: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        mark(state, facts(CHAIN), **fields)
    with pytest.raises(NotFound):
        mark("failed", facts(CHAIN), run_ids=("r9",))


# Any DAG, any states.

SEEDS = st.integers(0, 2**32)


def case_by_chance(seed: int) -> tuple[RunFacts, MarkRequest]:
    rng = random.Random(seed)
    spec = Maker(rng).case().spec
    runs = rng.random() < 0.3
    request = MarkRequest(
        dag_id="d",
        run_ids=("r0",),
        state=rng.choice(["success", "failed"] if runs else ["success", "failed", "skipped"]),
        runs=runs,
        tasks=None if runs else ",".join(rng.sample(list(spec.tasks), rng.randint(1, len(spec.tasks)))),
        downstream=not runs and rng.random() < 0.3,
    )
    return by_chance(spec, rng), request


@given(SEEDS)
def test_a_plan_is_legal_and_the_same_each_time(seed: int) -> None:
    run, request = case_by_chance(seed)
    (change,) = plan_mark(request, situation(run))
    states = {(one.task_id, one.map_index): one.state for one in run.tasks}
    order = list(run.spec.tasks)
    places = [(order.index(one.task_id), one.map_index) for one in change.tasks]
    assert places == sorted(set(places))
    for one in change.tasks:
        from_state = states[one.task_id, one.map_index]
        assert one.from_state == from_state.value
        if one.action is not TaskAction.COLLAPSE:
            assert (from_state, TaskState(one.to_state)) in PERSON_MOVES
            assert (from_state is RUNNING) == one.action.startswith("stop")
    if change.to_state != change.from_state:
        assert (run.state, RunState(change.to_state)) in PERSON_RUN_MOVES
    shuffled = replace(run, tasks=tuple(reversed(run.tasks)))
    assert plan_mark(request, situation(shuffled)) == [change]


@given(SEEDS)
def test_all_that_is_meant_ends_in_that_state(seed: int) -> None:
    run, request = case_by_chance(seed)
    (change,) = plan_mark(request, situation(run))
    after = carried_out(run, change)
    rows = instances(after)
    if request.runs:
        assert after.state == request.state
        assert all(one.state.finished or one.stopping_to is not None for ones in rows.values() for one in ones)
    else:
        assert request.tasks is not None
        chosen = [one for task_id in request.tasks.split(",") for one in rows.get(task_id, ())]
        assert all(request.state in (one.state, one.stopping_to) for one in chosen)
    (again,) = plan_mark(request, situation(after))
    assert again.action is RunAction.SKIP


@given(SEEDS)
def test_a_run_that_is_over_afterwards_has_nothing_left_to_do(seed: int) -> None:
    run, request = case_by_chance(seed)
    (change,) = plan_mark(request, situation(run))
    if request.runs or change.action is RunAction.SKIP or not RunState(str(change.to_state)).finished:
        return
    after = carried_out(run, change)
    rows = instances(after)
    ends = {one.stopping_to or one.state for ones in rows.values() for one in ones}
    assert all(TaskState(end).finished for end in ends)
    if not ends & {F, U}:
        assert change.to_state == "success"

"""What is decided about runs that are stopped: those that fail fast, and those that take too long."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from deciding import (
    NOW,
    QUEUED,
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
    reasons,
    task,
    view,
    views,
)
from yarrow.decide import Decisions, Expansion, TaskDecision, TaskView, decide
from yarrow.language.spec import DagSpec
from yarrow.states import TASK_MOVES, RunState, TaskState

RETRY, LOOKING, ASKING = TaskState.UP_FOR_RETRY, TaskState.UP_FOR_RESCHEDULE, TaskState.AWAITING_INPUT
LATER = NOW + timedelta(hours=1)
UNFINISHED = (N, SCHEDULED, QUEUED, RETRY, LOOKING, ASKING)


def legal(decisions: Decisions) -> bool:
    return all((one.from_state, one.to_state) in TASK_MOVES for one in decisions.tasks)


# fail_fast


def fast(*tasks: Any) -> DagSpec:
    return dag(*tasks, fail_fast=True)


@pytest.mark.parametrize("state", UNFINISHED)
def test_after_a_failure_all_that_is_left_is_skipped(state: TaskState) -> None:
    spec = fast(task("a"), task("b", operator="approval"), task("c", "b"))
    decisions = decided(spec, a=F, b=view("b", state, wait_until=LATER))
    assert moves(decisions) == {"b": K, "c": K}
    assert set(reasons(decisions).values()) == {"fail_fast: task `a` failed"}
    assert legal(decisions)
    assert decisions.run is not None
    assert (decisions.run.to_state, decisions.run.reason) == (RunState.FAILED, "fail_fast: task `a` failed")


def test_without_it_other_tasks_go_on() -> None:
    assert moves(decided(dag(task("a"), task("b")), a=F)) == {"b": SCHEDULED}


def test_even_what_is_due_is_skipped_and_not_scheduled() -> None:
    decisions = decided(fast(task("a"), task("b")), a=F, b=view("b", RETRY, wait_until=NOW))
    assert decisions.tasks == (TaskDecision("b", RETRY, K, "fail_fast: task `a` failed"),)


def test_what_comes_after_the_failure_is_skipped_too() -> None:
    decisions = decided(fast(task("a"), task("b", "a")), a=F)
    assert moves(decisions) == {"b": K}
    assert decisions.run is not None
    assert decisions.run.to_state is RunState.FAILED, "though its only leaf was skipped"


def test_a_running_task_is_stopped_once_and_the_run_waits_for_it() -> None:
    spec = fast(task("a"), task("b"), task("c"))
    decisions = decided(spec, a=F, b=RUNNING, c=view("c", RUNNING, stopping=True))
    assert decisions.tasks == (TaskDecision("b", RUNNING, F, "fail_fast: task `a` failed"),)
    assert (decisions.run, decisions.wait_until) == (None, None)
    assert decided(spec, a=F, b=view("b", RUNNING, stopping=True), c=S) == Decisions()
    end = decided(spec, a=F, b=view("b", F, stopping=True), c=S).run
    assert end is not None
    assert end.reason == "fail_fast: task `a` failed", "and not the one that was stopped for it"


@pytest.mark.parametrize("state", [U, K, S, TaskState.REMOVED])
def test_only_a_failure_of_its_own_stops_a_run(state: TaskState) -> None:
    assert moves(decided(fast(task("a"), task("b")), a=state)) == {"b": SCHEDULED}


def test_teardowns_go_on_by_their_rule() -> None:
    spec = fast(
        task("s", setup=True),
        task("x", "s"),
        task("y", "s"),
        task("t", "s", "x", "y", teardown=True, trigger_rule="all_done_setup_success"),
    )
    assert moves(decided(spec, s=S, x=F, y=N)) == {"y": K, "t": SCHEDULED}
    assert moves(decided(spec, s=S, x=F, y=RUNNING)) == {"y": F}
    for state in (SCHEDULED, QUEUED, RUNNING):
        assert decided(spec, s=S, x=F, y=K, t=state) == Decisions()
    assert decided(spec, s=S, x=F, y=K, t=view("t", RETRY, wait_until=LATER)) == Decisions(wait_until=LATER)
    end = decided(spec, s=S, x=F, y=K, t=S).run
    assert end is not None
    assert end.reason == "fail_fast: task `x` failed"


def test_the_failure_of_a_teardown_stops_a_run_only_where_it_counts() -> None:
    def spec(counts: bool) -> DagSpec:
        return fast(task("t", teardown=True, on_failure_fail_dagrun=counts), task("b"))

    assert moves(decided(spec(False), t=F)) == {"b": SCHEDULED}
    assert moves(decided(spec(True), t=F)) == {"b": K}
    end = decided(spec(False), t=F, b=S).run
    assert end is not None
    assert end.to_state is RunState.SUCCESS


def test_a_task_that_fails_by_the_decision_itself_takes_back_what_was_decided_with_it() -> None:
    spec = fast(task("a"), task("b", when="xcom.nothing"), task("c"), task("e", operator="empty"))
    decisions = decided(spec, a=view("a", RETRY, wait_until=NOW))
    assert moves(decisions) == {"a": K, "b": F, "c": K, "e": K}
    assert legal(decisions)
    assert decisions.run is not None
    assert decisions.run.reason == "fail_fast: task `b` failed"


def test_a_soft_failure_stops_nothing() -> None:
    decisions = decided(fast(task("a", when="xcom.nothing", soft_fail=True), task("b")))
    assert moves(decisions) == {"a": K, "b": SCHEDULED}


def test_two_failures_at_once_stop_a_task_once() -> None:
    spec = fast(task("a", when="xcom.nothing"), task("b", expand={"x": "{{ 5 }}"}), task("c"))
    decisions = decided(spec, c=RUNNING)
    assert moves(decisions) == {"a": F, "b": K, "c": F}


def test_instances_of_a_mapped_task_are_stopped_each() -> None:
    spec = fast(task("m", expand={"x": [1]}), task("n", "m", expand={"x": [1]}))
    decisions = decided(
        spec, None, view("m", F, map_index=0), view("m", RUNNING, map_index=1), view("m", QUEUED, map_index=2)
    )
    assert moves(decisions) == {("m", 1): F, ("m", 2): K, "n": K}
    assert set(reasons(decisions).values()) == {"fail_fast: task `m[0]` failed"}


def test_an_instance_that_fails_by_its_when_stops_the_others_that_were_just_made() -> None:
    spec = fast(task("m", expand={"x": [1, "no number", 3]}, when="map.x > 0"))
    decisions = decided(spec)
    assert [len(one.values) for one in decisions.expansions] == [3]
    assert moves(decisions) == {("m", 0): K, ("m", 1): F, ("m", 2): K}
    assert decisions.run is not None


def test_a_mapped_teardown_is_expanded_all_the_same() -> None:
    spec = fast(
        task("s", setup=True),
        task("x", "s"),
        task("t", "s", "x", teardown=True, trigger_rule="all_done_setup_success", expand={"x": [1]}),
    )
    decisions = decided(spec, s=S, x=F)
    assert decisions.expansions == (Expansion("t", ({"x": 1},)),)
    assert moves(decisions) == {("t", 0): SCHEDULED}


# dagrun_timeout


SLOW = dag(
    task("a"),
    task("b", operator="approval"),
    task("c", "a"),
    task("t", "a", teardown=True, trigger_rule="all_done_setup_success"),
    dagrun_timeout=7200.0,
)


def after(hours: float, states: Iterable[TaskView], spec: DagSpec = SLOW) -> Decisions:
    return decide(spec, replace(RUN, started_at=NOW), states, NOW + timedelta(hours=hours), {})


@pytest.mark.parametrize("state", UNFINISHED)
def test_a_run_that_takes_too_long_is_ended(state: TaskState) -> None:
    states = views(SLOW, a=S, b=view("b", state, wait_until=NOW + timedelta(hours=9)), t=QUEUED)
    assert after(1.99, states.values()).run is None
    decisions = after(2, states.values())
    assert moves(decisions) == {"b": K, "c": K, "t": K}
    assert set(reasons(decisions).values()) == {"dagrun_timeout of 2h is over"}
    assert legal(decisions)
    assert decisions.run is not None
    assert (decisions.run.to_state, decisions.run.reason) == (RunState.FAILED, "dagrun_timeout of 2h is over")


def test_the_running_tasks_are_told_once_end_as_skipped_and_the_run_waits_for_them() -> None:
    states = views(SLOW, a=RUNNING, b=S, c=N, t=RUNNING)
    decisions = after(3, states.values())
    assert [(one.task_id, one.from_state, one.to_state) for one in decisions.tasks] == [
        ("a", RUNNING, K),
        ("c", N, K),
        ("t", RUNNING, K),
    ]
    assert (decisions.run, decisions.wait_until) == (None, None)
    told = applied(states, decisions)
    assert after(3, told.values()) == Decisions()
    ended = {key: replace(one, state=K) if one.state is RUNNING else one for key, one in told.items()}
    end = after(3, ended.values()).run
    assert end is not None
    assert (end.to_state, end.reason) == (RunState.FAILED, "dagrun_timeout of 2h is over")


def test_the_end_of_the_time_is_a_moment_to_wait_for() -> None:
    states = views(SLOW, a=RUNNING, b=view("b", RETRY, wait_until=NOW + timedelta(hours=3)))
    assert after(1, states.values()) == Decisions(wait_until=NOW + timedelta(hours=2))
    states = views(SLOW, a=RUNNING, b=view("b", RETRY, wait_until=NOW + timedelta(hours=1.5)))
    assert after(1, states.values()) == Decisions(wait_until=NOW + timedelta(hours=1.5))


def test_a_run_that_ends_in_time_ends_by_its_leaves() -> None:
    end = after(1.9, views(SLOW, a=S, b=S, c=S, t=S).values())
    assert end.run is not None
    assert end.run.to_state is RunState.SUCCESS
    assert end.wait_until is None


def test_a_run_without_a_start_or_a_timeout_never_takes_too_long() -> None:
    states = views(SLOW, a=RUNNING, b=RUNNING)
    assert decide(SLOW, RUN, states.values(), NOW + timedelta(days=9), {}) == Decisions()
    spec = replace(SLOW, dagrun_timeout=None)
    assert after(999, states.values(), spec) == Decisions()


def test_a_timeout_counts_for_more_than_a_failure() -> None:
    spec = replace(SLOW, fail_fast=True)
    decisions = after(2, views(spec, a=F, b=S, c=RUNNING, t=RUNNING).values(), spec)
    assert moves(decisions) == {"c": K, "t": K}

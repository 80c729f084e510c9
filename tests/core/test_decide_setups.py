"""What is decided about setups, teardowns, the tasks between them, and the state of a run that has them."""

from __future__ import annotations

from typing import Any

import pytest

from deciding import QUEUED, REMOVED, RUNNING, SCHEDULED, F, K, N, S, U, dag, decided, moves, reasons, task, view
from yarrow.decide import Decisions
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.states import RunState, TaskState


def setup(task_id: str, *upstream: str, **fields: Any) -> TaskSpec:
    return task(task_id, *upstream, setup=True, **fields)


def teardown(task_id: str, *upstream: str, **fields: Any) -> TaskSpec:
    fields.setdefault("trigger_rule", "all_done_setup_success")
    return task(task_id, *upstream, teardown=True, **fields)


# setup -> near -> far -> teardown, with the setup directly upstream of the teardown too; `after` comes after it.
SPEC = dag(
    setup("s"),
    task("near", "s", trigger_rule="all_done"),
    task("far", "near", trigger_rule="all_done"),
    teardown("t", "s", "far"),
    task("after", "t", trigger_rule="all_done"),
)


def test_a_task_further_down_needs_the_setup_whatever_its_trigger_rule() -> None:
    decisions = decided(SPEC, s=F, near=S)
    assert moves(decisions)["far"] is U
    assert reasons(decisions)["far"] == "setup `s` failed"
    decisions = decided(SPEC, s=K, near=S)
    assert moves(decisions)["far"] is K
    assert reasons(decisions)["far"] == "setup `s` was skipped"
    assert moves(decided(SPEC, s=S, near=S)) == {"far": SCHEDULED}


def test_a_task_directly_after_the_setup_goes_by_its_own_rule() -> None:
    assert moves(decided(SPEC, s=F))["near"] is SCHEDULED
    assert moves(decided(SPEC, s=K))["near"] is SCHEDULED


def test_a_failed_setup_ends_what_needs_it_before_its_upstream_tasks_have_ended() -> None:
    assert moves(decided(SPEC, s=F, near=RUNNING))["far"] is U


def test_a_task_that_may_run_by_its_rule_waits_for_the_setup() -> None:
    spec = dag(setup("s"), task("x", "s", trigger_rule="always"), task("y", "x"), teardown("t", "s", "y"))
    assert moves(decided(spec, s=RUNNING, x=S)) == {}
    assert moves(decided(spec, s=RUNNING, x=F)) == {"y": U}, "it ends by its rule all the same"
    assert moves(decided(spec, s=S, x=S)) == {"y": SCHEDULED}


def test_the_rule_always_asks_for_no_setup() -> None:
    spec = dag(setup("s"), task("x", "s"), task("y", "x", trigger_rule="always"), teardown("t", "s", "y"))
    assert moves(decided(spec, s=RUNNING)) == {"y": SCHEDULED}


def test_a_task_after_the_teardown_does_not_need_the_setup() -> None:
    assert moves(decided(SPEC, s=F, near=S, far=U, t=U)) == {"after": SCHEDULED}


def test_a_setup_without_a_teardown_is_needed_by_all_that_comes_after_it() -> None:
    spec = dag(
        setup("s"), task("x", "s", trigger_rule="all_done"), task("y", "x", trigger_rule="all_done"), task("z", "y")
    )
    assert spec.required_setups == {"y": ("s",), "z": ("s",)}
    assert moves(decided(spec, s=F, x=S)) == {"y": U, "z": U}


def test_several_setups_are_all_needed() -> None:
    spec = dag(
        setup("r"),
        setup("s"),
        task("x", "r", "s"),
        task("y", "x", trigger_rule="all_done"),
        teardown("t", "r", "s", "y"),
    )
    assert moves(decided(spec, r=S, s=F, x=U))["y"] is U
    assert moves(decided(spec, r=K, s=S, x=K))["y"] is K


def test_a_dag_without_setups_needs_none() -> None:
    assert dag(task("a"), task("b", "a")).required_setups == {}


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"s": S, "far": RUNNING}, None),
        ({"s": S, "far": S}, SCHEDULED),
        ({"s": S, "far": F}, SCHEDULED),
        ({"s": S, "far": U}, SCHEDULED),
        ({"s": S, "far": K}, SCHEDULED),
        ({"s": F, "far": U}, U),
        ({"s": U, "far": U}, U),
        ({"s": K, "far": K}, K),
        ({"s": REMOVED, "far": S}, U),
    ],
)
def test_a_teardown_runs_when_all_is_over_if_its_setup_succeeded(
    states: dict[str, TaskState], expected: TaskState | None
) -> None:
    spec = dag(setup("s"), task("far", "s"), teardown("t", "s", "far"), task("other"))
    assert moves(decided(spec, other=QUEUED, **states)).get("t") is expected


def test_the_reason_of_a_teardown_that_does_not_run() -> None:
    spec = dag(setup("s"), teardown("t", "s"))
    assert reasons(decided(spec, s=F)) == {"t": "no setup of it succeeded"}
    assert reasons(decided(spec, s=K)) == {"t": "all setups of it were skipped"}


def test_one_of_several_setups_is_enough_for_a_teardown() -> None:
    spec = dag(setup("r"), setup("s"), teardown("t", "r", "s"))
    assert moves(decided(spec, r=F, s=S)) == {"t": SCHEDULED}
    assert moves(decided(spec, r=F, s=K)) == {"t": U}


def test_a_teardown_without_a_setup_runs_when_all_is_over() -> None:
    spec = dag(task("x"), teardown("t", "x"))
    assert moves(decided(spec, x=F)) == {"t": SCHEDULED}
    assert moves(decided(spec, x=RUNNING)) == {}


def test_a_setup_or_teardown_with_another_rule_goes_by_it() -> None:
    spec = dag(setup("s"), teardown("t", "s", trigger_rule="all_success"))
    assert moves(decided(spec, s=F)) == {"t": U}


def test_neither_a_branch_nor_a_short_circuit_skips_a_teardown() -> None:
    for operator in ("branch", "short_circuit"):
        spec = dag(setup("s"), task("c", "s", operator=operator), task("x", "c"), teardown("t", "s", "c", "x"))
        decisions = decided(spec, s=S, c=view("c", S, follow=()))
        assert moves(decisions) == {"x": K, "t": SCHEDULED}


def test_within_a_mapped_group_setups_and_teardowns_are_those_of_the_same_index() -> None:
    each: Any = {"expand": {"x": [1, 2]}, "map_group": "g"}
    spec = dag(
        setup("g.s", **each),
        task("g.x", "g.s", trigger_rule="all_done", **each),
        task("g.y", "g.x", trigger_rule="all_done", **each),
        teardown("g.t", "g.s", "g.y", **each),
    )
    decisions = decided(spec, g__s=[S, F], g__x=[S, S], g__y=[N, N], g__t=[N, N])
    assert moves(decisions) == {("g.y", 0): SCHEDULED, ("g.y", 1): U, ("g.t", 1): U}
    assert reasons(decisions)["g.y", 1] == "setup `g.s[1]` failed"


def test_a_mapped_setup_outside_counts_one_by_one() -> None:
    spec = dag(
        setup("s", expand={"x": [1, 2]}),
        task("x", "s", trigger_rule="all_done"),
        task("y", "x", trigger_rule="all_done"),
        teardown("t", "s", "y"),
    )
    assert moves(decided(spec, s=[S, F], x=S)) == {"y": U, "t": SCHEDULED}


# The state of a run.


def run_state(spec: DagSpec, **states: Any) -> tuple[RunState, str | None]:
    decisions = decided(spec, **states)
    assert decisions.run is not None
    return decisions.run.to_state, decisions.run.reason


def test_a_teardown_is_no_leaf_and_the_task_before_it_is_one() -> None:
    assert SPEC.effective_leaves == ("far", "after")
    spec = dag(setup("s"), task("x", "s"), teardown("t", "s", "x"))
    assert spec.effective_leaves == ("x",)
    assert run_state(spec, s=S, x=S, t=F) == (RunState.SUCCESS, None)
    assert run_state(spec, s=S, x=F, t=S) == (RunState.FAILED, "task `x` failed")
    assert run_state(spec, s=S, x=F, t=F) == (RunState.FAILED, "task `x` failed")


def test_a_teardown_whose_failure_counts_is_a_leaf() -> None:
    spec = dag(setup("s"), task("x", "s"), teardown("t", "s", "x", on_failure_fail_dagrun=True))
    assert spec.effective_leaves == ("t",)
    assert run_state(spec, s=S, x=S, t=F) == (RunState.FAILED, "task `t` failed")
    assert run_state(spec, s=S, x=F, t=S) == (RunState.SUCCESS, None)


def test_a_run_of_nothing_but_teardowns_goes_by_the_last_of_them() -> None:
    spec = dag(teardown("t"), teardown("u", "t"))
    assert spec.effective_leaves == ("u",)
    assert run_state(spec, t=F, u=S) == (RunState.SUCCESS, None)
    assert run_state(spec, t=S, u=F) == (RunState.FAILED, "task `u` failed")


def test_a_run_may_go_by_all_tasks() -> None:
    tasks = (task("a"), task("b", "a", trigger_rule="all_done"))
    assert run_state(dag(*tasks), a=F, b=S) == (RunState.SUCCESS, None)
    assert run_state(dag(*tasks, run_state="all_tasks"), a=F, b=S) == (RunState.FAILED, "task `a` failed")
    assert run_state(dag(*tasks, run_state="all_tasks"), a=U, b=S) == (RunState.FAILED, "task `a` could not run")
    assert run_state(dag(*tasks, run_state="all_tasks"), a=K, b=S) == (RunState.SUCCESS, None)
    assert run_state(dag(*tasks, run_state="all_tasks"), a=REMOVED, b=S) == (RunState.SUCCESS, None)


def test_all_tasks_are_those_whose_failure_counts() -> None:
    ignored = dag(setup("s"), teardown("t", "s"), run_state="all_tasks")
    assert run_state(ignored, s=S, t=F) == (RunState.SUCCESS, None)
    assert run_state(ignored, s=F, t=F) == (RunState.FAILED, "task `s` failed")
    counted = dag(setup("s"), teardown("t", "s", on_failure_fail_dagrun=True), run_state="all_tasks")
    assert run_state(counted, s=S, t=F) == (RunState.FAILED, "task `t` failed")


def test_a_removed_leaf_does_not_decide() -> None:
    assert run_state(dag(task("a"), task("b")), a=S, b=REMOVED) == (RunState.SUCCESS, None)


def test_a_run_with_a_teardown_goes_on_until_it_has_ended() -> None:
    spec = dag(setup("s"), task("x", "s"), teardown("t", "s", "x"))
    assert decided(spec, s=S, x=F, t=RUNNING) == Decisions()

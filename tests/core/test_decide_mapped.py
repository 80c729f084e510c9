"""What is decided about mapped tasks: how they become several instances, and who sees which of them."""

from __future__ import annotations

from collections.abc import Callable
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
    reasons,
    task,
    view,
    views,
)
from yarrow.decide import Decisions, Expansion, TaskDecision, decide
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.states import RunState, TaskState


def mapped(task_id: str, *upstream: str, over: object = "{{ xcom.a }}", **fields: Any) -> TaskSpec:
    fields.setdefault("expand", {"x": over})
    return task(task_id, *upstream, expand_xcoms=("a",) if over == "{{ xcom.a }}" else (), **fields)


SPEC = dag(task("a"), mapped("m", "a"), task("z", "m"))


def settled(spec: DagSpec, xcoms: dict[Any, Any], decisions: Decisions, **states: Any) -> bool:
    """Whether nothing is left to decide when it has been carried out."""
    after = applied(views(spec, **states), decisions).values()
    found = {name if isinstance(name, tuple) else (name, -1): value for name, value in xcoms.items()}
    again = decide(spec, RUN, after, NOW, found)
    return again.tasks == () and again.expansions == ()


# A task of its own.


def test_a_mapped_task_becomes_an_instance_for_each_value_and_they_are_scheduled_at_once() -> None:
    decisions = decided(SPEC, {"a": ["p", "q"]}, a=S)
    assert decisions.expansions == (Expansion("m", ({"x": "p"}, {"x": "q"})),)
    assert decisions.tasks == (
        TaskDecision("m", N, SCHEDULED, map_index=0),
        TaskDecision("m", N, SCHEDULED, map_index=1),
    )
    assert settled(SPEC, {"a": ["p", "q"]}, decisions, a=S)


def test_a_mapped_task_waits_for_its_trigger_rule_as_one_instance() -> None:
    assert decided(SPEC, a=RUNNING) == Decisions()
    assert moves(decided(SPEC, a=F)) == {"m": U, "z": U}
    assert moves(decided(SPEC, a=K)) == {"m": K, "z": K}


def test_a_cross_product_changes_its_first_name_slowest() -> None:
    spec = dag(task("m", expand={"x": [1, 2], "y": "{{ [params.limit, 6] }}"}))
    (expansion,) = decided(spec).expansions
    assert [(value["x"], value["y"]) for value in expansion.values] == [(1, 5), (1, 6), (2, 5), (2, 6)]


def test_a_template_within_a_literal_list_is_rendered() -> None:
    (expansion,) = decided(dag(mapped("m", over=["{{ ds }}", "x"]))).expansions
    assert expansion.values == ({"x": "2026-01-01"}, {"x": "x"})


def test_an_empty_expansion_is_a_skip() -> None:
    decisions = decided(SPEC, {"a": []}, a=S)
    assert (decisions.expansions, moves(decisions)) == ((), {"m": K, "z": K})
    assert reasons(decisions)["m"] == "`expand` is empty"


@pytest.mark.parametrize(
    ("xcoms", "limit", "sentence"),
    [
        ({"a": 5}, 9, "`expand.x` is 5, which is no list."),
        ({"a": "abc"}, 9, "`expand.x` is 'abc', which is no list."),
        ({"a": [1, 2, 3]}, 2, "`expand` gives 3 task instances, more than `max_map_length` (2) allows."),
        ({}, 9, "`expand.x` can't be evaluated: `xcom.a`: there is no XCom of that task."),
    ],
)
def test_what_can_not_be_expanded_fails_with_a_sentence(xcoms: dict[str, Any], limit: int, sentence: str) -> None:
    spec = dag(task("a"), mapped("m", "a", max_map_length=limit))
    decisions = decided(spec, xcoms, a=S)
    assert (decisions.expansions, moves(decisions)) == ((), {"m": F})
    assert (reasons(decisions)["m"] or "").startswith(sentence)


def test_no_more_instances_than_max_map_length_are_fine() -> None:
    spec = dag(task("a"), mapped("m", "a", max_map_length=2))
    assert moves(decided(spec, {"a": [1, 2]}, a=S)) == {("m", 0): SCHEDULED, ("m", 1): SCHEDULED}


def test_a_when_that_does_not_name_map_is_asked_before_the_expansion() -> None:
    spec = dag(task("a"), mapped("m", "a", when="params.limit > 9"))
    decisions = decided(spec, {"a": [1, 2]}, a=S)
    assert (decisions.expansions, moves(decisions)) == ((), {"m": K})
    spec = dag(task("a"), mapped("m", "a", when="params.limit == 5"))
    assert moves(decided(spec, {"a": [1]}, a=S)) == {("m", 0): SCHEDULED}


def test_a_when_that_names_map_is_asked_for_each_instance() -> None:
    spec = dag(task("a"), mapped("m", "a", when="map.x > 1"))
    decisions = decided(spec, {"a": [1, 2, "no number"]}, a=S)
    assert moves(decisions) == {("m", 0): K, ("m", 1): SCHEDULED, ("m", 2): F}
    assert reasons(decisions)["m", 0] == "`when` is false: `map.x > 1`"


def test_an_empty_task_that_is_mapped_succeeds_each() -> None:
    spec = dag(mapped("m", over=[1, 2], operator="empty"), task("z", "m"))
    decisions = decided(spec)
    assert moves(decisions) == {("m", 0): S, ("m", 1): S, "z": SCHEDULED}
    assert settled(spec, {}, decisions)


def test_an_instance_that_was_cleared_starts_alone() -> None:
    assert moves(decided(SPEC, a=S, m=[S, N, S])) == {("m", 1): SCHEDULED}
    assert moves(decided(SPEC, a=F, m=[S, N])) == {("m", 1): U, "z": U}


def test_a_retry_is_that_of_its_instance() -> None:
    retry = view("m", TaskState.UP_FOR_RETRY, map_index=1, wait_until=NOW)
    decisions = decided(SPEC, None, view("m", RUNNING, map_index=0), retry, a=S)
    assert decisions.tasks == (TaskDecision("m", TaskState.UP_FOR_RETRY, SCHEDULED, map_index=1),)


# What comes after it.


@pytest.mark.parametrize(
    ("rule", "states", "expected"),
    [
        ("all_success", [S, RUNNING], None),
        ("all_success", [S, S], SCHEDULED),
        ("all_success", [RUNNING, F], U),
        ("all_success", [S, K], K),
        ("none_failed", [S, K], SCHEDULED),
        ("one_success", [S, RUNNING], SCHEDULED),
        ("one_failed", [RUNNING, F], SCHEDULED),
        ("all_done", [F, RUNNING], None),
        ("all_done", [F, S], SCHEDULED),
        ("all_failed", [F, F], SCHEDULED),
        ("all_failed", [F, S], K),
        ("all_success", [S, REMOVED], None),
    ],
)
def test_a_trigger_rule_counts_the_instances_one_by_one(
    rule: str, states: list[TaskState], expected: TaskState | None
) -> None:
    spec = dag(mapped("m", over=[1, 2]), task("z", "m", trigger_rule=rule), task("other"))
    found = decided(spec, m=states, other=RUNNING)
    assert moves(found) == ({} if expected is None else {"z": expected})


def test_the_instance_is_named_that_decided() -> None:
    spec = dag(mapped("m", over=[1, 2]), task("z", "m"))
    assert reasons(decided(spec, m=[S, F])) == {"z": "upstream task `m[1]` failed"}


def test_a_mapped_task_that_has_not_been_expanded_has_not_ended() -> None:
    spec = dag(task("a"), mapped("m", "a"), task("z", "m", trigger_rule="all_done"))
    assert decided(spec, a=RUNNING) == Decisions()


def test_the_xcom_of_a_mapped_task_is_the_list_of_those_of_its_instances() -> None:
    spec = dag(
        mapped("m", over=[1, 2, 3]), mapped("n", "m", over="{{ xcom.m }}"), task("z", "m", when="xcom.m == [7, 9]")
    )
    decisions = decided(spec, {("m", 2): 9, ("m", 0): 7}, m=[S, S, S])
    assert decisions.expansions == (Expansion("n", ({"x": 7}, {"x": 9})),)
    assert moves(decisions) == {("n", 0): SCHEDULED, ("n", 1): SCHEDULED, "z": SCHEDULED}


def test_a_mapped_task_without_xcoms_is_seen_as_an_empty_list() -> None:
    spec = dag(mapped("m", over=[1]), task("z", "m", when="xcom.m == []"))
    assert moves(decided(spec, m=[S])) == {"z": SCHEDULED}


# Mapped groups.


def member(task_id: str, *upstream: str, **fields: Any) -> TaskSpec:
    return mapped(task_id, *upstream, map_group="g", **fields)


GROUP = dag(task("a"), member("g.p", "a"), member("g.q", "g.p"), task("z", "g.q"))


def test_the_tasks_of_a_mapped_group_are_expanded_together() -> None:
    decisions = decided(GROUP, {"a": ["p", "q"]}, a=S)
    values = ({"x": "p"}, {"x": "q"})
    assert decisions.expansions == (Expansion("g.p", values), Expansion("g.q", values))
    assert moves(decisions) == {("g.p", 0): SCHEDULED, ("g.p", 1): SCHEDULED}
    assert settled(GROUP, {"a": ["p", "q"]}, decisions, a=S)


def test_a_mapped_group_waits_for_the_xcoms_of_its_expand_alone() -> None:
    spec = dag(task("a"), task("b"), member("g.p", "b"), member("g.q", "g.p"))
    assert decided(spec, a=RUNNING, b=S) == Decisions()
    decisions = decided(spec, {"a": [1]}, a=S, b=RUNNING)
    assert [one.task_id for one in decisions.expansions] == ["g.p", "g.q"]
    assert moves(decisions) == {}


def test_a_mapped_group_over_a_list_is_expanded_at_once() -> None:
    spec = dag(member("g.p", over=[1, 2]), member("g.q", "g.p", over=[1, 2]))
    assert moves(decided(spec)) == {("g.p", 0): SCHEDULED, ("g.p", 1): SCHEDULED}


@pytest.mark.parametrize(("source", "expected"), [(F, U), (U, U), (K, K)])
def test_a_mapped_group_ends_with_the_task_over_whose_xcom_it_is_mapped(source: TaskState, expected: TaskState) -> None:
    spec = dag(task("a"), member("g.p", "a", trigger_rule="always"), member("g.q", "g.p", trigger_rule="all_done"))
    decisions = decided(spec, a=source)
    assert (decisions.expansions, moves(decisions)) == ((), {"g.p": expected, "g.q": expected})
    verb = {F: "failed", U: "could not run", K: "was skipped"}[source]
    assert set(reasons(decisions).values()) == {f"`expand`: task `a` {verb}"}


def test_a_mapped_group_over_a_mapped_task_wants_all_of_its_instances() -> None:
    spec = dag(mapped("a", over=[1, 2]), member("g.p", "a"))
    xcoms = {("a", 0): 10, ("a", 1): 20}
    assert moves(decided(spec, xcoms, a=[S, RUNNING])) == {}
    assert moves(decided(spec, xcoms, a=[F, RUNNING])) == {}
    assert moves(decided(spec, xcoms, a=[F, S])) == {"g.p": U}
    assert moves(decided(spec, xcoms, a=[K, S])) == {"g.p": K}
    assert decided(spec, xcoms, a=[S, S]).expansions == (Expansion("g.p", ({"x": 10}, {"x": 20})),)


def test_an_empty_group_is_skipped_and_a_faulty_one_fails() -> None:
    assert moves(decided(GROUP, {"a": []}, a=S)) == {"g.p": K, "g.q": K, "z": K}
    decisions = decided(GROUP, {"a": 5}, a=S)
    assert moves(decisions) == {"g.p": F, "g.q": F, "z": U}
    assert reasons(decisions)["g.q"] == "`expand.x` is 5, which is no list."


def test_an_instance_of_a_group_sees_its_own_index_and_those_outside_see_all() -> None:
    states = {"a": S, "g__p": [S, F, RUNNING], "g__q": [N, N, N]}
    decisions = decided(GROUP, {"a": [1, 2, 3]}, **states)
    assert moves(decisions) == {("g.q", 0): SCHEDULED, ("g.q", 1): U, "z": U}
    assert reasons(decisions)["g.q", 1] == "upstream task `g.p[1]` failed"
    assert reasons(decisions)["z"] == "upstream task `g.q[1]` could not run"
    both = reasons(decided(GROUP, {"a": [1, 2]}, a=S, g__p=[F, F], g__q=[N, N]))
    assert both["g.q", 1] == "upstream task `g.p[1]` failed", "not the first of all, but the one that it sees"


def test_an_instance_of_a_group_sees_all_instances_of_a_mapped_task_outside() -> None:
    spec = dag(mapped("m", over=[1, 2]), member("g.p", "m", over=[1, 2]))
    assert moves(decided(spec, m=[S, RUNNING], g__p=[N, N])) == {}
    assert moves(decided(spec, m=[S, S], g__p=[N, N])) == {("g.p", 0): SCHEDULED, ("g.p", 1): SCHEDULED}


def test_a_removed_upstream_instance_holds_no_mapped_instance_up() -> None:
    for rule in ("all_success", "none_failed", "none_failed_min_one_success"):
        spec = dag(mapped("m", over=[1, 2]), member("g.p", "m", over=[1], trigger_rule=rule))
        assert moves(decided(spec, m=[S, REMOVED], g__p=[N])) == {("g.p", 0): SCHEDULED}
    spec = dag(mapped("m", over=[1, 2]), member("g.p", "m", over=[1], trigger_rule="all_failed"))
    assert moves(decided(spec, m=[F, REMOVED], g__p=[N])) == {("g.p", 0): SCHEDULED}


def test_an_instance_of_a_group_sees_the_xcom_of_its_own_index() -> None:
    spec = dag(
        member("g.p", over=[1, 2]),
        member("g.q", "g.p", over=[1, 2], when="xcom.g.p == map.x * 10"),
        task("z", "g.p", when="xcom.g.p == [0, 20]"),
    )
    decisions = decided(
        spec,
        {("g.p", 0): 0, ("g.p", 1): 20},
        view("g.p", S, map_index=0),
        view("g.p", S, map_index=1),
        view("g.q", N, map_index=0, map_value={"x": 1}),
        view("g.q", N, map_index=1, map_value={"x": 2}),
    )
    assert moves(decisions) == {("g.q", 0): K, ("g.q", 1): SCHEDULED, "z": SCHEDULED}


def test_a_branch_in_a_mapped_group_chooses_for_its_own_instance() -> None:
    spec = dag(
        member("g.b", over=[1, 2], operator="branch"),
        member("g.x", "g.b", over=[1, 2]),
        member("g.y", "g.b", over=[1, 2]),
    )
    decisions = decided(
        spec,
        None,
        view("g.b", S, map_index=0, follow=("g.x",)),
        view("g.b", S, map_index=1, follow=("g.y",)),
        g__x=[N, N],
        g__y=[N, N],
    )
    assert moves(decisions) == {("g.x", 0): SCHEDULED, ("g.y", 0): K, ("g.x", 1): K, ("g.y", 1): SCHEDULED}


def test_a_short_circuit_in_a_mapped_group_cuts_off_its_own_instance_within_the_group() -> None:
    spec = dag(
        member("g.s", over=[1, 2], operator="short_circuit"),
        member("g.x", "g.s", over=[1, 2], trigger_rule="all_done"),
        member("g.y", "g.x", over=[1, 2], trigger_rule="all_done"),
        task("z", "g.s", trigger_rule="all_done"),
    )
    decisions = decided(
        spec, None, view("g.s", S, map_index=0, follow=()), view("g.s", RUNNING, map_index=1), g__x=[N, N], g__y=[N, N]
    )
    assert moves(decisions) == {("g.x", 0): K, ("g.y", 0): K}
    after = decided(
        spec, None, view("g.s", S, map_index=0, follow=()), view("g.s", S, map_index=1), g__x=[K, S], g__y=[K, S]
    )
    assert moves(after) == {"z": SCHEDULED}


def test_a_choice_outside_skips_all_instances_and_what_is_not_expanded_yet() -> None:
    spec = dag(
        task("c", operator="branch"), task("a"), mapped("m", "c", over=[1, 2]), member("g.p", "c"), member("g.q")
    )
    chose = view("c", S, follow=())
    assert moves(decided(spec, {"a": [1]}, chose, a=RUNNING)) == {"m": K, "g.p": K}
    assert moves(decided(spec, {"a": [1]}, chose, a=RUNNING, m=[S, N], g__p=[N, N])) == {
        ("m", 1): K,
        ("g.p", 0): K,
        ("g.p", 1): K,
    }


def test_a_member_that_was_skipped_before_stands_for_every_index() -> None:
    spec = dag(
        task("c", operator="branch"), task("a"), member("g.p", "c"), member("g.q", "g.p", trigger_rule="none_failed")
    )
    decisions = decided(spec, {"a": [1, 2]}, view("c", S, follow=()), a=S, g__p=K)
    assert decisions.expansions == (Expansion("g.q", ({"x": 1}, {"x": 2})),)
    assert moves(decisions) == {("g.q", 0): SCHEDULED, ("g.q", 1): SCHEDULED}


# The end.


def test_a_run_ends_when_every_instance_has_and_its_leaves_are_all_instances() -> None:
    spec = dag(mapped("m", over=[1, 2]))
    assert decided(spec, m=[S, QUEUED]).run is None
    good, bad = decided(spec, m=[S, K]).run, decided(spec, m=[S, F]).run
    assert good is not None
    assert good.to_state is RunState.SUCCESS
    assert bad is not None
    assert (bad.to_state, bad.reason) == (RunState.FAILED, "task `m[1]` failed")


def test_a_deadlock_over_instances_is_named() -> None:
    spec = dag(mapped("m", over=[1]), member("g.p", "m", over=[1, 2]), mapped("n", "m", over=[1]))
    decisions = decided(spec, m=[REMOVED], g__p=[N, S])
    assert moves(decisions) == {("g.p", 0): SCHEDULED}  # it is mapped, and a removed one does not hold it up
    decisions = decided(spec, m=[REMOVED], g__p=[S, S])
    assert moves(decisions) == {"n": U}
    assert decisions.run is not None
    assert decisions.run.reason == "deadlock: nothing runs, and task `n` can never run"


def test_instances_of_tasks_that_the_dag_does_not_have_are_left_alone() -> None:
    spec = dag(mapped("m", over=[1]))
    everything = [*views(spec, m=[S]).values(), view("gone", F), view("lost", RUNNING, map_index=0)]
    decisions = decide(spec, RUN, everything, NOW, {("gone", -1): 1})
    assert decisions.tasks == ()
    assert decisions.run is not None
    assert decisions.run.to_state is RunState.SUCCESS


@pytest.mark.parametrize("shape", ["own", "group", "inside"])
def test_the_work_grows_with_the_instances_and_not_faster(
    shape: str, calls: Callable[[Callable[[], object]], int]
) -> None:
    def work(size: int) -> int:
        values: list[Any] = list(range(size))
        if shape == "own":
            spec = dag(task("a"), mapped("m", "a", when="map.x >= 0", max_map_length=size), task("z", "m"))
            states = views(spec, a=S)
        elif shape == "group":
            spec = dag(
                task("a"), *(member(f"g.p{n}", *([f"g.p{n - 1}"] if n else []), max_map_length=size) for n in range(4))
            )
            states = views(spec, a=S)
        else:
            spec = dag(mapped("m", over=values), member("g.s", "m", over=values, operator="short_circuit"),
                       member("g.p", "g.s", "m", over=values), task("z", "g.p"))  # fmt: skip
            gates = [view("g.s", S, map_index=n, follow=() if n % 2 else None) for n in range(size)]
            states = views(spec, *gates, m=[S] * size, g__p=[N] * size)
        xcoms = {("a", -1): values}
        decide(spec, RUN, states.values(), NOW, xcoms)
        return calls(lambda: decide(spec, RUN, states.values(), NOW, xcoms))

    assert work(1_000) < 12 * work(100), "ten times the instances"

"""Explanations by example: what the property does not look at, their words and their numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from deciding import NOW, REMOVED, RUN, F, K, N, S, dag, task, view, views
from yarrow.decide import PastView
from yarrow.explaining.explain import explain, root_of
from yarrow.explaining.explanation import Explanation
from yarrow.explaining.facts import Circumstances, InstanceFacts
from yarrow.explaining.words import countdown, due, listed, ordinal
from yarrow.language.spec import DagSpec
from yarrow.states import RunState, TaskState


def circumstances(spec: DagSpec, task_id: str, **states: Any) -> Circumstances:
    found = views(spec, **states)
    one = found[task_id, -1]
    return Circumstances(
        now=NOW,
        spec=spec,
        run=RUN,
        run_reason=None,
        run_ended_at=None,
        is_paused=False,
        schedulers=1,
        views=tuple(found.values()),
        xcoms={},
        past=None,
        instance=InstanceFacts(task_id, -1, one.state, "default", wait_until=one.wait_until),
    )


def explained(given: Circumstances) -> Explanation:
    """With the root of what it waits for, as the store does it."""
    root = root_of(given)
    if root is None:
        return explain(given)
    found = next(one for one in given.views if (one.task_id, one.map_index) == root)
    facts = InstanceFacts(*root, found.state, "default", wait_until=found.wait_until)
    return explain(replace(given, root=facts))


def facts(found: Explanation, name: str) -> Mapping[str, Any]:
    return next(check.facts for check in found.checks if check.name == name)


def test_a_deadlock_is_told_with_the_states_before_it() -> None:
    spec = dag(task("a"), task("b", "a"), task("c", "b"))
    found = explained(circumstances(spec, "c", a=REMOVED))
    assert found.next_state is TaskState.UPSTREAM_FAILED
    assert found.summary == "`c` can't run: nothing runs any more: deadlock: its trigger rule can never be met."
    assert facts(found, "trigger_rule")["states"] == {"none": 1}


def test_what_its_run_has_no_more_tells_nothing_of_its_last_try() -> None:
    given = circumstances(dag(task("a")), "a", a=REMOVED)
    gone = InstanceFacts("a", -1, TaskState.REMOVED, "default", 1, 1, reason="Cleared by ada.", ended_at=NOW)
    found = explained(replace(given, instance=gone))
    assert found.summary == "`a` is no part of its run any more: Cleared by ada."


def test_a_trigger_rule_counts_its_upstream_tasks() -> None:
    spec = dag(task("a"), task("b"), task("c"), task("d", "a", "b", "c", trigger_rule="all_done"))
    found = explained(circumstances(spec, "d", a=S, b=F, c=TaskState.RUNNING))
    check = next(check for check in found.checks if check.name == "trigger_rule")
    assert check.passed is False
    assert check.sentence == "Trigger rule `all_done` over 3 upstream tasks: 1 success, 1 failed, 1 running."
    assert check.facts["states"] == {"success": 1, "failed": 1, "running": 1}
    assert list(check.facts["upstream"]) == ["b", "c", "a"]
    assert found.summary == "`d` waits for its upstream task `c`, which runs."


def test_of_several_roots_the_one_that_holds_things_up_most_is_named() -> None:
    spec = dag(task("a"), task("b"), task("c", "a"), task("d", "b", "c"))
    given = circumstances(spec, "d", a=view("a", TaskState.UP_FOR_RETRY, wait_until=NOW + timedelta(seconds=9)))
    given = replace(given, views=[one if one.task_id != "b" else view("b", TaskState.RUNNING) for one in given.views])
    assert root_of(given) == ("a", -1)


def test_when_is_told_before_its_turn_if_it_can_be() -> None:
    spec = dag(
        task("a"),
        task("b", "a", when="params.limit > 9"),
        task("c", "a", when="xcom.a > 9", when_xcoms=("a",)),
    )
    early = explained(circumstances(spec, "b", a=TaskState.RUNNING))
    assert (early.next_state, early.checks[-1].name, early.checks[-1].passed) == (None, "when", False)
    assert early.summary.startswith("`b` waits for its upstream task `a`")
    late = explained(circumstances(spec, "c", a=TaskState.RUNNING))
    assert (late.checks[-1].passed, "when `a` has ended" in late.checks[-1].sentence) == (None, True)
    skipped = explained(circumstances(spec, "b", a=S))
    assert skipped.summary == "`b` is skipped: `when` is false: `params.limit > 9`."


def test_the_run_before() -> None:
    spec = dag(task("a", depends_on_past=True))
    given = circumstances(spec, "a")
    assert all(check.passed for check in explained(given).checks)
    found = explained(replace(given, past=PastView("r0", {"a": [F]})))
    assert found.failing is not None
    assert (found.failing.name, found.failing.facts) == ("past", {"run_before": "r0"})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schedulers": 0}, "waits for a scheduler: none is running"),
        (
            {"run": replace(RUN, state=RunState.FAILED), "run_reason": "task `x` failed"},
            "is not decided on any more: its run ended as failed: task `x` failed",
        ),
        (
            {"quarantine_until": NOW + timedelta(seconds=75), "run_reason": "KeyError"},
            "waits for its run to be decided on again, in 01:15: that went wrong (KeyError)",
        ),
    ],
)
def test_what_comes_before_the_task_comes_first(changes: Mapping[str, Any], words: str) -> None:
    spec = dag(task("a"), task("b", "a"))
    found = explained(replace(circumstances(spec, "b", a=K), **changes))
    assert found.summary == f"`b` {words}."
    assert found.next_state is (TaskState.SKIPPED if "schedulers" in changes else None)


def test_the_json_form_is_plain() -> None:
    spec = dag(task("a"), task("b", "a"))
    data = explained(circumstances(spec, "b", a=N)).to_json()
    assert (data["task_id"], data["state"], data["at"]) == ("b", "none", NOW.isoformat())
    assert [set(check) for check in data["checks"]] == [{"name", "passed", "sentence", "facts"}] * len(data["checks"])


def test_words() -> None:
    assert [countdown(seconds) for seconds in (-3, 12, 75, 3723, 3 * 86400 + 4)] == [
        "00:00",
        "00:12",
        "01:15",
        "1:02:03",
        "3 d 00:00:04",
    ]
    assert [ordinal(number) for number in (1, 2, 3, 4, 11, 22, 113, 1001)] == [
        "1st",
        "2nd",
        "3rd",
        "4th",
        "11th",
        "22nd",
        "113th",
        "1,001st",
    ]
    assert (listed(["a"]), listed(["a", "b"]), listed(["a"], 3)) == ("a", "a and b", "a and 3 more")
    assert due(NOW - timedelta(seconds=1), NOW) == "due now"

"""Every trigger rule: a table of the cases that matter, and all combinations of upstream states by brute force."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest

from yarrow.decision.trigger_rules import TEARDOWN_RULE, TRIGGER_RULES, Counts, Verdict, judge
from yarrow.language import grammar
from yarrow.language.containers import Field
from yarrow.language.scalars import Enum
from yarrow.states import TaskState

STATES = {
    "S": TaskState.SUCCESS,
    "k": TaskState.SKIPPED,
    "F": TaskState.FAILED,
    "U": TaskState.UPSTREAM_FAILED,
    "R": TaskState.REMOVED,
    ".": None,  # not done yet
}

WAIT, RUN, SKIP, UPF = Verdict.WAIT, Verdict.RUN, Verdict.SKIP, Verdict.UPSTREAM_FAILED


def counts_of(states: str) -> Counts:
    count = Counter(states)
    return Counts(len(states), count["S"], count["k"], count["F"], count["U"], count["R"])


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("all_success", {"SS": RUN, "S.": WAIT, "F.": UPF, "U.": UPF, "k.": SKIP, "kF": UPF}),
        ("all_failed", {"FU": RUN, "F.": WAIT, "S.": SKIP, "k.": SKIP, "FS": SKIP}),
        ("all_done", {"SF": RUN, "kU": RUN, "F.": WAIT, "R.": WAIT, "RR": RUN}),
        ("all_done_min_one_success", {"SF": RUN, "k.": SKIP, "Sk": SKIP, "FU": UPF, "F.": WAIT, "S.": WAIT}),
        ("all_skipped", {"kk": RUN, "k.": WAIT, "S.": SKIP, "F.": SKIP, "U.": SKIP}),
        ("one_failed", {"F.": RUN, "U.": RUN, "S.": WAIT, "SS": SKIP, "kk": SKIP}),
        ("one_success", {"S.": RUN, "F.": WAIT, "kk": SKIP, "Fk": UPF, "FF": UPF}),
        ("one_done", {"S.": RUN, "F.": RUN, "k.": WAIT, "U.": WAIT, "kU": SKIP}),
        ("none_failed", {"Sk": RUN, "kk": RUN, "S.": WAIT, "F.": UPF, "U.": UPF}),
        ("none_failed_min_one_success", {"Sk": RUN, "kk": SKIP, "k.": WAIT, "F.": UPF, "SS": RUN}),
        ("none_skipped", {"SF": RUN, "k.": SKIP, "S.": WAIT, "UF": RUN}),
        ("always", {"..": RUN, "FF": RUN, "kk": RUN}),
    ],
)  # fmt: skip
def test_the_table(rule: str, expected: dict[str, Verdict]) -> None:
    assert {states: judge(rule, counts_of(states)).verdict for states in expected} == expected


def oracle(rule: str, upstream: list[TaskState | None]) -> Verdict:
    """The rules as sentences about the upstream tasks."""
    good, skipped = TaskState.SUCCESS, TaskState.SKIPPED
    bad = (TaskState.FAILED, TaskState.UPSTREAM_FAILED)
    done = None not in upstream
    any_bad = any(state in bad for state in upstream)
    if not upstream or rule == "always":
        return RUN
    early = {
        "all_success": UPF if any_bad else SKIP if skipped in upstream else None,
        "all_failed": SKIP if good in upstream or skipped in upstream else None,
        "all_done_min_one_success": SKIP if skipped in upstream else None,
        "all_skipped": SKIP if good in upstream or any_bad else None,
        "none_failed": UPF if any_bad else None,
        "none_failed_min_one_success": UPF if any_bad else None,
        "none_skipped": SKIP if skipped in upstream else None,
        "one_failed": RUN if any_bad else None,
        "one_success": RUN if good in upstream else None,
        "one_done": RUN if good in upstream or TaskState.FAILED in upstream else None,
    }.get(rule)
    if early is not None:
        return early
    if not done:
        return WAIT
    return {
        "all_success": RUN if all(state is good for state in upstream) else WAIT,
        "all_failed": RUN if all(state in bad for state in upstream) else WAIT,
        "all_done": RUN,
        "all_done_min_one_success": RUN if good in upstream else UPF,
        "all_skipped": RUN if all(state is skipped for state in upstream) else WAIT,
        "one_failed": SKIP,
        "one_success": SKIP if all(state is skipped for state in upstream) else UPF,
        "one_done": SKIP,
        "none_failed": RUN if all(state in (good, skipped) for state in upstream) else WAIT,
        "none_failed_min_one_success": (
            SKIP if all(state is skipped for state in upstream)
            else RUN if all(state in (good, skipped) for state in upstream) else WAIT
        ),
        "none_skipped": RUN,
    }[rule]  # fmt: skip


@pytest.mark.parametrize("rule", sorted(TRIGGER_RULES))
def test_every_combination_of_up_to_five_upstream_tasks(rule: str) -> None:
    for size in range(6):
        for states in itertools.combinations_with_replacement(STATES, size):
            expected = oracle(rule, [STATES[letter] for letter in states])
            assert judge(rule, counts_of("".join(states))).verdict == expected, (rule, states)


@pytest.mark.parametrize("rule", sorted(TRIGGER_RULES))
def test_no_rule_waits_for_ever(rule: str) -> None:
    for size in range(1, 6):
        for states in itertools.combinations_with_replacement("SkFU", size):
            judgement = judge(rule, counts_of("".join(states)))
            assert judgement.verdict is not WAIT
            assert judgement.reason


def test_there_are_twelve_rules() -> None:
    assert len(TRIGGER_RULES) == 12


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("all_success", {"SR": RUN, "RR": RUN, ".R": WAIT, "FR": UPF, "kR": SKIP}),
        ("all_failed", {"FR": RUN, ".R": WAIT, "SR": SKIP}),
        ("none_failed", {"SR": RUN, "kR": RUN, ".R": WAIT, "FR": UPF}),
        ("none_failed_min_one_success", {"SR": RUN, "kR": RUN, "kk": SKIP, ".R": WAIT}),
        ("all_skipped", {"kR": WAIT, "kk": RUN}),
        ("all_done", {"SR": RUN, ".R": WAIT}),
    ],
)
def test_a_mapped_task_instance_does_not_wait_for_removed_ones(rule: str, expected: dict[str, Verdict]) -> None:
    found = {states: judge(rule, replace(counts_of(states), excused=states.count("R"))).verdict for states in expected}
    assert found == expected


def counts_with_setups(others: str, setups: str) -> Counts:
    both = counts_of(others + setups)
    return replace(both, setups=len(setups), successful_setups=setups.count("S"), skipped_setups=setups.count("k"))


@pytest.mark.parametrize(
    ("others", "setups", "expected"),
    [
        ("S", "S", RUN),
        ("FUk", "S", RUN),
        ("S", "SF", RUN),
        ("S", "Sk", RUN),
        (".", "S", WAIT),
        ("S", ".S", WAIT),
        (".", "F", WAIT),
        (".", "k", WAIT),
        ("S", "F", UPF),
        ("S", "U", UPF),
        ("S", "R", UPF),
        ("S", "Fk", UPF),
        ("S", "k", SKIP),
        ("F", "kk", SKIP),
        ("F", "", RUN),
        ("k", "", RUN),
        (".", "", WAIT),
        ("", "", RUN),
    ],
)
def test_the_rule_of_teardowns_waits_for_all_and_for_one_setup_that_succeeded(
    others: str, setups: str, expected: Verdict
) -> None:
    judgement = judge(TEARDOWN_RULE, counts_with_setups(others, setups))
    assert judgement.verdict is expected
    assert judgement.reason


def test_the_rule_of_teardowns_is_none_that_a_task_may_be_given() -> None:
    twelve = {
        *("all_success", "all_failed", "all_done", "all_done_min_one_success", "all_skipped", "always"),
        *("one_failed", "one_success", "one_done", "none_failed", "none_failed_min_one_success", "none_skipped"),
    }
    assert set(TRIGGER_RULES) == twelve
    assert set(allowed(grammar.DEFAULT_ARGS)) == twelve
    assert set(allowed(grammar.TASK)) == {*twelve, TEARDOWN_RULE}
    assert TEARDOWN_RULE == "all_done_setup_success"


def allowed(fields: Mapping[str, Field]) -> tuple[object, ...]:
    """The trigger rules that a file may give."""
    shape = fields["trigger_rule"].shape
    assert isinstance(shape, Enum)
    return shape.values

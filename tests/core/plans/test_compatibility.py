"""What is said of runs that go on in another version."""

from __future__ import annotations

import pytest

from yarrow.language.loader import load_text
from yarrow.language.spec import DagSpec
from yarrow.plans.compatibility import compatibility

BASE = """
dag_id: orders
params: {limit: {type: integer, default: 10}}
tasks:
  load: {operator: bash, with: {command: [echo, "{{ params.limit }}"]}}
  check: {operator: bash, with: {command: [echo, "{{ xcom.load }}"]}}
  report: {operator: empty, depends_on: [load]}
"""


def load(*edits: tuple[str, str]) -> DagSpec:
    text = BASE
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    found = load_text(text, "orders.yaml")
    assert found.spec is not None, [str(fault) for fault in found.faults]
    return found.spec


@pytest.mark.parametrize(
    "edit",
    [
        ("dag_id: orders", "dag_id: orders\ndescription: Other\ntags: [x]\nowner: me"),
        ("dag_id: orders", "# comment\ndag_id: orders"),
        ("dag_id: orders", "dag_id: orders\nschedule: '@daily'\nstart_date: 2026-01-01"),
        ("operator: empty", "operator: empty, on_failure: log, doc_md: Text, retries: 3, pool: gpu"),
        ("default: 10", "default: 10, description: How many"),
    ],
)
def test_what_does_not_matter(edit: tuple[str, str]) -> None:
    assert compatibility(load(), load(edit)) == []


@pytest.mark.parametrize(
    ("edit", "sentences"),
    [
        (
            ("  report: {operator: empty, depends_on: [load]}\n", ""),
            ["`report` is not in it any more: it becomes `removed`, with the history kept."],
        ),
        (("  report:", "  new: {operator: empty}\n  report:"), ["`new` is new in it: it runs too, selected or not."]),
        (("depends_on: [load]", "depends_on: [check]"), ["`report` comes after `check` in it, not after `load`."]),
        (("depends_on: [load]", "depends_on: [load, check]"), ["`report` comes after `check` in it."]),
        ((", depends_on: [load]", ""), ["`report` does not come after `load` in it any more."]),
        (
            ("operator: empty", "operator: empty, trigger_rule: all_done"),
            ["The trigger rule of `report` is `all_done` in it, and was `all_success`."],
        ),
        (
            ("operator: empty", "operator: empty, when: params.limit > 1"),
            ["`report` has another condition in it: `params.limit > 1`."],
        ),
        (
            ("operator: empty", "operator: empty, setup: true"),
            ["`report` is a setup in it, and was none."],
        ),
        (
            ('{command: [echo, "{{ xcom.load }}"]}', '{command: [echo, "{{ xcom.load }}", b]}'),
            ["`check` does something else in it: the operator or its arguments changed."],
        ),
        (
            ('"{{ params.limit }}"', 'x, "{{ params.limit }}"'),
            [
                "`load` does something else in it: the operator or its arguments changed.",
                "`check` takes the XCom of `load`, which changed: unless that is cleared too, it gets what the older "
                "version left.",
            ],
        ),
        (("type: integer, default: 10", "type: integer, default: 11, maximum: 11"), []),
    ],
)
def test_what_matters(edit: tuple[str, str], sentences: list[str]) -> None:
    assert compatibility(load(), load(edit)) == sentences


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("", "expand: {n: [1]}, ", "`load` is mapped in it: it becomes several task instances."),
        ("expand: {n: [1]}, ", "", "`load` is not mapped in it any more: its instances become one."),
        (
            "expand: {n: [1]}, ",
            "expand: {n: [1, 2]}, ",
            "`load` is mapped over something else in it: its instances are made anew.",
        ),
        (
            "expand: {n: [1], m: [2]}, ",
            "expand: {m: [2], n: [1]}, ",
            "`load` is mapped over something else in it: its instances are made anew.",
        ),
    ],
)
def test_mapping(old: str, new: str, sentence: str) -> None:
    one, other = (load(("load: {", f"load: {{{words}")) for words in (old, new))
    found = compatibility(one, other)
    assert sentence in found
    assert any("takes the XCom of `load`" in other for other in found)


def test_a_param_that_runs_have_no_value_for() -> None:
    new = load(
        ("default: 10}}", "default: 10}, day: {type: string, default: x}}"),
        ("operator: empty", "operator: empty, when: params.day == 'x'"),
    )
    assert "The param `day` is new in it, and the run has no value for it: `report` can't be rendered." in (
        compatibility(load(), new)
    )
    assert compatibility(load(), load(("default: 10}}", "default: 10}, day: {type: string, default: x}}"))) == [
        "The param `day` is new in it, and the run has no value for it; no task names it."
    ]
    given = compatibility(load(), new, [{"limit": 1, "day": "y"}])
    assert given == ["`report` has another condition in it: `params.day == 'x'`."]


def test_params_of_the_runs_that_do_not_fit_any_more() -> None:
    new = load(("type: integer, default: 10", "type: integer, default: 5, maximum: 6"))
    assert compatibility(load(), new) == [
        "A param of the run does not fit it any more: `limit`: 10 is greater than the maximum of 6."
    ]
    assert compatibility(load(), new, [{"limit": 3}]) == []
    assert compatibility(load(), new, [{"limit": 3}, {"limit": 7}]) == [
        "A param of the run does not fit it any more: `limit`: 7 is greater than the maximum of 6."
    ]


def test_a_param_that_is_none_any_more() -> None:
    old = load(("default: 10}}", "default: 10}, day: {type: string, default: x}}"))
    assert compatibility(old, load()) == ["`day` is no param of it any more: the value stays with the run."]


def test_how_the_state_of_the_run_is_found() -> None:
    new = load(("dag_id: orders", "dag_id: orders\nrun_state: all_tasks\nfail_fast: true"))
    assert compatibility(load(), new) == [
        "The state of the run is found in another way in it: `run_state` is `all_tasks`.",
        "The first failure ends the run in it: `fail_fast` is on.",
    ]


def test_many_tasks_are_not_all_named() -> None:
    more = "".join(f"  t{number}: {{operator: empty}}\n" for number in range(9))
    assert compatibility(load(), load(("tasks:\n", f"tasks:\n{more}"))) == [
        "`t0`, `t1`, `t2`, `t3` and 5 more are new in it: they run too, selected or not."
    ]

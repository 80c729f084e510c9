"""The traps that only the graph of a DAG shows: each is told of where it is, and never where there is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from yarrow.language import codes
from yarrow.language.faults import Fault
from yarrow.language.loader import LoadResult

Load = Callable[[str], LoadResult]

BRANCH = """
params: {x: {default: true}}
tasks:
  b: {operator: branch, with: {conditions: [{if: "{{ params.x }}", then: [left]}], otherwise: [right]}}
  left: {operator: stage, depends_on: [b]}
  right: {operator: stage, depends_on: [b]}
"""
JOIN = "  join: {operator: nothing, depends_on: [left, right]%s}\n"


def traps(result: LoadResult, code: str) -> list[Fault]:
    assert {fault.severity for fault in result.faults} <= {"warning"}, result.faults
    return [fault for fault in result.faults if fault.code == code]


# A join that is always skipped.


@pytest.mark.parametrize("rule", ["all_success", "all_done_min_one_success", "none_skipped"])
def test_a_join_that_is_always_skipped(load: Load, rule: str) -> None:
    (fault,) = traps(load(BRANCH + JOIN % f", trigger_rule: {rule}"), codes.ALWAYS_SKIPPED)
    assert "`join` is skipped whatever `b` chooses: each time one directly before it is skipped, and its trigger " in (
        fault.message
    )
    assert fault.hint == "A task that joins branches needs `trigger_rule: none_failed_min_one_success`."
    assert fault.line == 7


@pytest.mark.parametrize(
    "rule",
    ["none_failed_min_one_success", "none_failed", "all_done", "one_success", "one_done", "one_failed", "all_failed"],
)
def test_a_join_that_can_run(load: Load, rule: str) -> None:
    assert traps(load(BRANCH + JOIN % f", trigger_rule: {rule}"), codes.ALWAYS_SKIPPED) == []


def test_a_join_some_way_down_is_named_once(load: Load) -> None:
    text = (
        BRANCH
        + "  far: {operator: nothing, depends_on: [left]}\n"
        + "  join: {operator: nothing, depends_on: [far, right]}\n"
        + "  after: {operator: nothing, depends_on: [join]}\n"
    )
    (fault,) = traps(load(text), codes.ALWAYS_SKIPPED)
    assert fault.message.startswith("`join` is skipped")


def test_a_join_that_is_directly_after_the_branch_too(load: Load) -> None:
    text = """
        params: {x: {default: true}}
        tasks:
          b: {operator: branch, with: {conditions: [{if: "{{ params.x }}", then: [arm]}], otherwise: [%s]}}
          arm: {operator: nothing, depends_on: [b]}
          join: {operator: nothing, depends_on: [b, arm]}
        """
    # After the chosen arm it is not skipped; without the arm it is, because the arm is.
    assert traps(load(text % "join"), codes.ALWAYS_SKIPPED) == []
    never = text.replace("then: [arm]", "then: [join]") % "join"
    (fault,) = traps(load(never), codes.ALWAYS_SKIPPED)  # what follows from it is not told as well
    assert fault.message == "`arm` is always skipped: `b` never chooses it."


def test_one_choice_that_lets_it_run_is_enough(load: Load) -> None:
    both = BRANCH.replace("otherwise: [right]", "otherwise: [left, right]")
    assert traps(load(both + JOIN % ""), codes.ALWAYS_SKIPPED) == []


def test_a_task_that_no_choice_names(load: Load) -> None:
    other = "  other: {operator: nothing, depends_on: [b, root]}\n  root: {operator: nothing}\n"
    (fault,) = traps(load(BRANCH + other), codes.ALWAYS_SKIPPED)
    assert fault.message == "`other` is always skipped: `b` never chooses it."
    assert fault.line == 7


def test_teardowns_are_never_skipped_by_a_branch(load: Load) -> None:
    text = BRANCH + "  down: {operator: nothing, teardown: true, depends_on: [b]}\n"
    assert traps(load(text), codes.ALWAYS_SKIPPED) == []


def test_what_does_not_wait_for_the_branch_may_run(load: Load) -> None:
    text = (
        BRANCH + "  root: {operator: nothing}\n  other: {operator: nothing, depends_on: [b, root], trigger_rule: %s}\n"
    )
    assert traps(load(text % "always"), codes.ALWAYS_SKIPPED) == []
    assert traps(load(text % "one_success"), codes.ALWAYS_SKIPPED) == []
    assert len(traps(load(text % "all_done"), codes.ALWAYS_SKIPPED)) == 1


def test_a_choice_that_is_a_template_is_not_guessed_at(load: Load) -> None:
    text = BRANCH.replace("[right]", "['{{ params.x }}']") + JOIN % ""
    assert traps(load(text), codes.ALWAYS_SKIPPED) == []


# An XCom that may be missing.

LENIENT = "none_failed_min_one_success"
MISSING = [
    (
        "",
        "  r: {operator: stage, trigger_rule: %s, with: {input: '{{ xcom.left }}', mode: '{{ xcom.right }}'}}",
        LENIENT,
    ),
    ("", "  r: {operator: nothing, trigger_rule: %s, depends_on: [right], when: 'xcom.left.rows > 1'}", LENIENT),
    (
        "",
        "  r: {operator: nothing, trigger_rule: %s, depends_on: [right], expand: {p: '{{ xcom.left.parts }}'}}",
        LENIENT,
    ),
    (
        "  w: {operator: stage, when: params.x}\n",
        "  r: {operator: stage, trigger_rule: %s, with: {input: '{{ xcom.w }}'}}",
        "none_failed",
    ),
    (
        "  w: {operator: stage, soft_fail: true}\n",
        "  r: {operator: stage, trigger_rule: %s, with: {input: '{{ xcom.w }}'}}",
        "all_done",
    ),
    (
        "  s: {operator: short_circuit, with: {condition: '{{ params.x }}'}}\n"
        "  w: {operator: stage, depends_on: [s]}\n",
        "  t: {operator: stage}\n"
        "  r: {operator: stage, teardown: true, depends_on: [t], with: {input: '{{ xcom.w }}'}}",
        "%s",
    ),
    (
        "  u: {operator: stage}\n  w: {operator: stage, depends_on: [u], trigger_rule: one_failed}\n",
        "  r: {operator: stage, trigger_rule: %s, with: {input: '{{ xcom.w }}'}}",
        "all_done",
    ),
    (
        "  u: {operator: stage, when: params.x}\n  w: {operator: stage, depends_on: [u]}\n",
        "  r: {operator: stage, trigger_rule: %s, with: {input: '{{ xcom.w }}'}}",
        "none_failed",
    ),
    # It may have failed.
    ("  w: {operator: stage}\n", "  r: {operator: stage, trigger_rule: %s, with: {input: '{{ xcom.w }}'}}", "all_done"),
    ("  w: {operator: stage}\n", "  r: {operator: stage, trigger_rule: %s, with: {input: '{{ xcom.w }}'}}", "always"),
    ("  w: {operator: stage}\n", "  r: {operator: stage, trigger_rule: %s, with: {input: '{{ xcom.w }}'}}", "one_done"),
    (
        "  w: {operator: stage}\n",
        "  r: {operator: stage, trigger_rule: %s, with: {input: '{{ xcom.w }}'}}",
        "one_failed",
    ),
    (
        "  w: {operator: stage}\n",
        "  r: {operator: stage, trigger_rule: %s, with: {input: '{{ xcom.w }}'}}",
        "all_failed",
    ),
    (
        "  w: {operator: stage}\n",
        "  r: {operator: stage, trigger_rule: %s, with: {input: '{{ xcom.w }}'}}",
        "none_skipped",
    ),
    (
        "  w: {operator: stage}\n  v: {operator: stage}\n",
        "  r: {operator: stage, trigger_rule: %s, depends_on: [v], with: {input: '{{ xcom.w }}'}}",
        "one_success",
    ),
]
WHY = [
    "which is skipped when `b` chooses `right`",
    "which is skipped when `b` chooses `right`",
    "which is skipped when `b` chooses `right`",
    "which is skipped when `when` of `w` is false",
    "which is skipped when `w` fails (`soft_fail`)",
    "which is skipped when the condition of `s` is false",
    "which is skipped when nothing before `w` fails",
    "which is skipped when `when` of `u` is false",
    *["which may have failed"] * 7,
]


@pytest.mark.parametrize(
    ("before", "reader", "rule", "why"), [(*case, why) for case, why in zip(MISSING, WHY, strict=True)]
)
def test_an_xcom_that_may_be_missing(load: Load, before: str, reader: str, rule: str, why: str) -> None:
    reader = reader % rule if "trigger_rule" in reader else reader
    text = f"run_state: all_tasks\n{BRANCH.lstrip()}{before}{reader}\n"
    found = traps(load(text), codes.MAY_BE_MISSING)
    assert found, load(text).faults
    assert why in found[0].message
    assert found[0].hint == "Say what it is then: `| default(...)`."
    # With a default, and on a condition, it is what was meant.
    guarded = text
    for name in ("left.rows", "left.parts", "left", "right", "w"):
        guarded = guarded.replace(f"xcom.{name} ", f"xcom.{name} | default([]) ")
    assert guarded != text
    assert traps(load(guarded), codes.MAY_BE_MISSING) == []


SAFE = [
    # Its own rule does not let the reader run.
    "  w: {operator: stage, when: params.x}\n  r: {operator: stage, with: {input: '{{ xcom.w }}'}}",
    "  w: {operator: stage}\n  r: {operator: stage, trigger_rule: none_failed, with: {input: '{{ xcom.w }}'}}",
    "  w: {operator: stage}\n  r: {operator: stage, trigger_rule: one_success, with: {input: '{{ xcom.w }}'}}",
    f"  r: {{operator: stage, trigger_rule: {LENIENT}, when: params.x, depends_on: [left, right], "
    "with: {input: '{{ xcom.b.follow }}'}}",
    # What cuts off the writer cuts off the reader too.
    "  s: {operator: short_circuit, with: {condition: '{{ params.x }}'}}\n  w: {operator: stage, depends_on: [s]}\n"
    "  v: {operator: stage}\n  r: {operator: stage, trigger_rule: none_failed, depends_on: [v], "
    "with: {input: '{{ xcom.w }}'}}",
    # A list of the instances there are.
    "  w: {operator: stage, expand: {y: [1]}}\n  r: {operator: stage, trigger_rule: all_done, "
    "with: {steps: '{{ xcom.w }}'}}",
    # A teardown runs only when its setup has succeeded.
    "  w: {operator: stage, setup: true}\n  v: {operator: stage, depends_on: [w]}\n"
    "  r: {operator: stage, teardown: true, depends_on: [v], with: {input: '{{ xcom.w }}'}}",
    # It is reached on a condition only.
    "  w: {operator: stage, when: params.x}\n  r: {operator: stage, trigger_rule: none_failed, "
    "with: {input: '{{ xcom.w if params.x else none }}', flag: '{{ params.x and xcom.w.rows > 1 }}'}}",
    "  w: {operator: stage, when: params.x}\n  r: {operator: stage, trigger_rule: none_failed, "
    "with: {rows: '{{ (xcom.w.rows + 1) | default(1) }}'}}",
    # Its own `when` sees to it.
    "  w: {operator: stage, when: params.x}\n  r: {operator: stage, trigger_rule: none_failed, "
    "when: (xcom.w.rows | default(0)) > 0, with: {rows: '{{ xcom.w.rows }}'}}",
]


@pytest.mark.parametrize("tasks", SAFE)
def test_an_xcom_that_is_there_when_its_reader_runs(load: Load, tasks: str) -> None:
    assert traps(load(f"run_state: all_tasks\n{BRANCH.lstrip()}{tasks}\n"), codes.MAY_BE_MISSING) == []


def test_two_arms_that_exclude_each_other_are_not_both_missing(load: Load) -> None:
    """`join` runs whatever the branch chooses, and what comes after it has its XCom."""
    text = (
        BRANCH
        + f"  join: {{operator: stage, depends_on: [left, right], trigger_rule: {LENIENT}}}\n"
        + "  r: {operator: stage, trigger_rule: none_failed, with: {input: '{{ xcom.join }}'}}\n"
    )
    assert traps(load(text), codes.MAY_BE_MISSING) == []


def test_in_a_mapped_group_an_instance_reads_its_own(load: Load) -> None:
    text = """
        run_state: all_tasks
        tasks:
          g:
            expand: {x: [1, 2]}
            tasks:
              w: {operator: stage, when: map.x > 1}
              r: {operator: stage, trigger_rule: all_done, with: {input: "{{ xcom.g.w }}"}}
        """
    (fault,) = traps(load(text), codes.MAY_BE_MISSING)
    assert "`when` of `g.w` is false" in fault.message


# A failure that nobody sees.


@pytest.mark.parametrize("rule", ["all_done", "always", "one_done", "one_failed", "all_failed", "none_skipped"])
def test_a_success_that_hides_a_failure(load: Load, rule: str) -> None:
    text = f"tasks:\n  a: {{operator: nothing}}\n  z: {{operator: nothing, depends_on: [a], trigger_rule: {rule}}}\n"
    (fault,) = traps(load(text), codes.HIDDEN_FAILURE)
    assert fault.message.startswith("`z` makes a success of a run in which `a` failed")
    assert fault.hint is not None
    assert "`run_state: all_tasks`" in fault.hint
    assert "`teardown: true`" in fault.hint
    assert fault.line == 3
    assert load(f"run_state: all_tasks\n{text}").faults == []
    assert load(text.replace("{operator: nothing}", "{operator: nothing, soft_fail: true}")).faults == []


OPEN = [
    # Another last task fails with it.
    "  a: {operator: nothing}\n  b: {operator: nothing, depends_on: [a]}\n"
    "  z: {operator: nothing, depends_on: [a], trigger_rule: one_failed}",
    # The task only cleans up, and says so.
    "  a: {operator: nothing}\n  z: {operator: nothing, depends_on: [a], teardown: true}",
    "  a: {operator: nothing}\n  z: {operator: nothing, depends_on: [a], teardown: true, trigger_rule: all_done}",
    # What fails breaks all that comes before the last one.
    "  a: {operator: nothing}\n  b: {operator: nothing, depends_on: [a]}\n  c: {operator: nothing, depends_on: [a]}\n"
    "  z: {operator: nothing, depends_on: [b, c], trigger_rule: none_failed}",
    # What else it waits for is skipped because of the failure.
    "  a: {operator: nothing}\n  b: {operator: empty, depends_on: [a], trigger_rule: all_skipped}\n"
    "  z: {operator: nothing, depends_on: [a, b], trigger_rule: one_success}",
    "  z: {operator: nothing, trigger_rule: all_done}",
]


@pytest.mark.parametrize("tasks", OPEN)
def test_a_failure_that_shows(load: Load, tasks: str) -> None:
    assert load(f"tasks:\n{tasks}\n").faults == []


def test_what_is_hidden_though_its_cause_is_not(load: Load) -> None:
    """All of its upstream tasks fail with `a`, but `b` alone may fail as well."""
    text = """
        tasks:
          a: {operator: nothing}
          b: {operator: nothing, depends_on: [a]}
          c: {operator: nothing, depends_on: [a]}
          z: {operator: nothing, depends_on: [b, c], trigger_rule: one_success}
        """
    (fault,) = traps(load(text), codes.HIDDEN_FAILURE)
    assert "in which `b` failed" in fault.message


@pytest.mark.parametrize(("otherwise", "hidden"), [("[right]", []), ("[left, right]", ["left"])])
def test_a_failure_where_all_others_before_the_join_were_not_chosen(
    load: Load, otherwise: str, hidden: list[str]
) -> None:
    text = f"""
        params: {{x: {{default: true}}}}
        tasks:
          choose:
            operator: branch
            with: {{conditions: [{{if: "{{{{ params.x }}}}", then: [left]}}], otherwise: {otherwise}}}
          left: {{operator: nothing, depends_on: [choose]}}
          right: {{operator: nothing, depends_on: [choose]}}
          z: {{operator: nothing, depends_on: [left, right], trigger_rule: one_success}}
        """
    found = traps(load(text), codes.HIDDEN_FAILURE)
    assert [fault.message.partition("`z` makes a success of a run in which ")[2][1:5] for fault in found] == hidden


def test_a_large_dag_does_not_take_long(load: Load) -> None:
    lines = ["tasks:", "  t0: {operator: stage, when: 1 > 0}"]
    for number in range(1, 400):
        keys = f"when: 1 > 0, trigger_rule: all_done, with: {{input: '{{{{ xcom.t{number - 1} }}}}'}}"
        lines.append(f"  t{number}: {{operator: stage, {keys}}}")
    assert traps(load("\n".join(lines) + "\n"), codes.MAY_BE_MISSING)

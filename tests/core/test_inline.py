"""Runs in one process: mapped tasks, sensors, approvals and stops, as the scheduler would have them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from yarrow.errors import UsageError
from yarrow.testing import FrozenClock, Tries, run_dag

MAPPED = """
tasks:
  names:
    operator: python
    with: {callable: "builtins:list", args: [["a", "b", "c"]]}
  shout:
    operator: bash
    retries: 1
    expand: {name: "{{ xcom.names }}"}
    with: {command: ["echo", "{{ map.name | upper }}{{ map_index }}"], output: last_line}
  collect:
    operator: python
    trigger_rule: RULE
    with: {callable: "builtins:len", args: ["{{ xcom.shout }}"]}
"""


def test_a_mapped_task_is_a_task_for_each_value() -> None:
    result = run_dag(MAPPED.replace("RULE", "all_success"))
    assert result.success
    shout = result.tasks["shout"]
    assert shout.xcom == ["A0", "B1", "C2"]
    assert [(one.map_index, one.xcom, one.tries) for one in shout.instances] == [
        (0, "A0", 1),
        (1, "B1", 1),
        (2, "C2", 1),
    ]
    assert result.tasks["collect"].xcom == 3


def test_instances_are_tried_again_each_for_itself() -> None:
    result = run_dag(MAPPED.replace("RULE", "all_success"), outcomes={"shout": Tries(OSError("away"), "at last")})
    assert [one.tries for one in result.tasks["shout"].instances] == [2, 2, 2]
    assert result.tasks["shout"].xcom == ["at last"] * 3


def test_the_trigger_rule_counts_instances() -> None:
    broken = MAPPED.replace("{{ map.name | upper }}", "{{ 1 / (map_index - 1) }}")
    assert run_dag(broken.replace("RULE", "all_success")).tasks["collect"].state == "upstream_failed"
    result = run_dag(broken.replace("RULE", "all_done"))
    assert [one.state for one in result.tasks["shout"].instances] == ["success", "failed", "success"]
    assert result.tasks["shout"].state == "failed"
    assert result.tasks["collect"].xcom == 2, "the results that there are"


def test_an_empty_list_skips() -> None:
    result = run_dag(MAPPED.replace("RULE", "none_failed"), outcomes={"names": []})
    assert result.tasks["shout"].state == "skipped"
    assert "empty" in str(result.tasks["shout"].reason)


def test_a_group_is_mapped_as_a_whole() -> None:
    result = run_dag("""
tasks:
  group:
    expand: {number: [3, 4]}
    tasks:
      double: {operator: python, with: {callable: "operator:mul", args: ["{{ map.number }}", 2]}}
      again: {operator: python, with: {callable: "operator:mul", args: ["{{ xcom.group.double }}", 10]}}
  total: {operator: python, with: {callable: "builtins:sum", args: ["{{ xcom.group.again }}"]}}
""")
    assert result.tasks["group.again"].xcom == [60, 80]
    assert result.tasks["total"].xcom == 140


def test_a_sensor_looks_until_it_finds(tmp_path: Path) -> None:
    clock = FrozenClock()
    dag = f"""
tasks:
  wait: {{operator: wait_until, with: {{at: "{(clock() + timedelta(hours=3)).isoformat()}"}}}}
  then: {{operator: bash, depends_on: [wait], with: {{command: echo done, output: last_line}}}}
"""
    result = run_dag(dag, clock=clock)
    assert result.tasks["wait"].state == "success"
    assert result.tasks["wait"].tries == 1
    assert result.tasks["then"].xcom == "done"


def test_a_sensor_gives_up(tmp_path: Path) -> None:
    dag = f"""
tasks:
  wait:
    operator: wait_for_file
    soft_fail: SOFT
    with: {{path: "{tmp_path}/none", poke_interval: 1m, timeout: 5m}}
"""
    assert run_dag(dag.replace("SOFT", "false")).tasks["wait"].state == "failed"
    assert run_dag(dag.replace("SOFT", "true")).tasks["wait"].state == "skipped"


APPROVAL = """
tasks:
  ask: {operator: approval, with: {message: "Publish?", timeout: 1d, DEFAULT}}
  publish: {operator: bash, with: {command: ["echo", "it is {{ xcom.ask.approved }}"], output: last_line}}
"""


@pytest.mark.parametrize(
    ("default", "answer", "ask", "publish"),
    [
        ("default: reject", "approve", "success", "success"),
        ("default: approve", "reject", "success", "skipped"),
        ("default: approve", None, "success", "success"),
        ("default: null", None, "failed", "upstream_failed"),
        ("default: null, on_reject: fail", "reject", "failed", "upstream_failed"),
    ],
)
def test_an_approval_is_answered(default: str, answer: str | None, ask: str, publish: str) -> None:
    result = run_dag(APPROVAL.replace("DEFAULT", default), outcomes={"ask": answer})
    assert (result.tasks["ask"].state, result.tasks["publish"].state) == (ask, publish)


def test_without_an_answer_an_approval_gets_its_default_or_is_approved() -> None:
    assert run_dag(APPROVAL.replace("DEFAULT", "default: reject")).tasks["publish"].state == "skipped"
    result = run_dag(APPROVAL.replace("DEFAULT", "default: null"))
    assert result.tasks["publish"].xcom == "it is true"
    assert result.tasks["ask"].xcom["approved"] is True  # type: ignore[call-overload,index]


def test_another_answer_is_refused() -> None:
    with pytest.raises(UsageError, match="approve, reject or None"):
        run_dag(APPROVAL.replace("DEFAULT", "default: null"), outcomes={"ask": "maybe"})


def test_fail_fast_stops_the_rest() -> None:
    result = run_dag("""
fail_fast: true
tasks:
  bad: {operator: bash, priority_weight: 9, with: {command: exit 3}}
  other: {operator: bash, with: {command: echo}}
  after: {operator: bash, depends_on: [other], with: {command: echo}}
""")
    assert {name: task.state for name, task in result.tasks.items()} == {
        "bad": "failed",
        "other": "skipped",
        "after": "skipped",
    }
    assert not result.success


def test_a_teardown_runs_after_a_failure_and_does_not_count() -> None:
    result = run_dag("""
tasks:
  up: {operator: bash, setup: true, with: {command: echo up}}
  work: {operator: bash, depends_on: [up], with: {command: exit 1}}
  down: {operator: bash, teardown: true, depends_on: [up, work], with: {command: echo down}}
""")
    assert result.tasks["down"].state == "success"
    assert result.state == "failed"


def test_a_mapped_task_can_not_run_alone() -> None:
    from yarrow.inline import Inline
    from yarrow.testing import load_dag

    with pytest.raises(UsageError, match="is mapped"):
        Inline(work=Path("unused")).run_task(load_dag(MAPPED.replace("RULE", "all_done")), "shout")

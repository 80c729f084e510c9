from datetime import UTC, datetime

import pytest

from yarrow.dag_check import check
from yarrow.language.fixtures import DagTest, Expected
from yarrow.language.loader import load_text
from yarrow.language.spec import DagSpec

NOW = datetime(2026, 3, 1, tzinfo=UTC)

DAG = """
timezone: Europe/Berlin
params: {limit: {type: integer, default: 3}}
tasks:
  count: {operator: bash, retries: 1, with: {command: echo 4, output: last_line}}
  choose:
    operator: branch
    with:
      conditions: [{if: "{{ xcom.count | int > params.limit }}", then: [many]}]
      otherwise: [few]
  many:
    operator: bash
    depends_on: [choose]
    with: {command: "echo {{ ds }} {{ var.place }}", env: {PASSWORD: "{{ conn.db.password }}"}}
  few: {operator: empty, depends_on: [choose]}
"""


@pytest.fixture
def spec() -> DagSpec:
    loaded = load_text(DAG, "d.yaml")
    assert loaded.spec is not None, loaded.faults
    return loaded.spec


def problems(spec: DagSpec, expect: Expected, **given: object) -> tuple[str, ...]:
    result = check(spec, DagTest("a test", "d.tests.yaml", 1, expect, **given), now=NOW)  # type: ignore[arg-type]
    assert result.passed == (not result.problems)
    return result.problems


def test_what_is_expected_passes(spec: DagSpec) -> None:
    expect = Expected(
        run="success",
        tasks={"many": "success", "few": "skipped"},
        branches={"choose": ("many",)},
        order=("count", "choose", "many"),
        rendered={"many": {"command": "echo 2026-02-01 here", "env": {"PASSWORD": "***"}}},
    )
    given = {"xcoms": {"count": "4"}, "variables": {"place": "here"}, "logical_date": "2026-02-01"}
    assert problems(spec, expect, **given) == ()


@pytest.mark.parametrize(
    ("expect", "sentence"),
    [
        (Expected(run="failed"), "the run is success; expected failed"),
        (Expected(tasks={"few": "success"}), "`few` is skipped: branch `choose` did not choose it; expected success"),
        (Expected(branches={"choose": ("few",)}), "`choose` chooses `many`; expected `few`"),
        (Expected(branches={"count": ("few",)}), "`count` makes no choice; expected `few`"),
        (Expected(order=("choose", "count")), "the tasks start in the order count → choose; expected choose → count"),
        (Expected(order=("count", "few")), "`few` did not start; expected the order count → few"),
        (Expected(rendered={"count": {"output": "json"}}), "`count.output` is 'last_line'; expected 'json'"),
    ],
)
def test_what_is_not_as_expected_is_said(spec: DagSpec, expect: Expected, sentence: str) -> None:
    assert problems(spec, expect, xcoms={"count": "4"}) == (sentence,)


def test_an_outcome_counts_for_every_try(spec: DagSpec) -> None:
    expect = Expected(run="failed", tasks={"count": "failed", "choose": "upstream_failed"})
    assert problems(spec, expect, outcomes={"count": "failed"}) == ()


def test_a_choice_is_taken_as_given(spec: DagSpec) -> None:
    expect = Expected(branches={"choose": ("few",)}, tasks={"many": "skipped"})
    assert problems(spec, expect, outcomes={"choose": ("few",)}, xcoms={"count": "4"}) == ()


def test_what_does_not_fit_the_dag_is_a_problem_of_the_test(spec: DagSpec) -> None:
    [sentence] = problems(spec, Expected(run="success"), params={"limit": "many"})
    assert "limit" in sentence


def test_what_had_to_be_assumed_is_told(spec: DagSpec) -> None:
    result = check(spec, DagTest("a test", "d.tests.yaml", 1, Expected(run="success")), now=NOW)
    assert result.passed
    assert any("choose" in note for note in result.notes)


def test_a_template_that_needs_an_unknown_result_says_so(spec: DagSpec) -> None:
    [sentence] = problems(spec, Expected(rendered={"choose": {"conditions": []}}))
    assert sentence.startswith("`choose.conditions` can't be rendered")


def test_one_instance_of_a_mapped_task() -> None:
    loaded = load_text(
        """
tasks:
  load: {operator: bash, expand: {part: [a, b]}, with: {command: "echo {{ map.part }}"}}
  report: {operator: bash, depends_on: [load], trigger_rule: one_success, with: {command: "true"}}
""",
        "d.yaml",
    )
    assert loaded.spec is not None, loaded.faults
    expect = Expected(tasks={"load": "failed", "load[0]": "success", "load[1]": "failed", "report": "success"})
    assert problems(loaded.spec, expect, outcomes={"load[1]": "failed"}) == ()
    wrong = Expected(tasks={"load[1]": "success", "load[2]": "success"})
    assert problems(loaded.spec, wrong, outcomes={"load[1]": "failed"}) == (
        "`load[1]` is failed: as given; expected success",
        "there is no task instance `load[2]`; expected success",
    )

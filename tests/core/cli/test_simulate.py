"""`yarrow dags simulate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

DAG = """
dag_id: orders
params: {limit: {type: integer, default: 10}}
tasks:
  load: {operator: python, with: {callable: "lib:load"}, retries: 2}
  parts:
    operator: bash
    with: {command: "echo {{ map.part }}"}
    expand: {part: "{{ xcom.load }}"}
  choose:
    operator: branch
    depends_on: [parts]
    with:
      conditions: [{if: "{{ params.limit > 5 }}", then: [large]}]
      otherwise: [small]
  large: {operator: bash, with: {command: "true"}, depends_on: [choose]}
  small: {operator: bash, with: {command: "true"}, depends_on: [choose]}
"""


@pytest.fixture
def dag_file(home: Path) -> Path:
    path = home.parent / "orders.yaml"
    path.write_text(DAG)
    return path


def test_json_has_the_run_and_the_tasks_and_nothing_else(yarrow: Any, dag_file: Path) -> None:
    answer = yarrow("dags", "simulate", dag_file, "--xcoms", '{"load": ["a", "b"]}', "--json")
    assert json.loads(answer.stdout) == {
        "run": "success",
        "tasks": {"load": "success", "parts": "success", "choose": "success", "large": "success", "small": "skipped"},
    }
    assert (answer.exit_code, answer.stderr) == (0, "")


def test_a_failed_run_is_an_answer_too(yarrow: Any, dag_file: Path) -> None:
    answer = yarrow("dags", "simulate", dag_file, "--outcome", "load=failed", "--json")
    assert answer.json() == {
        "run": "failed",
        "tasks": {
            "load": "failed",
            "parts": "upstream_failed",
            "choose": "upstream_failed",
            "large": "upstream_failed",
            "small": "upstream_failed",
        },
    }


@pytest.mark.parametrize(
    ("outcomes", "parts"),
    [
        (["parts[0]=failed"], "failed"),
        (["parts[0]=skipped"], "success"),
        (["parts=skipped"], "skipped"),
        (["parts=skipped", "parts[1]=success"], "success"),
        (["load=skipped"], "skipped"),
    ],
)
def test_a_mapped_task_has_one_state(yarrow: Any, dag_file: Path, outcomes: list[str], parts: str) -> None:
    options = [option for outcome in outcomes for option in ("--outcome", outcome)]
    answer = yarrow("dags", "simulate", dag_file, "--xcoms", '{"load": ["a", "b"]}', *options, "--json")
    assert answer.json()["tasks"]["parts"] == parts


def test_the_table_says_why(yarrow: Any, dag_file: Path) -> None:
    answer = yarrow(
        *("dags", "simulate", dag_file, "--xcoms", '{"load": ["a", "b"]}', "--params", '{"limit": 1}'),
        *("--outcome", "parts[1]=skipped", "--outcome", "small=failed", "--logical-date", "2026-02-01"),
    )
    assert answer.exit_code == 0
    assert answer.stdout.splitlines() == [
        "TASK      STATE    WHY",
        "load      success  -",
        "parts[0]  success  -",
        "parts[1]  skipped  as given",
        "choose    skipped  upstream task `parts[1]` was skipped",
        "large     skipped  upstream task `choose` was skipped",
        "small     skipped  upstream task `choose` was skipped",
        "orders for 2026-02-01 00:00:00 UTC: success",
    ]


def test_the_table_shows_tries_and_choices(yarrow: Any, dag_file: Path) -> None:
    failed = yarrow("dags", "simulate", dag_file, "--outcome", "load=failed").stdout
    assert "load    failed           as given, 3 tries" in failed
    assert "UTC: failed: task `load` failed" in failed
    chosen = yarrow("dags", "simulate", dag_file, "--outcome", "choose=success:small").stdout
    assert "choose    success  follows `small`" in chosen
    nothing = yarrow("dags", "simulate", dag_file, "--outcome", "choose=success:").stdout
    assert "choose    success  follows nothing" in nothing


def test_what_was_assumed_stands_on_stderr(yarrow: Any, dag_file: Path) -> None:
    answer = yarrow("dags", "simulate", dag_file, "--json")
    assert answer.json()["run"] == "success"
    assert answer.stderr == (
        "Note: `parts` is taken as one task instance: its `expand` names the XCom of `load`, which was not given.\n"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--outcome", "laod=failed"], "the DAG `orders` has no such task. Did you mean `load`?"),
        (["--outcome", "load=broken"], "`broken` is no outcome of a task: it is success, failed or skipped."),
        (["--outcome", "load=faild"], "Did you mean `failed`?"),
        (["--outcome", "load"], "Write it as TASK=STATE, such as load=failed."),
        (["--outcome", "load=failed", "--outcome", "load=success"], "There are two outcomes for `load`."),
        (["--outcome", "choose=success:smal"], "it is not directly downstream. Did you mean `small`?"),
        (["--outcome", "choose=success:load"], "Directly downstream: `large`, `small`."),
        (["--outcome", "load=success:parts"], "`load` can't choose what comes after it: its operator is `python`."),
        (["--xcoms", '{"lod": 1}'], "There is an XCom for `lod`"),
        (["--params", '{"limits": 1}'], "did you mean `limit`?"),
        (["--xcoms", '{"load": ' + "[" * 50_000 + "]" * 50_000 + "}"], "it is nested too deeply"),
        (["--logical-date", "0001-01-01T00:00:00+14:00"], "0001-01-01T00:00:00+14:00 is out of the range of dates"),
        (["--logical-date", "9999-12-31"], "it is in the years from 1800 to 9989"),
    ],
)
def test_what_can_not_be_told_is_a_sentence(yarrow: Any, dag_file: Path, options: list[str], sentence: str) -> None:
    answer = yarrow("dags", "simulate", dag_file, *options, "--json")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert sentence in answer.stderr


def test_a_file_with_faults_is_told_with_its_places(yarrow: Any, dag_file: Path) -> None:
    dag_file.write_text(DAG.replace("operator: branch", "operator: brunch"))
    answer = yarrow("dags", "simulate", dag_file)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert "orders.yaml:11:15: error" in answer.stderr
    assert "Did you mean `branch`?" in answer.stderr

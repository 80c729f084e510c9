"""`yarrow dags check`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Yarrow = Callable[..., Any]

DAG = """
params: {name: {type: string, default: world}}
tasks:
  greet: {operator: bash, with: {command: ["echo", "{{ params.name }}"]}}
  measure: {operator: empty, depends_on: [greet]}
"""
TESTS = """
tests:
  - name: it greets
    params: {name: reader}
    expect: {run: success, rendered: {greet: {command: [echo, reader]}}}
  - name: nothing is measured when it fails
    outcomes: {greet: failed}
    expect: {run: failed, tasks: {measure: WORD}}
"""


@pytest.fixture
def dags(tmp_path: Path) -> Path:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "hello.yaml").write_text(DAG)
    (folder / "hello.tests.yaml").write_text(TESTS.replace("WORD", "upstream_failed"))
    return folder


def test_tests_pass(yarrow: Yarrow, dags: Path) -> None:
    answer = yarrow("dags", "check", str(dags))
    assert answer.exit_code == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0].startswith("ok   ")
    assert "hello.tests.yaml:3 it greets (" in lines[0]
    assert lines[-1] == "2 passed, 0 failed"


def test_a_test_fails_with_what_was_found(yarrow: Yarrow, dags: Path) -> None:
    (dags / "hello.tests.yaml").write_text(TESTS.replace("WORD", "success"))
    answer = yarrow("dags", "check", str(dags / "hello.yaml"))
    assert answer.exit_code == 1
    assert "FAIL " in answer.stdout
    assert "`measure` is upstream_failed: upstream task `greet` failed; expected success" in answer.stdout
    assert answer.stdout.splitlines()[-1] == "1 passed, 1 failed"


def test_as_json(yarrow: Yarrow, dags: Path) -> None:
    first, second = yarrow("dags", "check", str(dags), "--json").json()
    assert (first["name"], first["line"], first["passed"], first["problems"]) == ("it greets", 3, True, [])
    assert second["passed"]
    assert 0 < first["seconds"] < 60


def test_a_dag_without_tests_is_named(yarrow: Yarrow, dags: Path) -> None:
    (dags / "other.yaml").write_text("tasks: {a: {operator: empty}}\n")
    answer = yarrow("dags", "check", str(dags))
    assert answer.exit_code == 0
    assert "no tests: " in answer.stderr
    assert yarrow("dags", "check", str(dags), "--all").exit_code == 1


def test_faults_and_nothing_to_do_are_told_apart_from_failures(yarrow: Yarrow, dags: Path) -> None:
    (dags / "hello.tests.yaml").write_text("tests:\n  - {name: x, expect: {tasks: {gret: success}}}\n")
    answer = yarrow("dags", "check", str(dags))
    assert answer.exit_code == 2
    assert "hello.tests.yaml:2:32" in answer.stderr
    assert "Did you mean `greet`?" in answer.stderr
    (dags / "hello.tests.yaml").unlink()
    answer = yarrow("dags", "check", str(dags))
    assert answer.exit_code == 2
    assert "There are no tests." in answer.stderr


def test_the_tests_of_a_dag_are_no_dag(yarrow: Yarrow, dags: Path) -> None:
    assert yarrow("dags", "lint", str(dags)).exit_code == 0

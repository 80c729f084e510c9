"""`yarrow dags test` and `yarrow tasks test`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Yarrow = Callable[..., Any]

TEXT = """
schedule: "@daily"
start_date: 2026-01-01
params: {who: {type: string, default: world}}
tasks:
  greet:
    operator: bash
    with: {command: 'echo "Hello $WHO on {{ ds }}"', env: {WHO: "{{ params.who }}"}}
  check:
    operator: bash
    with: {command: 'test "$GREETING" != "Hello nobody on 2026-01-05"', env: {GREETING: "{{ xcom.greet }}"}}
    retries: 1
"""


@pytest.fixture
def dag_file(tmp_path: Path) -> Path:
    file = tmp_path / "hello.yaml"
    file.write_text(TEXT)
    return file


def test_a_run_that_succeeds(yarrow: Yarrow, dag_file: Path) -> None:
    answer = yarrow("dags", "test", dag_file, "--logical-date", "2026-01-05", "--params", '{"who": "reader"}')
    assert answer.exit_code == 0
    assert "Hello reader on 2026-01-05\n" in answer.stdout
    assert answer.stdout.endswith("hello for 2026-01-05 00:00:00 UTC: success\n")
    assert "--- greet: running\n--- greet: success\n--- check: running\n" in answer.stderr


def test_a_run_that_fails(yarrow: Yarrow, dag_file: Path) -> None:
    answer = yarrow("dags", "test", dag_file, "--logical-date", "2026-01-05", "--params", '{"who": "nobody"}')
    assert answer.exit_code == 1
    assert "--- check: up_for_retry" in answer.stderr
    assert "check  failed   2 " in answer.stdout
    assert ": failed" in answer.stdout.splitlines()[-1]


def test_the_summary_says_why_a_task_was_skipped(yarrow: Yarrow, tmp_path: Path) -> None:
    file = tmp_path / "ask.yaml"
    file.write_text(
        "tasks:\n"
        "  ask: {operator: approval, with: {message: Publish?, timeout: 1d, default: reject}}\n"
        "  publish: {operator: empty, depends_on: [ask]}\n"
    )
    shown = yarrow("dags", "test", file).stdout
    assert re.search(r"^ask +success .* answered in a test run: reject$", shown, re.MULTILINE)
    assert re.search(r"^publish +skipped .* `ask` was rejected$", shown, re.MULTILINE)


def test_a_date_without_an_offset_is_one_of_the_dags_time_zone(yarrow: Yarrow, dag_file: Path) -> None:
    dag_file.write_text("timezone: America/New_York\n" + TEXT)
    answer = yarrow("dags", "test", dag_file, "--logical-date", "2026-01-05")
    assert "Hello world on 2026-01-05\n" in answer.stdout
    assert "hello for 2026-01-05 05:00:00 UTC: success" in answer.stdout
    answer = yarrow("dags", "test", dag_file, "--logical-date", "2026-01-05T00:00Z")
    assert "Hello world on 2026-01-04\n" in answer.stdout


def test_json(yarrow: Yarrow, dag_file: Path) -> None:
    result = yarrow("dags", "test", dag_file, "--logical-date", "2026-01-05", "--json").json()
    assert (result["state"], result["params"]) == ("success", {"who": "world"})
    greet = result["tasks"][0]
    assert (greet["task_id"], greet["xcom"], greet["log"]) == (
        "greet",
        "Hello world on 2026-01-05",
        ["Hello world on 2026-01-05"],
    )
    assert 0 < greet["seconds"] < 60


def test_one_task(yarrow: Yarrow, dag_file: Path) -> None:
    both = [
        yarrow("dags", "test", dag_file, "--task", "greet", "--json").json(),
        yarrow("tasks", "test", dag_file, "greet", "--json").json(),
    ]
    assert [[task["task_id"] for task in result["tasks"]] for result in both] == [["greet"], ["greet"]]


def test_one_task_with_the_xcom_that_it_needs(yarrow: Yarrow, dag_file: Path) -> None:
    answer = yarrow("tasks", "test", dag_file, "check")
    assert answer.exit_code == 2
    assert "needs the XCom of `greet`" in answer.stderr
    assert yarrow("tasks", "test", dag_file, "check", "--xcoms", '{"greet": "Hi"}').exit_code == 0
    given = json.dumps({"greet": "Hello nobody on 2026-01-05"})
    assert yarrow("dags", "test", dag_file, "--task", "check", "--xcoms", given).exit_code == 1
    assert yarrow("dags", "test", dag_file, "--xcoms", given).exit_code == 2


def test_what_it_writes_can_be_kept(yarrow: Yarrow, tmp_path: Path) -> None:
    file = tmp_path / "write.yaml"
    file.write_text("tasks: {a: {operator: bash, with: {command: 'pwd'}}}")
    (task,) = yarrow("dags", "test", file, "--work", tmp_path / "kept", "--json").json()["tasks"]
    assert task["xcom"].startswith(str(tmp_path / "kept"))
    (task,) = yarrow("dags", "test", file, "--json").json()["tasks"]
    assert not Path(task["xcom"]).exists()


def test_a_file_with_faults(yarrow: Yarrow, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("tasks: {a: {operator: bsh}}")
    answer = yarrow("dags", "test", file)
    assert answer.exit_code == 2
    assert "bad.yaml:1:23: error YRW032: There is no operator `bsh`. Did you mean `bash`?" in answer.stderr


def test_an_unknown_task(yarrow: Yarrow, dag_file: Path) -> None:
    answer = yarrow("tasks", "test", dag_file, "gret")
    assert answer.exit_code == 2
    assert "has no task `gret`" in answer.stderr

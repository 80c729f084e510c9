"""`yarrow dags`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from yarrow.language.faults import Fault
from yarrow.store import Store
from yarrow.store.records import FileRecord

Yarrow = Callable[..., Any]


def test_without_a_database_it_says_what_to_do(yarrow: Yarrow, home: Path) -> None:
    answer = yarrow("dags", "list")
    assert answer.exit_code == 2
    assert answer.stderr == (
        f"Error: There is no database {home}/yarrow.db. Start `yarrow standalone`, run `yarrow db upgrade`, or name "
        "another home with YARROW_HOME.\n"
    )
    assert not home.exists()


def test_list(yarrow: Yarrow, store: Store) -> None:
    (listed,) = yarrow("dags", "list", "--json").json()
    assert (listed["dag_id"], listed["owner"], listed["last_run"]) == ("orders", "sales", None)
    assert "orders  @daily    -               -         active  sales  daily, demo" in yarrow("dags", "list").stdout


def test_list_of_nothing(yarrow: Yarrow, store: Store) -> None:
    store.catalog.deactivate(["orders"])
    assert yarrow("dags", "list").stdout == "There is no DAG yet. Drop a file in the DAG folder.\n"
    assert yarrow("dags", "list", "--json").json() == []
    assert "gone" in yarrow("dags", "list", "--all").stdout


def test_faults_are_shown(yarrow: Yarrow, store: Store) -> None:
    fault = Fault("orders.yaml", 3, 5, "YRW012", "Unknown key `retires`.", "Did you mean `retries`?")
    assert yarrow("dags", "errors").stdout == "No file has a fault.\n"
    store.catalog.record_files([FileRecord("orders.yaml", 1, 1, "x", "orders", (fault,))])
    line = "orders.yaml:3:5: error YRW012: Unknown key `retires`. Did you mean `retries`?"
    assert line in yarrow("dags", "list").stderr
    assert line in yarrow("dags", "show", "orders").stderr
    assert yarrow("dags", "show", "orders", "--json").json()["faults"][0]["line"] == 3
    answer = yarrow("dags", "errors", "--json")
    assert answer.exit_code == 1
    assert json.loads(answer.stdout) == [fault.to_json()]
    assert line in yarrow("dags", "errors").stderr


def test_show(yarrow: Yarrow, store: Store) -> None:
    shown = yarrow("dags", "show", "orders", "--json").json()
    assert list(shown["spec"]["tasks"]) == ["load", "report"]
    assert [version["number"] for version in shown["versions"]] == [1]
    text = yarrow("dags", "show", "orders").stdout
    assert "schedule:  @daily (UTC)" in text
    assert "params:    limit=10" in text
    assert "report  bash      load      all_success   0        default  default_pool" in text


def test_an_unknown_dag(yarrow: Yarrow, store: Store) -> None:
    answer = yarrow("dags", "show", "order")
    assert answer.exit_code == 2
    assert answer.stderr == "Error: There is no DAG 'order'. Did you mean 'orders'?\n"


def test_trigger(yarrow: Yarrow, store: Store, day: datetime) -> None:
    run = yarrow(
        "dags",
        "trigger",
        "orders",
        "--params",
        '{"limit": 3}',
        "--logical-date",
        "2026-01-01",
        "--run-id",
        "r1",
        "--json",
    ).json()
    assert (run["run_id"], run["state"], run["params"]) == ("r1", "queued", {"limit": 3})
    record = store.runs.get("orders", "r1")
    assert record.logical_date == day
    assert (record.triggered_by or "").startswith("cli")
    again = yarrow("dags", "trigger", "orders", "--run-id", "r1")
    assert again.exit_code == 2
    assert "Error: " in again.stderr
    assert "Run r2 of orders is queued." in yarrow("dags", "trigger", "orders", "--run-id", "r2").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--params", "{"], "{ is not JSON"),
        (["--params", "[]"], "[] is not a JSON object"),
        (["--params", '{"limit": "x"}'], "limit"),
        (["--params", '{"limti": 1}'], "limti"),
        (["--logical-date", "yesterday"], "'yesterday' is not a date or a moment such as"),
    ],
)
def test_a_wrong_trigger(yarrow: Yarrow, store: Store, arguments: list[str], message: str) -> None:
    answer = yarrow("dags", "trigger", "orders", *arguments)
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert store.runs.list("orders") == []


def test_pause_and_unpause(yarrow: Yarrow, store: Store) -> None:
    assert yarrow("dags", "pause", "orders").stdout == "orders is paused now.\n"
    assert yarrow("dags", "pause", "orders").stdout == "orders is paused already.\n"
    assert store.catalog.dag("orders").is_paused
    answer = yarrow("dags", "trigger", "orders")
    assert "`yarrow dags unpause orders`" in answer.stderr
    assert yarrow("dags", "unpause", "orders").stdout == "orders is not paused now.\n"
    assert not store.catalog.dag("orders").is_paused


def test_pausing_is_all_or_nothing(yarrow: Yarrow, store: Store) -> None:
    assert yarrow("dags", "pause", "orders", "nothing").exit_code == 2
    assert not store.catalog.dag("orders").is_paused


def test_lint(yarrow: Yarrow, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("tasks:\n  a: {operator: empty}\n")
    assert yarrow("dags", "lint", good).stdout == "No fault.\n"
    assert yarrow("dags", "lint", good, "--json").json() == []
    bad.write_text("tasks:\n  a: {operator: empyt}\n")
    answer = yarrow("dags", "lint", tmp_path, "--json")
    assert answer.exit_code == 1
    (fault,) = json.loads(answer.stdout)
    assert set(fault) == {"file", "line", "column", "code", "severity", "message", "hint"}
    assert (fault["line"], fault["column"], fault["code"]) == (2, 17, "YRW032")
    answer = yarrow("dags", "lint", bad)
    assert answer.exit_code == 1
    assert "bad.yaml:2:17: error YRW032" in answer.stdout
    assert answer.stderr == "1 fault\n"
    assert yarrow("dags", "lint", tmp_path / "nowhere").exit_code == 2


def test_lint_warns_of_a_queue_that_is_not_configured(yarrow: Yarrow, tmp_path: Path) -> None:
    file = tmp_path / "gpu.yaml"
    file.write_text("tasks: {a: {operator: empty, queue: gpu}}\n")
    answer = yarrow("dags", "lint", file)
    assert answer.exit_code == 0
    assert "warning YRW090: The queue `gpu` of the task `a` is not configured. There are: default" in answer.stdout


def test_lint_knows_how_long_past_runs_took(
    yarrow: Yarrow, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = {"orders": {"load": 5400.0, "report": 1800.0}}
    monkeypatch.setattr("yarrow.store.history.History.durations", lambda self: took)
    file = tmp_path / "orders.yaml"
    text = "tasks: {load: {operator: empty}, report: {operator: empty, depends_on: [load]}}\n"
    file.write_text(f"deadline: {{after: 119m, from: queued_at}}\n{text}")
    answer = yarrow("dags", "lint", file)
    assert answer.exit_code == 0
    assert "orders.yaml:1:11: warning YRW094" in answer.stdout
    assert "past runs took 2h on the way load → report" in answer.stdout
    file.write_text(f"deadline: 2h\n{text}")
    assert yarrow("dags", "lint", file).stdout == "No fault.\n"


def test_lint_of_a_deadline_without_a_database(yarrow: Yarrow, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text("deadline: 1s\ntasks: {load: {operator: empty}}\n")
    assert yarrow("dags", "lint", file).stdout == "No fault.\n"
    assert not home.exists()


def test_schema(yarrow: Yarrow) -> None:
    schema = yarrow("schema").json()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_db_upgrade(yarrow: Yarrow, home: Path) -> None:
    assert "was upgraded from nothing to revision" in yarrow("db", "upgrade").stdout
    assert (home / "yarrow.db").exists()
    assert "up to date" in yarrow("db", "upgrade").stdout
    assert yarrow("dags", "list", "--json").json() == []

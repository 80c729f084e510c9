"""`yarrow dags versions`, and a version in `yarrow dags show`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from yarrow.language.loader import load_text
from yarrow.store import Store

Yarrow = Callable[..., Any]

TEXT = """
dag_id: orders
description: Loads orders
owner: sales
tags: [daily, demo]
schedule: "@daily"
start_date: 2026-01-01
params: {limit: {type: integer, default: 10}}
tasks:
  load: {operator: bash, with: {command: "echo {{ params.limit }}"}, retries: 1}
  report: {operator: bash, with: {command: "echo done"}, depends_on: [load]}
"""


def publish(store: Store, *edits: tuple[str, str]) -> str:
    text = TEXT
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    spec = load_text(text, "orders.yaml").spec
    assert spec is not None
    store.catalog.publish([(spec, text, "orders.yaml")])
    return spec.version


@pytest.fixture
def second(store: Store) -> str:
    """The hash of a second version of the DAG."""
    return publish(store, ('"@daily"', '"0 6 * * *"'), ("tasks:\n", "tasks:\n  check: {operator: empty}\n"))


def test_versions(yarrow: Yarrow, store: Store, second: str) -> None:
    store.runs.trigger("orders", params={}, logical_date=None, run_id="r", who="me")
    newest, first = yarrow("dags", "versions", "orders", "--json").json()
    assert (newest["number"], newest["version"], newest["deployed"]) == (2, second, True)
    assert (newest["runs"], newest["change"]) == ({"queued": 1}, "1 task added, schedule moved")
    assert (first["number"], first["runs"], first["deployed"]) == (1, {}, False)
    assert first["change"] == "the first version"
    assert first["created_at"].endswith("+00:00")

    lines = yarrow("dags", "versions", "orders").stdout.splitlines()
    assert lines[0].split() == ["VERSION", "HASH", "CREATED", "(UTC)", "NOW", "RUNS", "CHANGE"]
    assert lines[1].startswith(f"2        {second[:12]}  20")
    assert lines[1].endswith("deployed  1 queued  1 task added, schedule moved")
    assert lines[2].endswith("-         -         the first version")


def test_a_file_that_was_changed_back(yarrow: Yarrow, store: Store, second: str) -> None:
    publish(store)
    assert [one["deployed"] for one in yarrow("dags", "versions", "orders", "--json").json()] == [False, True]


def test_only_the_newest(yarrow: Yarrow, store: Store, second: str) -> None:
    answer = yarrow("dags", "versions", "orders", "--limit", "1")
    assert len(answer.stdout.splitlines()) == 2
    assert "1 task added" in answer.stdout
    assert answer.stderr == "1 older ones are not shown; --limit shows more.\n"


def test_an_unknown_dag(yarrow: Yarrow, store: Store) -> None:
    answer = yarrow("dags", "versions", "order")
    assert answer.exit_code == 2
    assert answer.stderr == "Error: There is no DAG 'order'. Did you mean 'orders'?\n"


def test_show_an_older_version(yarrow: Yarrow, store: Store, second: str) -> None:
    shown = yarrow("dags", "show", "orders").stdout
    assert f"version:   2 ({second[:12]})\n" in shown
    assert "schedule:  0 6 * * * (UTC)" in shown
    older = yarrow("dags", "show", "orders", "--version", "1").stdout
    assert "version:   1 (" in older
    assert "), which new runs do not get\n" in older
    assert "schedule:  @daily (UTC)" in older
    assert "next run:  -" in older
    assert "check" not in older
    for version, number, tasks in ((second[:7], 2, ["check", "load", "report"]), ("1", 1, ["load", "report"])):
        data = yarrow("dags", "show", "orders", "--version", version, "--json").json()
        assert (data["spec_version"], list(data["spec"]["tasks"])) == (number, tasks)


def test_show_a_version_that_there_is_not(yarrow: Yarrow, store: Store) -> None:
    answer = yarrow("dags", "show", "orders", "--version", "7")
    assert answer.exit_code == 2
    assert answer.stderr == (
        "Error: The DAG 'orders' has no version 7. Its versions are 1 to 1; `yarrow dags versions orders` shows them.\n"
    )

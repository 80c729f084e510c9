"""`yarrow runs`, `yarrow tasks show` and `yarrow tasks logs`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from yarrow.clock import utc_now
from yarrow.decide import decide
from yarrow.language.spec import DeadlineSpec
from yarrow.logs import LogStore
from yarrow.plans.requests import ClearRequest
from yarrow.protocol import LogLine, Report
from yarrow.states import RunState
from yarrow.store import Store
from yarrow.store.records import RunRecord

Yarrow = Callable[..., Any]


@pytest.fixture
def run(store: Store, day: datetime) -> RunRecord:
    """A run that somebody has started."""
    return store.runs.trigger("orders", params={}, logical_date=day, run_id="r1", who="test")


def finish(store: Store, run: RunRecord, home: Path, state: str) -> None:
    """Plays scheduler and worker until the run has ended, with the first task in that state."""
    logs = LogStore(f"file://{home}/logs")
    store.runs.start_due()
    for _ in range(4):
        snapshot = store.runs.snapshot(run.id)
        if snapshot is None:
            return
        decisions = decide(snapshot.spec, snapshot.record.view, snapshot.tasks, utc_now(), snapshot.xcoms)
        store.runs.apply(run.id, decisions, snapshot.record.change_seq)
        store.attempts.grant(10)
        while claimed := store.attempts.next_for("default", "w1", 60):
            number = (claimed.dag_id, claimed.run_id, claimed.task_id, -1, claimed.try_number)
            line = LogLine("2026-01-01T10:00:00.123456+00:00", "log", f"try {claimed.try_number}", "INFO")
            logs.append(*number, [line, LogLine("2026-01-01T10:00:01.000000+00:00", "stdout", "printed")])
            report = Report(
                claimed.attempt_id, state, reason="out of luck" if state == "failed" else None, retryable=False
            )
            store.attempts.finish(report, claimed.nonce, "w1")


def test_list(yarrow: Yarrow, store: Store, run: RunRecord) -> None:
    (listed,) = yarrow("runs", "list", "--json").json()
    assert (listed["dag_id"], listed["run_id"], listed["state"]) == ("orders", "r1", "queued")
    assert listed["logical_date"] == "2026-01-01T00:00:00+00:00"
    assert yarrow("runs", "list", "orders", "--state", "success").stdout == "There is no run.\n"
    assert "orders  r1   manual  queued  2026-01-01 00:00:00" in yarrow("runs", "list", "orders").stdout
    assert yarrow("runs", "list", "nothing").exit_code == 2


def test_show(yarrow: Yarrow, store: Store, run: RunRecord, home: Path) -> None:
    finish(store, run, home, "success")
    shown = yarrow("runs", "show", "orders", "r1", "--json").json()
    assert shown["state"] == "success"
    assert [(task["task_id"], task["state"]) for task in shown["tasks"]] == [("load", "success"), ("report", "success")]
    text = yarrow("runs", "show", "orders").stdout
    assert text.startswith("orders r1: success\n")
    assert "interval:   2026-01-01 00:00:00 to 2026-01-02 00:00:00 UTC" in text
    assert "params:     limit=10" in text
    assert "load    success  1/2  default" in text


def test_show_tells_what_came_from_the_cache(yarrow: Yarrow, store: Store, run: RunRecord) -> None:
    store.runs.start_due()
    snapshot = store.runs.snapshot(run.id)
    assert snapshot is not None
    decisions = decide(snapshot.spec, snapshot.record.view, snapshot.tasks, utc_now(), snapshot.xcoms)
    store.runs.apply(run.id, decisions, snapshot.record.change_seq)
    store.attempts.grant(10)
    claimed = store.attempts.next_for("default", "w1", 60)
    assert claimed is not None
    store.attempts.finish(Report(claimed.attempt_id, "success", cache_key="a" * 64, cached=True), claimed.nonce, "w1")
    text = yarrow("runs", "show", "orders", "r1").stdout
    assert "load    success (cached)  1/2" in text
    assert text.count("cached") == 1
    shown = yarrow("runs", "show", "orders", "r1", "--json").json()
    assert [(task["state"], task["cached"]) for task in shown["tasks"]] == [("success", True), ("none", False)]


def test_show_tells_of_missed_deadlines(yarrow: Yarrow, store: Store) -> None:
    spec = store.catalog.spec("orders")
    tasks = {**spec.tasks, "load": replace(spec.tasks["load"], deadline=DeadlineSpec(7200.0, "queued_at"))}
    late = replace(spec, tasks=tasks, deadline=DeadlineSpec(3600.0, "queued_at"))
    store.catalog.publish([(late, "source", "orders.yaml")])
    queued_at = store.runs.trigger("orders", run_id="late", who="test").queued_at
    store.deadlines.judge(queued_at + timedelta(hours=3))
    text = yarrow("runs", "show", "orders", "late").stdout
    assert f"deadline:   missed, {queued_at + timedelta(hours=1):%Y-%m-%d %H:%M:%S} UTC" in text
    assert f"deadline:   missed by load, {queued_at + timedelta(hours=2):%Y-%m-%d %H:%M:%S} UTC" in text
    missed = yarrow("runs", "show", "orders", "late", "--json").json()["missed_deadlines"]
    assert sorted(one["task_id"] for one in missed) == ["", "load"]


def test_show_of_a_dag_without_runs(yarrow: Yarrow, store: Store) -> None:
    answer = yarrow("runs", "show", "orders")
    assert answer.exit_code == 2
    assert answer.stderr == "Error: The DAG 'orders' has no run yet. Start one with `yarrow dags trigger orders`.\n"


def test_watch_of_a_run_that_succeeded(yarrow: Yarrow, store: Store, run: RunRecord, home: Path) -> None:
    finish(store, run, home, "success")
    answer = yarrow("runs", "watch", "orders", "r1")
    assert answer.exit_code == 0
    told = [line.split(" ", 1)[1] for line in answer.stdout.splitlines()]
    assert told[0] == "run queued"
    assert "load success" in told
    assert told[-1] == "run success"
    lines = yarrow("runs", "watch", "orders", "--json").stdout.splitlines()
    assert json.loads(lines[-1])["to_state"] == "success"


def test_watch_of_a_run_that_failed(yarrow: Yarrow, store: Store, run: RunRecord, home: Path) -> None:
    finish(store, run, home, "failed")
    assert store.runs.get("orders", "r1").state is RunState.FAILED
    answer = yarrow("runs", "watch", "orders")
    assert answer.exit_code == 1
    assert "load failed: out of luck" in answer.stdout
    assert "report upstream_failed" in answer.stdout


def test_a_task_shows_each_attempt_before_it_was_cleared(
    yarrow: Yarrow, store: Store, run: RunRecord, home: Path
) -> None:
    assert yarrow("tasks", "show", "orders", "r1", "load").stdout.endswith("It has not been tried yet.\n")
    finish(store, run, home, "failed")
    store.plans.carry_out(ClearRequest(dag_id="orders", run_ids=("r1",), tasks="load+"), who="ann")
    head, _, columns, *rows = yarrow("tasks", "show", "orders", "r1", "load").stdout.splitlines()
    assert head == "load of orders r1: none"
    assert columns.split()[:2] == ["TRY", "STATE"]
    assert [row.split()[:2] for row in rows] == [["1", "failed"]]
    assert rows[0].endswith("w1      out of luck")

    finish(store, run, home, "success")
    shown = yarrow("tasks", "show", "orders", "-", "load", "--json").json()
    tries = [(one["try_number"], one["state"], one["worker_id"], one["reason"]) for one in shown["attempts"]]
    assert (shown["state"], tries) == ("success", [(1, "failed", "w1", "out of luck"), (2, "success", "w1", None)])
    assert "try 1" in yarrow("tasks", "logs", "orders", "r1", "load", "--try", "1").stdout
    assert yarrow("tasks", "show", "orders", "r1", "laod").exit_code == 2


def test_logs(yarrow: Yarrow, store: Store, run: RunRecord, home: Path) -> None:
    finish(store, run, home, "success")
    expected = "10:00:00.123 INFO try 1\n10:00:01.000 printed\n"
    assert yarrow("tasks", "logs", "orders", "r1", "load").stdout == expected
    assert yarrow("tasks", "logs", "orders", "-", "load", "--try", "1").stdout == expected
    assert yarrow("tasks", "logs", "orders", "-", "load", "--follow").stdout == expected
    lines = yarrow("tasks", "logs", "orders", "-", "load", "--json").stdout.splitlines()
    assert json.loads(lines[0]) == {
        "at": "2026-01-01T10:00:00.123456+00:00",
        "stream": "log",
        "text": "try 1",
        "level": "INFO",
    }


def test_logs_of_a_failed_task_end_with_the_reason(yarrow: Yarrow, store: Store, run: RunRecord, home: Path) -> None:
    finish(store, run, home, "failed")
    assert yarrow("tasks", "logs", "orders", "r1", "load").stderr == "failed: out of luck\n"


def test_logs_that_are_not_there(yarrow: Yarrow, store: Store, run: RunRecord, home: Path) -> None:
    answer = yarrow("tasks", "logs", "orders", "r1", "load")
    assert answer.exit_code == 2
    assert answer.stderr == "Error: The task 'load' has not been started: it is none.\n"
    finish(store, run, home, "success")
    answer = yarrow("tasks", "logs", "orders", "r1", "load", "--try", "7")
    assert answer.stderr == "Error: The task 'load' has no try 7. There is try 1 alone.\n"
    assert yarrow("tasks", "logs", "orders", "r1", "laod").exit_code == 2

"""`yarrow tasks mark` and `yarrow runs mark`, on a real database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from played import Played
from yarrow.store import Store

Yarrow = Callable[..., Any]

SALES = """
dag_id: sales
schedule: "@daily"
start_date: 2026-01-01
tasks:
  load: {operator: bash, with: {command: date}}
  report: {operator: bash, with: {command: date}, depends_on: [load]}
  send: {operator: bash, with: {command: date}, depends_on: [report]}
"""
DAY = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def played(store: Store) -> Played:
    """A run that failed at `load`, and one whose `load` runs."""
    played = Played(store)
    played.publish(SALES)
    played.run("sales", "bad", DAY, ["failed"])
    played.run("sales", "busy", DAY + timedelta(days=1))
    played.claim()
    return played


def reasons(played: Played, run_id: str) -> list[str | None]:
    run = played.store.runs.get("sales", run_id)
    return [task.reason for task in played.store.runs.task_instances(run.id)]


def test_a_task_is_marked_and_the_run_goes_on(yarrow: Yarrow, played: Played) -> None:
    answer = yarrow("tasks", "mark", "success", "sales", "bad", "load", "--reason", "loaded by hand")
    assert answer.exit_code == 0, answer.stderr
    shown = answer.stdout.splitlines()
    assert shown[0].endswith(" of sales: mark load of bad as success: loaded by hand")
    assert shown[2] == "bad of 2026-01-01 00:00 UTC: failed -> queued"
    assert [line.split() for line in shown[3:6]] == [
        ["load", "failed", "->", "success", "mark", "selected", "try", "1", "is", "kept"],
        ["report", "upstream_failed", "->", "none", "clear", "downstream", "of", "load"],
        ["send", "upstream_failed", "->", "none", "clear", "downstream", "of", "load"],
    ]
    assert shown[-1] == "Marked 1 task instance in 1 run of sales as success, and cleared 2 downstream."
    assert played.states("sales", "bad") == {"load": "success", "report": "none", "send": "none"}
    assert "loaded by hand" in str(reasons(played, "bad")[0])


def test_tasks_of_several_runs(yarrow: Yarrow, played: Played) -> None:
    plan = yarrow("tasks", "mark", "skipped", "sales", "--from", "2026-01-01", "send", "--json").json()
    assert [run["run_id"] for run in plan["runs"]] == ["bad", "busy"]
    assert played.states("sales", "busy")["send"] == "skipped"
    assert played.states("sales", "bad")["send"] == "skipped"


def test_a_running_task_is_stopped(yarrow: Yarrow, played: Played) -> None:
    shown = yarrow("tasks", "mark", "failed", "sales", "-", "load").stdout
    assert "stop and mark" in shown
    assert shown.splitlines()[-1] == "1 of these is still running: its worker is told to stop."


def test_runs_are_marked_as_a_whole(yarrow: Yarrow, played: Played) -> None:
    shown = yarrow("runs", "mark", "failed", "sales", "busy", "--reason", "not wanted").stdout
    assert "busy of 2026-01-02 00:00 UTC: running -> failed" in shown
    assert "Marked 1 run of sales as failed.\n1 of these is still running" in shown
    run = played.store.runs.get("sales", "busy")
    assert (run.state, "not wanted" in str(run.reason)) == ("failed", True)
    yarrow("runs", "mark", "success", "sales", "bad", "busy", "--yes")
    assert [played.store.runs.get("sales", name).state for name in ("bad", "busy")] == ["success", "success"]


def test_a_dry_run_changes_nothing(yarrow: Yarrow, played: Played) -> None:
    before = played.tables("plan")
    assert "Nothing is changed." in yarrow("runs", "mark", "success", "sales", "bad", "--dry-run").stdout
    assert "Nothing is changed." in yarrow("tasks", "mark", "success", "sales", "bad", "load+", "--dry-run").stdout
    assert played.tables("plan") == before


WRONG = [
    (("tasks", "mark", "running", "sales", "bad", "load"), "'running' is not one of"),
    (("tasks", "mark", "success", "sale", "bad", "load"), "Did you mean 'sales'?"),
    (("tasks", "mark", "success", "sales", "worse", "load"), "no run 'worse'"),
    (("tasks", "mark", "success", "sales", "bad", "lode"), "Did you mean `load`?"),
    (("tasks", "mark", "success", "sales", "bad"), "Which tasks?"),
    (("tasks", "mark", "success", "sales"), "Which runs of sales?"),
    (("tasks", "mark", "failed", "sales", "bad", "load"), "nothing to do"),
    (("tasks", "mark", "failed", "sales", "load", "--from", "2026-01-09", "--to", "2026-01-01"), "2026-01-09"),
    (("runs", "mark", "skipped", "sales", "bad"), "'skipped' is not one of"),
    (("runs", "mark", "failed", "sales", "worse"), "no run 'worse'"),
    (("runs", "mark", "failed", "sales", "bad"), "nothing to do"),
    (("runs", "mark", "failed", "sales"), "Which runs of sales?"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_what_can_not_be_marked_is_told_in_a_sentence(
    yarrow: Yarrow, played: Played, arguments: tuple[str, ...], words: str
) -> None:
    before = played.tables("plan")
    for how in ((), ("--yes",)):
        answer = yarrow(*arguments, *how)
        assert answer.exit_code == 2, answer.stdout
        assert words in answer.stderr.replace("\n", " ")
        assert "Traceback" not in answer.stderr
    assert played.tables("plan") == before

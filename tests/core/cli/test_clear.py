"""`yarrow tasks clear` and `yarrow runs clear`, on a real database."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from played import Played
from yarrow.store import Store

Yarrow = Callable[..., Any]

SALES = """
dag_id: sales
tags: [daily]
schedule: "@daily"
start_date: 2026-01-01
timezone: America/New_York
tasks:
  extract: {operator: bash, with: {command: "echo 1", output: last_line}, cache: {ttl: 1d}}
  load: {operator: bash, with: {command: "echo {{ xcom.extract }}"}}
  report: {operator: bash, with: {command: "true"}, depends_on: [load]}
"""
DAY = datetime(2026, 1, 1, 5, tzinfo=UTC)


@pytest.fixture
def played(store: Store) -> Played:
    """A run that went well, one that failed at `load`, and one whose `load` runs."""
    played = Played(store)
    played.publish(SALES)
    played.run("sales", "good", DAY, ["success", "success", "success"])
    played.run("sales", "bad", DAY + timedelta(days=1), ["success", "failed"])
    played.run("sales", "busy", DAY + timedelta(days=2), ["success"])
    claimed = played.claim()
    assert (claimed.run_id, claimed.task_id) == ("busy", "load")
    return played


def test_a_failed_task_and_what_depends_on_it(yarrow: Yarrow, played: Played) -> None:
    answer = yarrow("tasks", "clear", "sales", "bad", "load+", "--reason", "fixed")
    assert answer.exit_code == 0, answer.stderr
    shown = answer.stdout.splitlines()
    assert re.fullmatch(r"Plan [0-9a-f]{12} of sales: clear load\+ of bad: fixed", shown[0])
    assert shown[2:5] == [
        "bad of 2026-01-02 00:00 (05:00 UTC): failed -> queued",
        "  load    failed -> none           clear  selected            try 1 is kept",
        "  report  upstream_failed -> none  clear  downstream of load",
    ]
    assert "Note: No XCom is lost. Every attempt stays, with its log." in shown
    assert shown[-1] == "Cleared 2 task instances in 1 run of sales."
    assert played.states("sales", "bad") == {"extract": "success", "load": "none", "report": "none"}
    assert played.store.runs.get("sales", "bad").state == "queued"


def test_a_dry_run_that_finds_nothing_to_do_offers_nothing_to_apply(yarrow: Yarrow, played: Played) -> None:
    answer = yarrow("tasks", "clear", "sales", "good", "load", "--only-running", "--dry-run")
    assert (answer.exit_code, answer.stdout.splitlines()[-1]) == (0, "Nothing is changed. There is nothing to apply.")
    refused = yarrow("tasks", "clear", "sales", "good", "load", "--only-running")
    assert (refused.exit_code, refused.stderr) == (
        2,
        "Error: There is nothing to do: nothing that is selected is running.\n",
    )


def test_a_dry_run_changes_nothing_and_is_applied_later(yarrow: Yarrow, played: Played) -> None:
    before = played.tables("plan")
    shown = yarrow("tasks", "clear", "sales", "good", "load", "--downstream", "--dry-run").stdout
    assert played.tables("plan") == before
    plan_id = re.findall(r"Nothing is changed\. Apply it with `yarrow plans apply (\w+)`\.\n$", shown)[0]
    assert "its XCom is lost" in shown
    assert "Note: 2 XComs are lost: of load and report. Every attempt stays, with its log." in shown
    answer = yarrow("plans", "apply", plan_id[:6])
    assert answer.stdout == "Cleared 2 task instances in 1 run of sales.\n"
    assert played.states("sales", "good") == {"extract": "success", "load": "none", "report": "none"}


def test_yes_does_it_at_once(yarrow: Yarrow, played: Played) -> None:
    assert "Cleared 3 task instances in 1 run" in yarrow("tasks", "clear", "sales", "good", "*", "--yes").stdout
    [(plan, count)] = played.store.plans.list()
    assert count == 1
    assert plan.applied_at is not None


def test_json_is_the_applied_plan(yarrow: Yarrow, played: Played) -> None:
    drawn = yarrow("runs", "clear", "sales", "bad", "--only-failed", "--dry-run", "--json").json()
    assert (drawn["applied_at"], [task["task_id"] for task in drawn["runs"][0]["tasks"]]) == (None, ["load", "report"])
    done = yarrow("runs", "clear", "sales", "bad", "--only-failed", "--json").json()
    assert done["applied_by"].startswith("cli")
    assert done["runs"] == drawn["runs"]
    assert played.states("sales", "bad")["load"] == "none"


def test_what_runs_is_stopped_first(yarrow: Yarrow, played: Played) -> None:
    shown = yarrow("tasks", "clear", "sales", "-", "load", "--only-running").stdout
    assert "busy of 2026-01-03 00:00 (05:00 UTC): stays running" in shown
    assert "stop and clear" in shown
    assert shown.endswith("1 of these is still running: its worker is told to stop.\n")
    assert played.states("sales", "busy")["load"] == "running"


def test_a_span_of_runs(yarrow: Yarrow, played: Played) -> None:
    """A date is local to the DAG; the last one is that whole day."""
    plan = yarrow("runs", "clear", "sales", "--from", "2026-01-01", "--to", "2026-01-02", "--dry-run", "--json").json()
    assert [run["run_id"] for run in plan["runs"]] == ["good", "bad"]
    assert plan["request"]["from_date"] == "2026-01-01T05:00:00+00:00"
    assert plan["request"]["to_date"] == "2026-01-03T04:59:59.999999+00:00"
    one = yarrow("tasks", "clear", "sales", "load", "--from", "2026-01-02T00:00", "--dry-run", "--json").json()
    assert [run["run_id"] for run in one["runs"]] == ["bad", "busy"]
    assert {task["task_id"] for run in one["runs"] for task in run["tasks"]} == {"load"}


def test_past_and_future(yarrow: Yarrow, played: Played) -> None:
    past = yarrow("runs", "clear", "sales", "bad", "--past", "--dry-run", "--json").json()
    assert [run["run_id"] for run in past["runs"]] == ["good", "bad"]
    future = yarrow("tasks", "clear", "sales", "bad", "report", "--future", "--upstream", "--dry-run", "--json").json()
    assert [run["run_id"] for run in future["runs"]] == ["bad", "busy"]
    assert len(future["runs"][0]["tasks"]) == 3


def test_the_newest_version(yarrow: Yarrow, played: Played) -> None:
    played.publish(SALES + "  audit: {operator: bash, with: {command: date}, depends_on: [report]}\n")
    shown = yarrow("tasks", "clear", "sales", "good", "report", "--latest-version").stdout
    assert "good goes on in version 2 instead of 1: `audit` is new in it: it runs too, selected or not." in shown
    assert played.states("sales", "good") == {
        "extract": "success",
        "load": "success",
        "report": "none",
        "audit": "none",
    }


def test_a_cached_result_is_told_not_to_count(yarrow: Yarrow, played: Played) -> None:
    shown = yarrow("tasks", "clear", "sales", "good", "extract+", "--dry-run").stdout
    assert "The cached results of extract are not used" in shown


def test_a_paused_dag_is_told_with_the_plan_and_afterwards(yarrow: Yarrow, played: Played) -> None:
    played.store.catalog.set_paused("sales", True, "test")
    refused = yarrow("runs", "clear", "sales", "bad")
    assert (refused.exit_code, "sales is paused: none of its tasks would run." in refused.stderr) == (2, True)
    shown = yarrow("runs", "clear", "sales", "bad", "--while-paused").stdout
    words = "sales is paused: runs wait until `yarrow dags unpause sales`."
    assert f"Note: {words}\n" in shown
    assert shown.splitlines()[-1] == words


WRONG = [
    (("tasks", "clear", "sale", "good", "load"), "Did you mean 'sales'?"),
    (("tasks", "clear", "sales", "goood", "load"), "no run 'goood'"),
    (("tasks", "clear", "sales", "good", "laod"), "Did you mean `load`?"),
    (("tasks", "clear", "sales", "good", "tag:weekly"), "tag:weekly"),
    (("tasks", "clear", "sales", "good", "+"), "is no selector"),
    (("tasks", "clear", "sales", "good", ""), "selector is empty"),
    (("tasks", "clear", "sales", "good"), "Which tasks? Name them after the run"),
    (("tasks", "clear", "sales"), "Which runs of sales?"),
    (("tasks", "clear", "sales", "-", "load", "--from", "2026-01-01"), "not both"),
    (("tasks", "clear", "sales", "good", "load", "--from", "2026-01-01"), "no task `good`"),
    (("tasks", "clear", "sales", "good", "load", "--map-index", "3"), "load"),
    (("tasks", "clear", "sales", "good", "load", "--only-failed"), "nothing to do"),
    (("runs", "clear", "sales"), "Which runs of sales?"),
    (("runs", "clear", "sales", "good", "--to", "2026-01-01"), "not both"),
    (("runs", "clear", "sales", "--from", "2026-01-05", "--to", "2026-01-01"), "2026-01-05"),
    (("runs", "clear", "sales", "--from", "2027-01-05"), "no runs in that span"),
    (("runs", "clear", "sales", "--from", "yesterday"), "'yesterday' is not a date"),
    (("runs", "clear", "sales", "good", "nope"), "no run 'nope'"),
    (("runs", "clear", "orders", "-"), "has no run yet"),
    (("runs", "clear", "orders", "good"), "no run 'good'"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_what_can_not_be_cleared_is_told_in_a_sentence(
    yarrow: Yarrow, played: Played, arguments: tuple[str, ...], words: str
) -> None:
    before = played.tables("plan")
    for how in ((), ("--json",)):
        answer = yarrow(*arguments, *how)
        assert answer.exit_code == 2, answer.stdout
        assert words in answer.stderr.replace("\n", " ")
        assert "Traceback" not in answer.stderr
    assert played.tables("plan") == before
    assert not any(plan.applied_at for plan, _ in played.store.plans.list())

"""`yarrow backfill`, on a real database."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from played import Played
from yarrow.cli import watch_backfill
from yarrow.store import Store

Yarrow = Callable[..., Any]

SALES = """
dag_id: sales
tags: [daily]
schedule: "@daily"
start_date: 2026-01-01
end_date: 2026-02-01
timezone: America/New_York
params: {limit: {type: integer, default: 10}}
tasks:
  load: {operator: bash, with: {command: "echo 1", output: last_line}}
  report: {operator: bash, with: {command: "echo {{ xcom.load }}"}}
"""
SPAN = ("--from", "2026-01-01", "--to", "2026-01-04")


@pytest.fixture
def played(store: Store) -> Played:
    """The run of the second day went well, that of the third failed, and that of the fourth runs."""
    played = Played(store)
    played.publish(SALES)
    played.run("sales", "good", datetime(2026, 1, 2, 5, tzinfo=UTC), ["success", "success"])
    played.run("sales", "bad", datetime(2026, 1, 3, 5, tzinfo=UTC), ["failed"])
    played.run("sales", "busy", datetime(2026, 1, 4, 5, tzinfo=UTC))
    played.claim()
    return played


def actions(plan: Any) -> dict[str, str]:
    return {run["run_id"]: run["action"] for run in plan["runs"]}


FIRST = "backfill__2026-01-01T05:00:00+00:00"


def test_what_is_there_is_left_alone(yarrow: Yarrow, played: Played) -> None:
    before = played.store.runs.list("sales")
    answer = yarrow("backfill", "create", "sales", *SPAN, "--reason", "new prices")
    assert answer.exit_code == 0, answer.stderr
    shown = answer.stdout.splitlines()
    assert shown[0].endswith(
        " of sales: backfill 2026-01-01 05:00 to 2026-01-05 04:59:59 UTC, 10 at a time: new prices"
    )
    assert shown[2].split() == ["LOGICAL", "DATE", "RUN", "ACTION"]
    assert shown[3] == f"2026-01-01 00:00 (05:00 UTC)  {FIRST}  create 2 tasks"
    assert [line.split()[4] for line in shown[4:7]] == ["good", "bad", "busy"]
    assert all("skip: " in line for line in shown[4:7])
    assert "in flight" in shown[6]
    assert shown[-2:] == [
        "The backfill 1 of sales has begun: 1 run.",
        "`yarrow backfill watch 1` shows how it goes.",
    ]
    after = played.store.runs.list("sales")
    assert [record for record in after if record.run_id != FIRST] == before
    made = played.store.runs.get("sales", FIRST)
    assert (made.run_type, made.state, made.backfill_id, made.priority_class) == ("backfill", "queued", 1, -1)


def test_a_run_that_has_not_started_tells_that_it_has_no_tasks_yet(yarrow: Yarrow, played: Played) -> None:
    yarrow("backfill", "create", "sales", *SPAN, "--yes")
    played.store.backfills.pause(1, "test")
    shown = yarrow("runs", "show", "sales", FIRST).stdout
    assert "  backfill:   1, run 1 of 1 (paused)\n" in shown
    assert shown.endswith("\n\nThe run has not started: its tasks are made when it does.\n")
    assert yarrow("runs", "show", "sales", "-").stdout.startswith(f"sales {FIRST}: queued")
    answer = yarrow("tasks", "show", "sales", FIRST, "load")
    assert (answer.exit_code, "has not started: its tasks are made when it does" in answer.stderr) == (2, True)


def test_failed_runs_are_rerun_from_what_failed_on(yarrow: Yarrow, played: Played) -> None:
    plan = yarrow("backfill", "create", "sales", *SPAN, "--reprocess", "failed", "--json").json()
    assert actions(plan) == {FIRST: "create", "good": "skip", "bad": "rerun failed", "busy": "skip"}
    assert plan["result"] == {"backfill_id": 1}
    assert played.store.runs.get("sales", "bad").state == "queued"


def test_completed_runs_are_rerun_whole(yarrow: Yarrow, played: Played) -> None:
    words = (*SPAN, "--reprocess", "completed", "--dry-run", "--json")
    plan = yarrow("backfill", "create", "sales", *words).json()
    assert actions(plan) == {FIRST: "create", "good": "rerun all", "bad": "rerun all", "busy": "skip"}
    failed = (*SPAN, "--reprocess", "failed", "--whole-runs", "--dry-run", "--json")
    assert actions(yarrow("backfill", "create", "sales", *failed).json())["bad"] == "rerun all"


def test_what_was_asked_for_is_in_the_request(yarrow: Yarrow, played: Played) -> None:
    words = ("--tasks", "load", "--max-active-runs", "3", "--run-backwards", "--params", '{"limit": 5}')
    plan = yarrow("backfill", "create", "sales", *SPAN, *words, "--priority", "7", "--dry-run", "--json").json()
    assert plan["request"] == {
        "kind": "backfill",
        "dag_id": "sales",
        "from_date": "2026-01-01T05:00:00+00:00",
        "to_date": "2026-01-05T04:59:59.999999+00:00",
        "tasks": "load",
        "max_active_runs": 3,
        "run_backwards": True,
        "params": {"limit": 5},
        "priority_class": 7,
    }
    assert [run["run_id"] for run in plan["runs"]] == ["busy", "bad", "good", FIRST]


def test_the_priority_class_is_that_of_the_configuration(
    yarrow: Yarrow, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YARROW_BACKFILL_PRIORITY", "-5")
    plan = yarrow("backfill", "create", "sales", *SPAN, "--dry-run", "--json").json()
    assert plan["request"]["priority_class"] == -5


def test_a_dry_run_changes_nothing_and_is_applied_later(yarrow: Yarrow, played: Played) -> None:
    before = played.tables("plan")
    shown = yarrow("backfill", "create", "sales", *SPAN, "--dry-run").stdout
    assert played.tables("plan") == before
    plan_id = re.findall(r"Nothing is changed\. Apply it with `yarrow plans apply (\w+)`\.\n$", shown)[0]
    answer = yarrow("plans", "apply", plan_id)
    assert answer.stdout.startswith("The backfill 1 of sales has begun: 1 run.\n")
    assert played.store.backfills.get(1).plan_id == plan_id


def test_a_plan_that_others_have_overtaken_is_refused(yarrow: Yarrow, played: Played) -> None:
    plan_id = yarrow("backfill", "create", "sales", *SPAN, "--dry-run", "--json").json()["id"]
    assert yarrow("backfill", "create", "sales", *SPAN, "--yes").exit_code == 0
    before = played.tables()
    answer = yarrow("plans", "apply", plan_id)
    assert (answer.exit_code, "is out of date, and nothing was done" in answer.stderr) == (2, True)
    assert FIRST in answer.stderr
    assert played.tables() == before


def test_a_paused_dag_is_told(yarrow: Yarrow, played: Played) -> None:
    played.store.catalog.set_paused("sales", True, "test")
    before = played.tables()
    refused = yarrow("backfill", "create", "sales", *SPAN)
    assert (refused.exit_code, "sales is paused: none of its tasks would run." in refused.stderr) == (2, True)
    assert played.tables() == before
    shown = yarrow("backfill", "create", "sales", *SPAN, "--while-paused").stdout
    words = "sales is paused: runs wait until `yarrow dags unpause sales`."
    assert f"Note: {words}\n" in shown
    assert shown.splitlines()[-1] == words


def test_needed_outputs_are_told(yarrow: Yarrow, played: Played) -> None:
    words = (*SPAN, "--reprocess", "completed", "--tasks", "report", "--dry-run")
    shown = yarrow("backfill", "create", "sales", *words).stdout
    assert "report takes the XCom of load, which is not selected; it is there in 1 run." in shown
    assert "good" in shown


# Afterwards


@pytest.fixture
def begun(yarrow: Yarrow, played: Played) -> Played:
    """Of the backfill 1 a run is queued that it made, and one that is to run again."""
    assert yarrow("backfill", "create", "sales", *SPAN, "--reprocess", "failed", "--yes").exit_code == 0
    return played


def test_backfills_are_listed_and_shown(yarrow: Yarrow, begun: Played) -> None:
    heading, row = yarrow("backfill", "list").stdout.splitlines()
    columns = "ID DAG STATE OVER FAILED TO GO FROM (UTC) TO (UTC) BY"
    assert heading.split() == columns.split()
    assert row.split()[:6] == ["1", "sales", "queued", "0", "of", "2"]
    assert yarrow("backfill", "list", "orders").stdout == "There is no backfill.\n"
    assert [one["state"] for one in yarrow("backfill", "list", "sales", "--active", "--json").json()] == ["queued"]
    shown = yarrow("backfill", "show", "1").stdout
    assert shown.startswith("Backfill 1 of sales: queued, 0 of 2 runs over")
    assert "  from:       2026-01-01 00:00 (05:00 UTC)\n" in shown
    assert "  order:      oldest first, 10 at once\n" in shown
    assert yarrow("backfill", "show", "1", "--json").json()["run_count"] == 2


def test_a_backfill_is_paused_resumed_and_cancelled(yarrow: Yarrow, begun: Played) -> None:
    paused = yarrow("backfill", "pause", "1")
    assert paused.stdout == "The backfill 1 of sales is paused; `yarrow backfill resume 1` goes on.\n"
    assert begun.store.backfills.get(1).is_paused
    assert yarrow("backfill", "resume", "1").stdout.startswith("The backfill 1 of sales goes on: queued, 0 of 2 runs")
    assert not begun.store.backfills.get(1).is_paused
    cancelled = yarrow("backfill", "cancel", "1", "--reason", "wrong prices").stdout
    assert cancelled.startswith("The backfill 1 of sales is cancelled, 1 of 2 runs over")
    assert {run.run_id: run.state for run in begun.store.runs.list("sales")} == {
        "good": "success",
        "bad": "failed",
        "busy": "running",
    }
    assert "wrong prices" in str(begun.store.runs.get("sales", "bad").reason)
    assert yarrow("backfill", "list", "--active").stdout == "There is no backfill.\n"


def test_the_scheduler_is_woken(yarrow: Yarrow, begun: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[bool] = []
    monkeypatch.setattr("yarrow.cli.backfill.wake_scheduler", lambda _: woken.append(True))
    for verb in ("pause", "resume", "cancel"):
        yarrow("backfill", verb, "1")
    assert len(woken) == 3
    assert yarrow("backfill", "cancel", "1").exit_code == 2
    assert len(woken) == 3


def test_a_backfill_is_watched_until_it_is_over(yarrow: Yarrow, begun: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks a task runs."""
    outcomes = ["success", "success", "success", "failed"]

    def between(_: float) -> None:
        begun.store.runs.start_due()
        begun.step(outcomes.pop(0))

    monkeypatch.setattr(watch_backfill.time, "sleep", between)
    answer = yarrow("backfill", "watch", "1")
    assert answer.exit_code == 1
    lines = [re.sub(r", about .* to go", "", line[9:]) for line in answer.stdout.splitlines()]
    assert lines[0] == "queued, 0 of 2 runs over"
    assert lines[-1] == "completed, 2 of 2 runs over, 1 failed"
    assert "running, 1 of 2 runs over, 1 running" in lines
    assert len(set(lines)) == len(lines)
    again = yarrow("backfill", "watch", "1", "--json")
    assert (again.exit_code, json.loads(again.stdout)["state"]) == (1, "completed")


def test_a_backfill_that_goes_well_ends_the_watching_with_0(
    yarrow: Yarrow, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    def between(_: float) -> None:
        played.store.runs.start_due()
        played.step("success")

    monkeypatch.setattr(watch_backfill.time, "sleep", between)
    answer = yarrow("backfill", "create", "sales", *SPAN, "--watch")
    assert answer.exit_code == 0, answer.stdout
    assert answer.stdout.splitlines()[-1].endswith("completed, 1 of 1 run over")


def test_a_backfill_is_made_and_watched_as_lines_of_json(yarrow: Yarrow, begun: Played) -> None:
    begun.store.backfills.cancel(1, "test")
    words = ("--from", "2026-01-05", "--to", "2026-01-05", "--watch", "--json")

    def cancelled(_: float) -> None:
        begun.store.backfills.cancel(2, "test")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch_backfill.time, "sleep", cancelled)
        answer = yarrow("backfill", "create", "sales", *words)
    assert answer.exit_code == 1
    assert [json.loads(line)["state"] for line in answer.stdout.splitlines()] == ["queued", "cancelled"]


def test_watching_a_cancelled_backfill_ends_with_1(yarrow: Yarrow, begun: Played) -> None:
    yarrow("backfill", "cancel", "1")
    assert yarrow("backfill", "watch", "1").exit_code == 1


def test_ctrl_c_leaves_the_backfill_running(yarrow: Yarrow, begun: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    before = begun.tables()
    monkeypatch.setattr(watch_backfill.time, "sleep", interrupted)
    answer = yarrow("backfill", "watch", "1")
    assert answer.exit_code == 130
    assert "The backfill 1 goes on; `yarrow backfill watch 1` watches it again" in answer.stderr
    assert begun.tables() == before


WRONG = [
    (("sale", *SPAN), "Did you mean 'sales'?"),
    (("sales", "--from", "2026-01-04", "--to", "2026-01-01"), "would go from"),
    (("sales", "--from", "2027-01-04", "--to", "2027-01-05"), "in the future"),
    (("sales", "--from", "2026-01-02T01:00", "--to", "2026-01-02T02:00"), "has no logical date"),
    (("sales", "--from", "2026-01-02"), "Missing option '--to'"),
    (("sales", "--from", "soon", "--to", "2026-01-01"), "'soon' is not a date"),
    (("sales", "--from", "0001-01-01", "--to", "9999-12-31"), "out of the range of dates"),
    (("sales", *SPAN, "--tasks", "lode"), "Did you mean `load`?"),
    (("sales", *SPAN, "--tasks", ""), "selector is empty"),
    (("sales", *SPAN, "--tasks", "tag:weekly"), "tag:weekly"),
    (("sales", *SPAN, "--params", '{"limit": "many"}'), "limit"),
    (("sales", *SPAN, "--params", '{"limits": 1}'), "did you mean `limit`"),
    (("sales", *SPAN, "--params", "[1]"), "not a JSON object"),
    (("sales", *SPAN, "--reprocess", "some"), "'some' is not one of"),
    (("sales", *SPAN, "--whole-runs"), "failed"),
    (("sales", *SPAN, "--max-active-runs", "0"), "0 is not in the range"),
    (("sales", *SPAN, "--priority", "1000"), "1000 is not in the range"),
    (("sales", "--from", "2026-01-02", "--to", "2026-01-02"), "nothing to do"),
    (("sales", *SPAN, "--watch", "--dry-run"), "leave --watch out"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_what_can_not_be_backfilled_is_told_in_a_sentence(
    yarrow: Yarrow, played: Played, arguments: tuple[str, ...], words: str
) -> None:
    before = played.tables("plan")
    for how in ((), ("--yes",)):
        answer = yarrow("backfill", "create", *arguments, *how)
        assert answer.exit_code == 2, answer.stdout
        assert words in answer.stderr.replace("\n", " ")
        assert "Traceback" not in answer.stderr
    assert played.tables("plan") == before


@pytest.mark.parametrize("verb", ["show", "pause", "resume", "cancel", "watch"])
def test_a_backfill_that_there_is_not(yarrow: Yarrow, begun: Played, verb: str) -> None:
    before = begun.tables()
    for given in ("2", "0", "one", str(2**64)):
        answer = yarrow("backfill", verb, given)
        assert answer.exit_code == 2
        assert given in answer.stderr
        assert "Traceback" not in answer.stderr
    assert begun.tables() == before


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
def test_a_backfill_that_is_over_is_left_alone(yarrow: Yarrow, begun: Played, verb: str) -> None:
    yarrow("backfill", "cancel", "1")
    before = begun.tables()
    answer = yarrow("backfill", verb, "1")
    assert (answer.exit_code, "is cancelled" in answer.stderr) == (2, True)
    assert begun.tables() == before


def test_dags_without_data_intervals_can_not_be_backfilled(yarrow: Yarrow, played: Played) -> None:
    played.publish("dag_id: hand\ntasks: {a: {operator: empty}}\n")
    before = played.tables()
    answer = yarrow("backfill", "create", "hand", *SPAN)
    assert (answer.exit_code, "this one has no schedule" in answer.stderr) == (2, True)
    assert played.tables() == before

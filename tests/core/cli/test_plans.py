"""`yarrow plans`: listed, shown, applied once, and refused when something has changed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
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
"""


@pytest.fixture
def played(store: Store) -> Played:
    played = Played(store)
    played.publish(SALES)
    played.run("sales", "bad", datetime(2026, 1, 1, tzinfo=UTC), ["failed"])
    return played


@pytest.fixture
def plan_id(yarrow: Yarrow, played: Played) -> str:
    """A plan that was drawn."""
    found: str = yarrow("runs", "clear", "sales", "bad", "--dry-run", "--json").json()["id"]
    return found


def test_plans_are_listed_the_newest_first(yarrow: Yarrow, played: Played, plan_id: str) -> None:
    newer = yarrow("runs", "mark", "success", "sales", "bad", "--dry-run", "--json").json()["id"]
    heading, first, second = yarrow("plans", "list").stdout.splitlines()
    columns = ["PLAN", "DAG", "RUNS", "PLANNED", "(UTC)", "BY", "APPLIED", "(UTC)", "WHAT"]
    assert heading.split() == columns
    assert first.startswith(f"{newer}  sales  1 ")
    assert first.endswith("mark bad as success")
    assert second.startswith(plan_id)
    assert [plan["id"] for plan in yarrow("plans", "list", "sales", "--limit", "1", "--json").json()] == [newer]
    assert yarrow("plans", "list", "orders").stdout == "There is no plan.\n"
    unknown = yarrow("plans", "list", "sale")
    assert (unknown.exit_code, "Did you mean 'sales'" in unknown.stderr) == (2, True)


def test_a_plan_is_shown_by_the_beginning_of_its_id(yarrow: Yarrow, plan_id: str) -> None:
    shown = yarrow("plans", "show", plan_id[:6]).stdout
    assert shown.startswith(f"Plan {plan_id} of sales: clear all tasks of bad\n\n")
    assert yarrow("plans", "show", plan_id, "--json").json()["id"] == plan_id
    assert yarrow("plans", "show", plan_id, "--all").stdout == shown


def test_a_plan_is_applied_once(yarrow: Yarrow, played: Played, plan_id: str) -> None:
    answer = yarrow("plans", "apply", plan_id)
    assert answer.stdout == "Cleared 2 task instances in 1 run of sales.\n"
    assert "Applied at 20" in yarrow("plans", "show", plan_id).stdout
    before = played.tables()
    again = yarrow("plans", "apply", plan_id)
    assert again.exit_code == 2
    assert f"The plan {plan_id} was applied at 20" in again.stderr
    assert played.tables() == before


def test_an_applied_plan_as_json(yarrow: Yarrow, plan_id: str) -> None:
    assert yarrow("plans", "apply", plan_id, "--json").json()["applied_at"] is not None


def test_a_stale_plan_is_refused_with_what_has_changed(yarrow: Yarrow, played: Played, plan_id: str) -> None:
    yarrow("tasks", "mark", "success", "sales", "bad", "load", "--yes")
    before = played.tables()
    answer = yarrow("plans", "apply", plan_id)
    assert answer.exit_code == 2
    assert f"The plan {plan_id} is out of date, and nothing was done:" in answer.stderr
    assert "load of bad was failed and is success" in answer.stderr
    assert "Make a new plan." in answer.stderr
    assert played.tables() == before


@pytest.mark.parametrize("command", ["show", "apply"])
@pytest.mark.parametrize("given", ["0123456789ab", "abc", "nonsense", "%%%%%%", ""])
def test_a_plan_that_there_is_not(yarrow: Yarrow, played: Played, plan_id: str, command: str, given: str) -> None:
    before = played.tables()
    answer = yarrow("plans", command, given)
    assert answer.exit_code == 2
    assert f"There is no plan {given!r}." in answer.stderr
    assert played.tables() == before


@pytest.mark.parametrize("given", ["0", str(2**31), "9" * 30])
def test_a_limit_that_no_database_takes(yarrow: Yarrow, played: Played, given: str) -> None:
    answer = yarrow("plans", "list", "--limit", given)
    assert answer.exit_code == 2
    assert "is not in the range" in answer.stderr


@pytest.mark.parametrize("how", ["--dry-run", "--yes"])
def test_a_reason_that_is_no_text_makes_no_plan(yarrow: Yarrow, played: Played, how: str) -> None:
    before = played.tables()
    answer = yarrow("tasks", "clear", "sales", "bad", "load", "--reason", "f\udcffine", how)
    assert answer.exit_code == 2
    assert "`reason` holds a character that is none" in answer.stderr
    assert played.tables() == before
    assert yarrow("plans", "list").exit_code == 0


def test_the_scheduler_is_woken_by_what_changes_something(
    yarrow: Yarrow, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[str] = []
    for module in ("planning", "plans", "backfill"):
        monkeypatch.setattr(f"yarrow.cli.{module}.wake_scheduler", lambda _, module=module: woken.append(module))
    plan_id = yarrow("runs", "clear", "sales", "bad", "--dry-run", "--json").json()["id"]
    assert woken == []
    yarrow("plans", "apply", plan_id)
    assert woken == ["plans"]
    yarrow("runs", "mark", "failed", "sales", "bad")
    assert woken == ["plans", "planning"]

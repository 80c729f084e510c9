"""`yarrow db prune`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from yarrow.clock import utc_now
from yarrow.logs import LogStore
from yarrow.protocol import LogLine
from yarrow.store import Store
from yarrow.store.tables import dag_run, event, task_instance

Yarrow = Callable[..., Any]


@pytest.fixture
def runs(store: Store, home: Path, day: datetime) -> None:
    """A run that ended 100 days ago, and one that ended yesterday."""
    for run_id, days in (("old", 100), ("new", 1)):
        run = store.runs.trigger("orders", logical_date=day, run_id=run_id, who="test")
        at = utc_now() - timedelta(days=days)
        for statement in (
            update(dag_run).where(dag_run.c.id == run.id).values(state="success", ended_at=at),
            update(task_instance).where(task_instance.c.dag_run_id == run.id).values(state="success"),
            update(event).where(event.c.run_id == run_id).values(at=at),
        ):
            store.runs._database.write(lambda connection, statement=statement: connection.execute(statement))
        LogStore(f"file://{home}/logs").append("orders", run_id, "load", -1, 1, [LogLine("", "log", "hello", "INFO")])


EXPECTED = {"history_lines": 1, "runs": 1, "task_instances": 2}


@pytest.mark.usefixtures("runs")
def test_prune(yarrow: Yarrow, store: Store, home: Path) -> None:
    told = yarrow("db", "prune", "--older-than", "90d").stdout
    assert [line.split() for line in told.splitlines()] == [
        ["WHAT", "COUNT"],
        ["history", "lines", "1"],
        ["runs", "1"],
        ["task", "instances", "2"],
        ["This", "was", "deleted."],
        *[line.split() for line in told.splitlines() if "VACUUM" in line],
    ]
    assert "VACUUM" in told
    assert [run.run_id for run in store.runs.list()] == ["new"]
    assert [path.name for path in (home / "logs/orders").iterdir()] == ["new"]
    assert yarrow("db", "prune", "--older-than", "90d").stdout == "Nothing is older than 90d.\n"


@pytest.mark.usefixtures("runs")
def test_a_dry_run_counts_and_deletes_nothing(yarrow: Yarrow, store: Store, home: Path) -> None:
    told = yarrow("db", "prune", "--older-than", "90d", "--dry-run", "--json").json()
    assert (told["older_than"], told["dry_run"], told["deleted"]) == ("90d", True, EXPECTED)
    assert "This would be deleted." in yarrow("db", "prune", "--older-than", "90d", "--dry-run").stdout
    assert len(store.runs.list()) == 2
    assert len(list((home / "logs/orders").iterdir())) == 2
    told = yarrow("db", "prune", "--older-than", "90d", "--yes", "--json").json()
    assert (told["dry_run"], told["deleted"], told["failures"]) == (False, EXPECTED, [])


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("age", "message"),
    [
        ("0d", "nothing would be kept"),
        ("-1d", "is not a duration"),
        ("90", "is not a duration"),
        ("soon", "is not a duration"),
        ("4000d", "longer than ten years"),
        (None, "set `retention`"),
    ],
)
def test_a_bad_age_is_refused(yarrow: Yarrow, store: Store, age: str | None, message: str) -> None:
    answer = yarrow("db", "prune", "--yes", *([] if age is None else ["--older-than", age]))
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert len(store.runs.list()) == 2


@pytest.mark.usefixtures("runs")
def test_the_age_is_that_of_the_configuration(yarrow: Yarrow, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YARROW_RETENTION", "90d")
    assert yarrow("db", "prune", "--json").json()["older_than"] == "90d"
    assert [run.run_id for run in store.runs.list()] == ["new"]

"""`yarrow cache`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from yarrow.clock import utc_now
from yarrow.protocol import Report
from yarrow.store import Store
from yarrow.store.cache import keep
from yarrow.store.database import Database

Yarrow = Callable[..., Any]


@pytest.fixture
def results(store: Store, home: Any) -> None:
    """Three results: two of `orders`, one of which is too old, and one of another DAG."""
    database = Database(f"sqlite:///{home}/yarrow.db")
    now = utc_now()
    week = timedelta(days=7).total_seconds()

    def add(dag_id: str, task_id: str, number: int, ttl: float | None, at: datetime) -> None:
        report = Report("f" * 32, "success", xcom=number, has_xcom=True, cache_key=f"{number}" * 64)
        database.write(lambda connection: keep(database, connection, report, dag_id, task_id, ttl, at))

    add("orders", "load", 1, week, now)
    add("orders", "clean", 2, week, now - timedelta(days=8))
    add("other", "load", 3, None, now)
    database.close()


def test_list(yarrow: Yarrow, results: None) -> None:
    listed = yarrow("cache", "list", "--json").json()
    assert [(one["dag_id"], one["task_id"], one["key"][:2]) for one in listed] == [
        ("orders", "clean", "22"),
        ("orders", "load", "11"),
        ("other", "load", "33"),
    ]
    assert listed[2]["expires_at"] is None
    text = yarrow("cache", "list", "other").stdout
    assert text.splitlines()[1].split()[:3] == ["other", "load", "3" * 12]
    assert "never" in text
    assert yarrow("cache", "list", "nothing").stdout == "There is no result.\n"


@pytest.mark.parametrize(
    ("arguments", "cleared"),
    [([], 3), (["orders"], 2), (["orders", "--task", "load"], 1), (["--expired"], 1), (["other", "--expired"], 0)],
)
def test_clear(yarrow: Yarrow, results: None, arguments: list[str], cleared: int) -> None:
    assert yarrow("cache", "clear", *arguments, "--json").json() == {"cleared": cleared}
    assert len(yarrow("cache", "list", "--json").json()) == 3 - cleared
    assert yarrow("cache", "clear", *arguments).stdout == "0 results forgotten.\n"


def test_a_task_needs_its_dag(yarrow: Yarrow, results: None) -> None:
    answer = yarrow("cache", "clear", "--task", "load")
    assert answer.exit_code == 2
    assert "of which DAG?" in answer.stderr

"""`yarrow runs delete` and `yarrow dags delete`."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from yarrow.logs import LogStore
from yarrow.protocol import LogLine
from yarrow.states import RunState
from yarrow.store import Store
from yarrow.store.tables import attempt, dag_run, task_instance, xcom

Yarrow = Callable[..., Any]


def ended(store: Store, home: Path, day: datetime, run_id: str) -> None:
    """A run that has failed, with a log and a large XCom."""
    run = store.runs.trigger("orders", logical_date=day, run_id=run_id, who="test")
    (instance, *_) = store.runs.task_instances(run.id)
    address = f"file://{home}/objects/xcom/{run_id}/1.json"
    Path(address.removeprefix("file://")).parent.mkdir(parents=True)
    Path(address.removeprefix("file://")).write_text("[]")
    row = {"attempt_id": run_id, "task_instance_id": instance.id, "try_number": 1, "nonce": "n", "queue": "default"}

    def work(connection: Any) -> None:
        of_run = task_instance.c.dag_run_id == run.id
        connection.execute(update(task_instance).where(of_run).values(state="failed"))
        connection.execute(
            update(dag_run).where(dag_run.c.id == run.id).values(state=RunState.FAILED, ended_at=run.queued_at)
        )
        connection.execute(insert(attempt).values(**row, state="failed", created_at=run.queued_at))
        connection.execute(insert(xcom).values(attempt_id=run_id, value={"$ref": address}))

    store.runs._database.write(work)
    LogStore(f"file://{home}/logs").append("orders", run_id, "load", -1, 1, [LogLine("", "log", "hello", "INFO")])


def test_delete_runs(yarrow: Yarrow, store: Store, home: Path, day: datetime) -> None:
    for run_id in ("r1", "r2", "r3"):
        ended(store, home, day, run_id)
    answer = yarrow("runs", "delete", "orders", "r1", "r2")
    assert (answer.exit_code, answer.stdout, answer.stderr) == (0, "Deleted 2 runs of orders.\n", "")
    assert [run.run_id for run in store.runs.list()] == ["r3"]
    assert [path.name for path in (home / "logs/orders").iterdir()] == ["r3"]
    assert [path.name for path in (home / "objects/xcom").iterdir()] == ["r3"]
    (line, _) = [event for event in store.runs.events() if event.kind == "run.deleted"]
    assert line.who.startswith("cli")


def test_a_dry_run_tells_what_would_go(yarrow: Yarrow, store: Store, home: Path, day: datetime) -> None:
    ended(store, home, day, "r1")
    told = yarrow("runs", "delete", "orders", "r1", "--dry-run").stdout
    assert [line.split() for line in told.splitlines()[1:5]] == [
        ["attempts", "1"],
        ["runs", "1"],
        ["task", "instances", "2"],
        ["xcoms", "1"],
    ]
    size = sum(file.stat().st_size for file in (home / "logs").rglob("*.jsonl"))
    assert told.splitlines()[5:] == [f"and {size} bytes of logs", "This would be deleted."]
    assert yarrow("runs", "delete", "orders", "r1", "--dry-run", "--json").json() == {
        "dry_run": True,
        "deleted": {"attempts": 1, "runs": 1, "task_instances": 2, "xcoms": 1},
        "log_bytes": size,
    }
    assert [run.run_id for run in store.runs.list()] == ["r1"]
    assert (home / "logs/orders/r1").is_dir()
    answer = yarrow("runs", "delete", "orders", "r1", "--json").json()
    assert answer == {
        "dry_run": False,
        "deleted": {"attempts": 1, "runs": 1, "task_instances": 2, "xcoms": 1},
        "failures": [],
    }


def test_what_can_not_be_deleted_is_told_and_nothing_is(
    yarrow: Yarrow, store: Store, home: Path, day: datetime
) -> None:
    ended(store, home, day, "r1")
    store.runs.trigger("orders", logical_date=day, run_id="r2", who="test")
    for run_id, message in (("r2", "`yarrow runs mark failed orders r2`"), ("r", "Did you mean 'r")):
        answer = yarrow("runs", "delete", "orders", "r1", run_id)
        assert answer.exit_code == 2
        assert message in answer.stderr
    assert yarrow("runs", "delete", "orders").exit_code == 2
    assert yarrow("runs", "delete", "nothing", "r1").exit_code == 2
    assert {run.run_id for run in store.runs.list()} == {"r1", "r2"}
    assert (home / "logs/orders/r1").is_dir()


def test_what_stays_behind_is_told(yarrow: Yarrow, store: Store, home: Path, day: datetime) -> None:
    ended(store, home, day, "r1")
    elsewhere = home / "elsewhere"
    (home / "logs/orders").rename(elsewhere)
    (home / "logs/orders").symlink_to(elsewhere)
    answer = yarrow("runs", "delete", "orders", "r1")
    assert answer.exit_code == 0
    assert "The logs of orders r1 could not be removed" in answer.stderr
    assert (elsewhere / "r1").is_dir()
    assert store.runs.list() == []


def test_delete_a_dag(yarrow: Yarrow, store: Store, home: Path, day: datetime) -> None:
    ended(store, home, day, "r1")
    answer = yarrow("dags", "delete", "orders")
    assert answer.exit_code == 2
    assert "orders.yaml" in answer.stderr
    assert "Remove the file first" in answer.stderr
    store.catalog.deactivate(["orders"])
    counted = yarrow("dags", "delete", "orders", "--dry-run", "--json").json()["deleted"]
    assert store.runs.list() != []
    answer = yarrow("dags", "delete", "orders", "--yes", "--json")
    assert answer.json()["deleted"] == counted
    assert store.catalog.dags(active_only=False) == []
    assert not (home / "logs/orders").exists()
    assert list((home / "objects/xcom").iterdir()) == []
    assert yarrow("dags", "delete", "orders").exit_code == 2


def on_terminal(typed: str, *arguments: str, exit_code: int) -> str:
    """Calls `yarrow` on a terminal of its own, and returns all that it shows."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "yarrow", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"},
    )
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # Linux says so at the end
            break
        if not data:
            break
        shown += data
    os.close(ours)
    assert process.wait(timeout=30) == exit_code, shown.decode()
    return shown.decode()


@pytest.mark.slow
def test_a_person_is_asked(store: Store, home: Path, day: datetime) -> None:
    ended(store, home, day, "r1")
    shown = on_terminal("n\n", "runs", "delete", "orders", "r1", exit_code=1)
    assert "task instances" in shown
    assert "Delete the run r1 of orders, for good? [y/N]" in shown
    assert len(store.runs.list()) == 1
    shown = on_terminal("n\n", "db", "prune", "--older-than", "1ms", exit_code=1)
    assert "for good? [y/N]" in shown
    assert len(store.runs.list()) == 1
    assert "for good?" not in on_terminal("", "runs", "delete", "orders", "r1", "--yes", exit_code=0)
    assert store.runs.list() == []

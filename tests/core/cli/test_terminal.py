"""What people see on a terminal: colours, tables and things that move."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from played import Played
from yarrow.clock import utc_now
from yarrow.decide import Decisions, RunDecision
from yarrow.decision.decisions import Expansion, TaskDecision
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.states import RunState, TaskState
from yarrow.store import Store

pytestmark = pytest.mark.slow

OnTerminal = Callable[..., str]


@pytest.fixture
def on_terminal(home: Path) -> OnTerminal:
    """Calls `yarrow` on a terminal of its own, and returns all that it shows."""

    def call(*arguments: str, exit_code: int = 0, typed: str = "") -> str:
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50"}
        process = subprocess.Popen(
            [sys.executable, "-m", "yarrow", *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
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

    return call


def test_a_table(on_terminal: OnTerminal, store: Store) -> None:
    shown = on_terminal("dags", "list")
    assert "orders" in shown
    assert "\x1b[" in shown


def test_a_run_that_fails_while_it_is_watched(on_terminal: OnTerminal, store: Store) -> None:
    run = store.runs.trigger("orders", params={}, run_id="r1", who="test")
    store.runs.start_due()
    snapshot = store.runs.snapshot(run.id)
    assert snapshot is not None
    failed = RunDecision(RunState.RUNNING, RunState.FAILED, "out of luck")
    store.runs.apply(run.id, Decisions((), failed, None), snapshot.record.change_seq, now=utc_now())
    shown = on_terminal("runs", "watch", "orders", exit_code=1)
    assert "r1" in shown
    assert "failed" in shown
    assert "load" in shown


def test_a_mapped_task_is_one_row_of_a_run_that_is_watched(on_terminal: OnTerminal, store: Store) -> None:
    work = TaskSpec("work", "bash", {"command": "true"}, expand={"n": list(range(200))})
    store.catalog.publish([(DagSpec("many", {"work": work}), "", "many.yaml")])
    run = store.runs.trigger("many", params={}, run_id="r1", who="test")
    store.runs.start_due()
    snapshot = store.runs.snapshot(run.id)
    assert snapshot is not None
    skipped = TaskDecision("work", TaskState.NONE, TaskState.SKIPPED, map_index=7)
    values = tuple({"n": number} for number in range(200))
    ended = RunDecision(RunState.RUNNING, RunState.SUCCESS, None)
    decisions = Decisions((skipped,), ended, None, expansions=(Expansion("work", values),))
    assert store.runs.apply(run.id, decisions, snapshot.record.change_seq, now=utc_now())
    shown = on_terminal("runs", "watch", "many")
    assert "work ×200" in shown
    assert "199 none" in shown
    assert "1 skipped" in shown
    assert "work[" not in shown


def test_the_configuration(on_terminal: OnTerminal) -> None:
    assert "parallelism" in on_terminal("config", "show")


APPROVAL = """
tasks:
  ask: {operator: approval, with: {message: "Publish it?", timeout: 1d, default: approve}}
  publish: {operator: bash, depends_on: [ask], expand: {number: [1, 2]}, with: {command: "true"}}
"""


@pytest.mark.parametrize(("typed", "ended"), [("n\n", "skipped"), ("y\n", "success")])
def test_an_approval_asks_whoever_sits_there(on_terminal: OnTerminal, tmp_path: Path, typed: str, ended: str) -> None:
    file = tmp_path / "release.yaml"
    file.write_text(APPROVAL)
    shown = on_terminal("dags", "test", str(file), typed=typed)
    assert "Publish it? [Y/n]" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    last = [line.split() for line in plain.splitlines() if "publish" in line][-1]
    assert last[:2] == ["publish[1]" if ended == "success" else "publish", ended]


@pytest.mark.parametrize(("typed", "exit_code", "state"), [("y\n", 0, "queued"), ("n\n", 1, "failed")])
def test_a_plan_asks_before_it_is_applied(
    on_terminal: OnTerminal, store: Store, day: datetime, typed: str, exit_code: int, state: str
) -> None:
    Played(store).run("orders", "r1", day, ["failed"])
    shown = on_terminal("runs", "clear", "orders", "r1", typed=typed, exit_code=exit_code)
    assert "r1 of 2026-01-01 00:00 UTC: failed -> queued" in shown
    assert "Apply it? [y/N]" in shown
    assert ("Cleared 2 task instances" in shown) == (exit_code == 0)
    assert ("applies it later" in shown) == (exit_code == 1)
    assert store.runs.get("orders", "r1").state == state


def test_yes_does_not_ask(on_terminal: OnTerminal, store: Store, day: datetime) -> None:
    Played(store).run("orders", "r1", day, ["failed"])
    shown = on_terminal("runs", "clear", "orders", "r1", "--yes")
    assert "Apply it?" not in shown
    assert "Cleared 2 task instances" in shown


def test_a_backfill_that_is_watched(on_terminal: OnTerminal, store: Store) -> None:
    span = ("--from", "2026-01-01", "--to", "2026-01-03")
    assert "Apply it? [y/N]" in on_terminal("backfill", "create", "orders", *span, typed="y\n")
    store.backfills.cancel(1, "test")
    shown = on_terminal("backfill", "watch", "1", exit_code=1)
    assert "Backfill 1 of orders: cancelled, 0 of 3 runs over" in shown
    assert "━" in shown

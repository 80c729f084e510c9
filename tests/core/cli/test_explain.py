"""`yarrow explain`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from yarrow.decision.decisions import Decisions, TaskDecision
from yarrow.protocol import Heartbeat
from yarrow.states import TaskState
from yarrow.store import Store
from yarrow.store.records import RunRecord

Yarrow = Callable[..., Any]


@pytest.fixture
def run(store: Store) -> RunRecord:
    """A run whose first task waits for a slot of a pool that another run has taken."""
    store.workers.set_pools({"default_pool": 1})
    store.workers.register_scheduler("s", "host", 1)
    store.attempts.heartbeat(Heartbeat("w1", "host", 7, ("default",), 4, "0.1.0"), 60.0)
    schedule = Decisions((TaskDecision("load", TaskState.NONE, TaskState.SCHEDULED),))
    for run_id in ("r1", "r2"):
        run = store.runs.trigger("orders", run_id=run_id, who="test")
        store.runs.start_due()
        assert store.runs.apply(run.id, schedule, run.change_seq)
        if run_id == "r1":
            assert store.attempts.grant(32) == 1
    return run


def test_one_sentence_and_all_checks(yarrow: Yarrow, run: RunRecord) -> None:
    answer = yarrow("explain", "orders", "-", "load")
    first, blank, head, *rows = answer.stdout.splitlines()
    assert first == "`load` waits for a slot of the pool `default_pool`: 1 of 1 are taken; it is 1st in line."
    assert (blank, head.split()) == ("", ["CHECK", "WHAT", "IT", "SAYS"])
    assert rows[0].split()[:2] == ["ok", "scheduler"]
    assert any(row.startswith("NO  pool ") and "by `load` of r1" in row for row in rows)
    waiting = yarrow("explain", "orders", "r2", "report").stdout
    assert waiting.startswith(
        "`report` waits for its upstream task `load`, which waits for a slot of the pool `default_pool`"
    )


def test_json_has_the_numbers(yarrow: Yarrow, run: RunRecord) -> None:
    found = yarrow("explain", "orders", "r2", "load", "--json").json()
    assert (found["dag_id"], found["run_id"], found["task_id"], found["map_index"]) == ("orders", "r2", "load", -1)
    assert (found["state"], found["next_state"]) == ("scheduled", None)
    pool = next(check for check in found["checks"] if check["name"] == "pool")
    assert (pool["passed"], pool["facts"]["used"], pool["facts"]["limit"]) == (False, 1, 1)
    assert pool["facts"]["held_by"][0]["run_id"] == "r1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("order", "-", "load"), "Did you mean 'orders'"),
        (("orders", "r3", "load"), "has no run 'r3'"),
        (("orders", "r1", "loads"), "Did you mean 'load'"),
        (("orders", "r1", "load", "--map-index", "2"), "has no instance 2"),
        (("orders", "r1", "load", "--map-index", "x"), "not a valid integer"),
    ],
)
def test_what_is_not_there(yarrow: Yarrow, run: RunRecord, arguments: tuple[str, ...], words: str) -> None:
    answer = yarrow("explain", *arguments)
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert answer.stdout == ""


def test_a_dag_without_a_run(yarrow: Yarrow, store: Store) -> None:
    answer = yarrow("explain", "orders", "-", "load")
    assert (answer.exit_code, "yarrow dags trigger orders" in answer.stderr) == (2, True)

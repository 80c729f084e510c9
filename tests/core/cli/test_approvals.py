"""`yarrow approvals`, and mapped task instances in `yarrow runs` and `yarrow tasks`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from yarrow.clock import utc_now
from yarrow.decision.decisions import Decisions, Expansion, Question, TaskDecision
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.logs import LogStore
from yarrow.protocol import LogLine
from yarrow.states import TaskState
from yarrow.store import Store
from yarrow.store.records import RunRecord

Yarrow = Callable[..., Any]


@pytest.fixture
def run(store: Store) -> RunRecord:
    """A run in which `ask` and two instances of `score` stand."""
    ask = TaskSpec("ask", "approval", {"message": "Publish?"})
    score = TaskSpec("score", "bash", {"command": "true"}, expand={"n": [1, 2]})
    spec = DagSpec("review", {"ask": ask, "score": score})
    store.catalog.publish([(spec, "", "review.yaml")])
    run = store.runs.trigger("review", run_id="r1", who="test")
    store.runs.start_due()
    decisions = Decisions(
        tasks=(
            TaskDecision(
                "ask",
                TaskState.NONE,
                TaskState.AWAITING_INPUT,
                question=Question("Publish?", "reject", utc_now() + timedelta(hours=1)),
            ),
            TaskDecision("score", TaskState.NONE, TaskState.SCHEDULED, map_index=1),
        ),
        expansions=(Expansion("score", ({"n": 1}, {"n": 2})),),
    )
    assert store.runs.apply(run.id, decisions, run.change_seq)
    return run


def test_approvals_are_listed(yarrow: Yarrow, run: RunRecord) -> None:
    (listed,) = yarrow("approvals", "list", "--json").json()
    assert (listed["dag_id"], listed["run_id"], listed["task_id"]) == ("review", "r1", "ask")
    assert (listed["message"], listed["default_answer"], listed["answer"]) == ("Publish?", "reject", None)
    table = yarrow("approvals", "list", "review").stdout.splitlines()
    assert table[0].split() == ["DAG", "RUN", "TASK", "ASKED", "(UTC)", "UNTIL", "(UTC)", "ELSE", "MESSAGE"]
    assert table[1].startswith("review  r1   ask")
    assert table[1].endswith("reject  Publish?")
    assert yarrow("approvals", "list", "orders").stdout == "Nothing waits for an answer.\n"
    unknown = yarrow("approvals", "list", "reviews")
    assert (unknown.exit_code, "Did you mean 'review'" in unknown.stderr) == (2, True)


def test_approve(yarrow: Yarrow, store: Store, run: RunRecord) -> None:
    answer = yarrow("approvals", "approve", "review", "r1", "ask", "--comment", "go")
    assert answer.stdout == "ask of the run r1 of review is approved: it ended as success.\n"
    record = store.approvals.get("review", "r1", "ask")
    assert (record.answer, record.comment) == ("approve", "go")
    assert record.answered_by.startswith("cli")
    again = yarrow("approvals", "reject", "review", "r1", "ask")
    assert again.exit_code == 2
    assert "answered before: approve, by cli" in again.stderr
    assert yarrow("approvals", "list").stdout == "Nothing waits for an answer.\n"


def test_reject_in_the_newest_run(yarrow: Yarrow, store: Store, run: RunRecord) -> None:
    assert "is rejected: it ended as success" in yarrow("approvals", "reject", "review", "-", "ask").stdout
    assert store.approvals.get("review", "r1", "ask").answer == "reject"


def test_what_asks_nothing_can_not_be_answered(yarrow: Yarrow, run: RunRecord) -> None:
    answer = yarrow("approvals", "approve", "review", "r1", "score", "--map-index", "0")
    assert answer.exit_code == 2
    assert "asks nothing: it is none" in answer.stderr


def test_mapped_instances_are_shown_by_their_index(yarrow: Yarrow, run: RunRecord) -> None:
    shown = yarrow("runs", "show", "review").stdout
    rows = [line.split()[:2] for line in shown.splitlines()[-3:]]
    assert rows == [["ask", "awaiting_input"], ["score[0]", "none"], ["score[1]", "scheduled"]]
    tasks = yarrow("runs", "show", "review", "r1", "--json").json()["tasks"]
    assert [(task["map_index"], task["map_value"]) for task in tasks] == [(-1, None), (0, {"n": 1}), (1, {"n": 2})]


def test_logs_of_a_mapped_instance(yarrow: Yarrow, store: Store, run: RunRecord, home: Path) -> None:
    store.attempts.grant(10)
    claimed = store.attempts.next_for("default", "w1", 60)
    assert claimed is not None
    place = ("review", "r1", "score", claimed.map_index, claimed.try_number)
    line = LogLine("2026-01-01T10:00:00.123456+00:00", "log", "of one", "INFO")
    LogStore(f"file://{home}/logs").append(*place, [line])
    assert "of one" in yarrow("tasks", "logs", "review", "r1", "score", "--map-index", "1").stdout
    without = yarrow("tasks", "logs", "review", "r1", "score")
    assert without.exit_code == 2
    assert "is mapped and needs a map index. There are the instances 0 to 1" in without.stderr.replace("\n", " ")
    assert "has not been started" in yarrow("tasks", "logs", "review", "r1", "score", "--map-index", "0").stderr


def test_a_message_can_not_draw_on_the_terminal(yarrow: Yarrow, store: Store) -> None:
    """It is made of data, and somebody is about to say yes to it."""
    spec = DagSpec("sly", {"ask": TaskSpec("ask", "approval", {"message": "?"})})
    store.catalog.publish([(spec, "", "sly.yaml")])
    run = store.runs.trigger("sly", run_id="r1", who="test")
    store.runs.start_due()
    question = Question("Delete all?\x1b[2K\r\nPublish 7 rows?")
    asks = TaskDecision("ask", TaskState.NONE, TaskState.AWAITING_INPUT, question=question)
    assert store.runs.apply(run.id, Decisions((asks,)), 1)
    _, line = yarrow("approvals", "list").stdout.splitlines()
    assert line.endswith("Delete all? [2K  Publish 7 rows?")

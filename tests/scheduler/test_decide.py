"""The step `decide` on a store: what it reads of the run before and of results."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from yarrow import xcom
from yarrow.decision.decisions import Decisions, RunDecision
from yarrow.language.spec import DagSpec, TaskSpec
from yarrow.protocol import Report
from yarrow.states import RunState, TaskState
from yarrow.store import Store
from yarrow_scheduler.decide import Decider

START = datetime(2026, 1, 1, tzinfo=UTC)


def start(store: Store, spec: DagSpec, count: int = 1) -> list[int]:
    """So many running runs of the DAG, a day apart."""
    store.catalog.publish([(spec, "", f"{spec.dag_id}.yaml")])
    for number in range(count):
        at = START + timedelta(days=number)
        interval = (at, at, at, START)
        store.runs.create(spec, spec.version, run_id=f"r{number}", run_type="manual", interval=interval, params={})
    return store.runs.start_due()


def finish_one(store: Store, **result: Any) -> str:
    """Has a worker finish the best queued attempt; the run that it was of."""
    store.attempts.grant(10)
    claimed = store.attempts.next_for("default", "w1", 60)
    assert claimed is not None
    store.attempts.finish(Report(claimed.attempt_id, "success", **result), claimed.nonce, "w1")
    return claimed.run_id


def test_a_task_waits_for_the_run_before(store: Store, clock: Any) -> None:
    spec = DagSpec("d", {"a": TaskSpec("a", "bash", {}, depends_on_past=True)})
    first, second = start(store, spec, 2)
    decider = Decider(store, queued_timeout=3600)
    decided = decider.decide(clock())
    assert not decided.refused
    states = [store.runs.task_instances(run)[0].state for run in (first, second)]
    assert states == [TaskState.SCHEDULED, TaskState.NONE]
    assert finish_one(store) == "r0"
    assert sorted(decider.decide(clock()).ended) == ["d"]  # the first run, and the second goes on at once
    assert store.runs.task_instances(second)[0].state is TaskState.SCHEDULED


def test_a_list_that_is_kept_outside_the_database_is_expanded(
    store: Store, clock: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mapped = TaskSpec("m", "bash", {}, ("a",), expand={"n": "{{ xcom.a }}"}, expand_xcoms=("a",))
    (run,) = start(store, DagSpec("d", {"a": TaskSpec("a", "bash", {}), "m": mapped}))
    decider = Decider(store, queued_timeout=3600)
    decider.decide(clock())
    stored = xcom.spill([1, 2, 3], f"file://{tmp_path}", "numbers", 1)
    assert xcom.is_reference(stored)
    finish_one(store, xcom=stored, has_xcom=True)
    with caplog.at_level(logging.DEBUG, "yarrow_scheduler.decide"):
        assert not decider.decide(clock()).refused
    found = [one for one in store.runs.task_instances(run) if one.task_id == "m"]
    assert [(one.map_index, one.map_value, one.state) for one in found] == [
        (index, {"n": index + 1}, TaskState.SCHEDULED) for index in range(3)
    ]
    assert "task m of run r0 of d has 3 instances now" in caplog.text


def test_a_run_that_ends_while_deciding_on_it_goes_wrong_is_left_alone(
    store: Store, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = DagSpec("d", {"a": TaskSpec("a", "bash", {})})
    first, second = start(store, spec, 2)
    snapshot = store.runs.snapshot

    def end_and_fail(id: int) -> Any:
        found = snapshot(id)
        if id == first:
            assert found is not None
            end = RunDecision(RunState.RUNNING, RunState.FAILED)
            assert store.runs.apply(id, Decisions((), end), found.record.change_seq)  # another scheduler does
            raise RuntimeError("it went wrong")
        return found

    monkeypatch.setattr(store.runs, "snapshot", end_and_fail)
    Decider(store, queued_timeout=3600).decide(clock())
    assert store.runs.task_instances(second)[0].state is TaskState.SCHEDULED

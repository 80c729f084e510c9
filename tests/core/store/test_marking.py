"""Marking: task instances in each state, and whole runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from cleared import STATES, bring, clear, instances, mapped, mark, retries_of, row, rows
from yarrow.errors import Conflict, Refused, UsageError
from yarrow.plans.requests import MarkRequest
from yarrow.states import AttemptState, RunState, TaskState
from yarrow.store.tables import attempt, dag_run, dataset_event, task_instance, xcom

NONE, SCHEDULED, RUNNING = TaskState.NONE, TaskState.SCHEDULED, TaskState.RUNNING
SUCCESS, FAILED, SKIPPED = TaskState.SUCCESS, TaskState.FAILED, TaskState.SKIPPED
MARKS = ["success", "failed", "skipped"]


def mark_run(stage: Any, state: str, *run_ids: str, **fields: Any) -> Any:
    request = MarkRequest(dag_id="d", run_ids=run_ids or ("r",), state=state, runs=True, **fields)
    return stage.store.plans.carry_out(request, who="ann")


@pytest.mark.parametrize(
    ("state", "to_state"),
    [(state, to_state) for state in STATES for to_state in MARKS if state not in ("running", to_state)],
)
def test_what_does_not_run_is_marked_at_once(stage, state, to_state) -> None:
    run, _ = bring(stage, state, outlets=("s3://out",), on_success=("log",), on_failure=("log",), **retries_of(state))
    before, told, published = row(stage), stage.store.notifications.list(), rows(stage, dataset_event)
    stage.clock.advance(5)
    mark(stage, to_state, reason="as Bob says")
    after = row(stage)
    ended_at = before.ended_at or stage.clock()  # else the time until the mark would count as its work
    assert (after.state, after.reason, after.ended_at) == (to_state, "Marked by ann: as Bob says", ended_at)
    assert (after.wait_until, after.follow, after.cached, after.clears) == (None, None, False, 0)
    assert (after.try_number, after.max_tries, after.attempt_id) == (
        before.try_number,
        before.max_tries,
        before.attempt_id,
    )
    line = stage.store.runs.events("d", "r", "a")[-1]
    assert (line.from_state, line.to_state, line.who, line.reason) == (state, to_state, "ann", after.reason)
    assert all(one.state.finished for one in rows(stage, attempt))
    assert rows(stage, xcom) == []
    assert (stage.store.notifications.list(), rows(stage, dataset_event)) == (told, published)
    if state == "awaiting_input":
        assert stage.store.approvals.open() == []
        with pytest.raises(Conflict, match="closed"):
            stage.store.approvals.answer("d", "r", "a", approve=True, who="bob")
    assert stage.store.runs.undecided() == [run.id]
    assert rows(stage, dag_run)[0].fenced_seq == rows(stage, dag_run)[0].change_seq


@pytest.mark.parametrize("to_state", MARKS)
@pytest.mark.parametrize("end", ["success", "failed", "skipped", "lost", "cancelled", "deferred", "lease"])
def test_what_runs_is_stopped_and_marked_whatever_it_comes_to(stage, end, to_state) -> None:
    run, claimed = bring(stage, "running", retries=1, outlets=("s3://out",), on_success=("log",), on_failure=("log",))
    mark(stage, to_state, reason="enough")
    text = "Marked by ann: enough"
    assert row(stage).state is RUNNING
    assert stage.beat(claimed.attempt_id, lease=10) == {claimed.attempt_id: text}
    if end == "lease":
        stage.clock.advance(11)
        assert stage.store.attempts.expire_leases() == 1
    else:
        fields = {"resume_at": stage.clock().isoformat()} if end == "deferred" else {}
        fields |= {"has_xcom": True, "xcom": 7, "cache_key": "a" * 64, "follow": []} if end == "success" else {}
        for repeated in (False, True):
            outcome = stage.finish(claimed, end, **fields)
            assert (outcome.state, outcome.repeated) == (to_state, repeated)
    after = row(stage)
    assert (after.state, after.reason, after.follow, after.ended_at) == (to_state, text, None, stage.clock())
    (kept,) = rows(stage, attempt)
    assert kept.state == {"lease": "lost", "deferred": "cancelled"}.get(end, end)
    assert (rows(stage, xcom), rows(stage, dataset_event), stage.store.cache.entries()) == ([], [], [])
    assert stage.store.notifications.list() == []
    assert stage.store.runs.undecided() == [run.id]


def test_what_is_in_that_state_is_left_alone(stage) -> None:
    bring(stage, "success")
    before = row(stage)
    with pytest.raises(UsageError, match="nothing to do"):
        mark(stage, "success")
    assert row(stage) == before
    assert stage.store.attempts.xcom("d", "r", "a") == 7


def test_what_could_not_run_after_it_gets_another_chance(stage) -> None:
    run, _ = bring(stage, "failed")
    stage.decide(run, ("b", NONE, TaskState.UPSTREAM_FAILED), end=RunState.FAILED)
    mark(stage, "success", reason="done by hand")
    assert stage.states(run) == {"a": SUCCESS, "b": NONE}
    assert stage.store.runs.by_id(run.id).state is RunState.QUEUED
    line = stage.store.runs.events("d", "r", "b")[-1]
    assert line.reason == "Cleared by ann (downstream of a): done by hand"
    assert stage.store.runs.start_due() == [run.id]


def test_a_finished_run_that_has_nothing_left_to_do_ends_as_its_tasks_say(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a")], on_success=("log",), on_failure=("log",))
    stage.publish(spec)
    run = stage.run(spec)
    stage.decide(run, ("a", NONE, FAILED, "no luck"), end=RunState.FAILED)
    assert len(stage.store.notifications.list()) == 1
    stage.clock.advance(5)
    mark(stage, "success", reason="it was fine")
    after = stage.store.runs.by_id(run.id)
    assert (after.state, after.reason, after.ended_at) == (
        RunState.SUCCESS,
        "Marked by ann: it was fine",
        stage.clock(),
    )
    assert [one.kind for one in stage.store.notifications.list()] == ["success", "failure"]
    line = next(one for one in reversed(stage.store.runs.events("d", "r")) if one.kind == "run.state")
    assert (line.from_state, line.to_state, line.who) == ("failed", "success", "ann")


def test_an_unexpanded_mapped_task_is_marked_as_one_and_an_instance_alone(stage) -> None:
    run = mapped(stage)
    mark(stage, "skipped", "m", map_index=1)
    assert instances(stage) == {0: "scheduled", 1: "skipped", 2: "scheduled"}
    clear(stage, "a+")
    mark(stage, "success", "m")
    assert instances(stage) == {-1: "success", 1: "removed", 2: "removed"}
    assert stage.store.runs.snapshot(run.id) is not None


def test_a_task_marked_between_two_clears_is_cleared(stage) -> None:
    bring(stage, "success")
    clear(stage)
    mark(stage, "failed")
    clear(stage)
    assert (row(stage).state, row(stage).clears, row(stage).reason) == (NONE, 2, None)


@pytest.mark.parametrize("to_state", [RunState.SUCCESS, RunState.FAILED])
def test_a_running_run_is_marked_with_all_that_has_not_ended_in_it(stage, to_state) -> None:
    names = ("running", "queued", "open", "done")
    spec = stage.dag(tasks=[stage.task(one) for one in names], on_success=("log",), on_failure=("log",))
    stage.publish(spec)
    run = stage.run(spec)
    stage.schedule(run, "running")
    running = stage.claim()
    stage.schedule(run, "queued")
    queued = stage.dispatch()
    stage.decide(run, ("done", NONE, SKIPPED))
    mark_run(stage, to_state, reason="call it a day")
    others = SUCCESS if to_state is RunState.SUCCESS else SKIPPED
    assert stage.states(run) == {"running": RUNNING, "queued": others, "open": others, "done": SKIPPED}
    after = stage.store.runs.by_id(run.id)
    assert (after.state, after.reason) == (to_state, "Marked by ann: call it a day")
    assert (after.ended_at, after.wait_until) == (stage.clock(), None)
    assert [one.kind for one in stage.store.notifications.list()] == [
        "success" if to_state is RunState.SUCCESS else "failure"
    ]
    with pytest.raises(Refused, match="it is cancelled"):
        stage.store.attempts.claim(*queued, "w1", 60)
    assert stage.beat(running.attempt_id) == {
        running.attempt_id: after.reason.replace(":", f" (its run is marked {to_state}):")
    }
    assert stage.finish(running, has_xcom=True, xcom=1).state == to_state
    assert stage.store.runs.by_id(run.id).state is to_state
    assert stage.store.runs.undecided() == []
    assert {one.state for one in rows(stage, attempt)} == {AttemptState.SUCCESS, AttemptState.CANCELLED}
    clear(stage, None)
    assert stage.store.runs.start_due() == [run.id]
    assert set(stage.states(run).values()) == {NONE}


def test_a_queued_run_is_marked_before_it_has_any_task_instance(stage) -> None:
    spec = stage.dag()
    stage.publish(spec)
    run = stage.run(spec, start=False)
    database = stage.store.runs._database
    database.write(lambda connection: connection.execute(task_instance.delete()))
    mark_run(stage, "failed")
    after = stage.store.runs.by_id(run.id)
    assert (after.state, after.started_at, after.ended_at) == (RunState.FAILED, None, stage.clock())
    assert stage.store.runs.start_due() == []


def test_runs_marked_failed_by_hand_do_not_pause_their_dag(stage) -> None:
    spec = stage.dag(max_consecutive_failed_dag_runs=1)
    stage.publish(spec)
    stage.run(spec)
    mark_run(stage, "failed")
    assert not stage.store.catalog.dag("d").is_paused


def test_later_runs_that_look_back_go_on(stage) -> None:
    spec = stage.dag(tasks=[stage.task("a", depends_on_past=True)])
    stage.publish(spec)
    first = stage.run(spec)
    second = stage.run(spec, "s", stage.clock() + timedelta(days=1))
    stage.decide(first, ("a", NONE, FAILED, "no luck"), end=RunState.FAILED)
    stage.decide(second)
    assert stage.store.runs.undecided() == []
    mark(stage, "success")
    assert stage.store.runs.undecided() == [second.id]
    assert stage.store.runs.snapshot(second.id).past.tasks == {"a": [SUCCESS]}

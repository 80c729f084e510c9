"""No run is left alone while there is something to decide on, and nothing of a change between two looks is lost."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from cleared import clear, expand, instances, mapped, mark
from yarrow.decide import decide
from yarrow.language.spec import CacheSpec, ScheduleSpec
from yarrow.plans.requests import BackfillRequest, ClearRequest, MarkRequest
from yarrow.states import AttemptState, RunState, TaskState
from yarrow.store import starting
from yarrow.store.transitions import touch_run

NONE, SCHEDULED, SUCCESS, FAILED = TaskState.NONE, TaskState.SCHEDULED, TaskState.SUCCESS, TaskState.FAILED
DAY = timedelta(days=1)
WAITS = text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


def decisions_of(stage: Any, run: Any) -> Any:
    found = stage.store.runs.snapshot(run.id)
    return decide(found.spec, found.record.view, found.tasks, stage.clock(), found.xcoms, found.past)


def settle(stage: Any) -> None:
    """Schedulers decide until nothing is left to be decided on."""
    for _ in range(20):
        stage.store.runs.start_due()
        if not (left := stage.store.runs.undecided()):
            return
        for id in left:
            found = stage.store.runs.snapshot(id)
            decisions = decide(found.spec, found.record.view, found.tasks, stage.clock(), found.xcoms, found.past)
            assert stage.store.runs.apply(id, decisions, found.record.change_seq)
    raise AssertionError("there is always more to decide on")


def waiting(stage: Any, **fields: Any) -> tuple[Any, Any, Any]:
    """Runs of three days: `c` has failed in the first, the second is over, and in the third `c` waits for it."""
    spec = stage.dag(
        tasks=[stage.task("c", depends_on_past=True), stage.task("d", upstream=("c",))], max_active_runs=9, **fields
    )
    stage.publish(spec)
    first, second, third = (stage.run(spec, f"r{n}", stage.clock() + n * DAY) for n in range(3))
    stage.decide(first, ("c", NONE, FAILED, "no luck"), ("d", NONE, TaskState.UPSTREAM_FAILED), end=RunState.FAILED)
    return first, second, third


def change(stage: Any, request: Any) -> Any:
    return stage.store.plans.carry_out(request, who="ann")


def test_a_later_run_hears_of_one_that_started_again_with_nothing_left_to_do(stage: Any) -> None:
    """While the run before was queued, the later one looked past it, at one that failed."""
    _, second, third = waiting(stage)
    change(stage, MarkRequest(dag_id="d", run_ids=("r1",), runs=True, state="success"))
    change(stage, ClearRequest(dag_id="d", run_ids=("r1",), tasks="d"))
    stage.store.runs.apply(third.id, decisions_of(stage, third), stage.store.runs.by_id(third.id).change_seq)
    change(stage, MarkRequest(dag_id="d", run_ids=("r1",), tasks="d", state="success"))
    stage.store.runs.apply(third.id, decisions_of(stage, third), stage.store.runs.by_id(third.id).change_seq)
    assert (stage.states(third)["c"], stage.store.runs.undecided()) == (NONE, [])
    settle(stage)
    assert stage.store.runs.by_id(second.id).state is RunState.SUCCESS
    assert stage.states(third)["c"] is SCHEDULED


def test_a_later_run_hears_that_the_one_that_it_waited_for_is_deleted(stage: Any) -> None:
    _, _, third = waiting(stage)
    settle(stage)
    change(stage, MarkRequest(dag_id="d", run_ids=("r1",), runs=True, state="failed"))
    change(stage, MarkRequest(dag_id="d", run_ids=("r1",), tasks="c", state="failed"))
    settle(stage)
    assert stage.states(third)["c"] is NONE
    stage.store.deletions.runs("d", ["r0", "r1"], who="ann")
    settle(stage)
    assert stage.states(third)["c"] is SCHEDULED


def test_a_later_run_of_another_version_hears_of_a_task_that_is_stopped_after_the_end_of_its_run(stage: Any) -> None:
    old, new = stage.dag(tasks=[stage.task("c")]), stage.dag(tasks=[stage.task("c", depends_on_past=True)])
    stage.publish(old)
    stage.run(old, "r0")
    settle(stage)
    claimed = stage.claim()
    stage.publish(new)
    later = stage.run(new, "r1", stage.clock() + DAY)
    change(stage, MarkRequest(dag_id="d", run_ids=("r0",), runs=True, state="success"))
    settle(stage)
    assert stage.states(later)["c"] is NONE, "it waits for one that runs"
    assert stage.finish(claimed, "cancelled").state is SUCCESS
    settle(stage)
    assert stage.states(later)["c"] is SCHEDULED


def test_a_later_run_hears_that_a_backfill_gives_up_the_one_before(stage: Any) -> None:
    _, second, third = waiting(stage, schedule=ScheduleSpec(cron="@daily"), start_date=stage.clock() - DAY)
    change(stage, MarkRequest(dag_id="d", run_ids=("r1",), runs=True, state="success"))
    change(stage, MarkRequest(dag_id="d", run_ids=("r1",), tasks="d", state="failed"))
    date = second.logical_date
    stage.clock.advance(5 * DAY.total_seconds())
    plan = stage.store.plans.carry_out(
        BackfillRequest(dag_id="d", from_date=date, to_date=date, reprocess="failed"), who="ann"
    )
    assert stage.store.runs.by_id(second.id).state is RunState.QUEUED
    stage.store.backfills.pause(plan.result["backfill_id"], "ann")
    settle(stage)
    assert stage.states(third)["c"] is NONE, "it looks past the queued one at one that failed"
    stage.store.backfills.cancel(plan.result["backfill_id"], "ann")
    settle(stage)
    assert stage.states(third)["c"] is SCHEDULED


def test_stopping_an_instance_that_is_not_needed_any_more_holds_nothing_up(stage: Any) -> None:
    """As failed it would keep its task from ever being expanded again."""
    run = mapped(stage)
    claims = {}
    for _ in range(3):
        claimed = stage.claim()
        claims[claimed.map_index] = claimed
    clear(stage, "a+")
    assert not stage.store.attempts.cancel("d", "r", "m", 2, who="ann")
    for claimed in claims.values():
        stage.finish(claimed, "cancelled")
    assert instances(stage) == {-1: "none", 1: "removed", 2: "removed"}
    stage.schedule(run, "a")
    stage.finish(stage.claim())
    expand(stage, run, 3)
    assert instances(stage) == {0: "scheduled", 1: "scheduled", 2: "scheduled"}


# Between two looks


def test_a_lease_that_is_renewed_while_its_end_waits_for_the_run_is_kept(postgres_stage: Any) -> None:
    stage = postgres_stage
    run = stage.begin()
    claimed = stage.claim(lease=10)
    stage.clock.advance(11)
    database = stage.store.runs._database
    lost: list[int] = []
    thread = threading.Thread(target=lambda: lost.append(stage.store.attempts.expire_leases()))
    with database._writer.begin() as connection:  # somebody is at work on the run
        touch_run(connection, run.id)
        thread.start()
        deadline = time.monotonic() + 20
        while not database.read(lambda other: other.execute(WAITS).scalar_one()):
            assert time.monotonic() < deadline, "nobody waits for the run"
        assert stage.beat(claimed.attempt_id) == {}
    thread.join(20)
    assert lost == [0]
    assert stage.store.attempts.get(claimed.attempt_id).state is AttemptState.RUNNING


def test_a_run_that_gets_another_version_just_before_it_starts_has_the_tasks_of_that(
    postgres_stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = postgres_stage
    fields = {"schedule": ScheduleSpec(cron="@daily"), "start_date": stage.clock()}
    stage.publish(stage.dag(tasks=[stage.task("a")], **fields))
    date = stage.clock()
    stage.clock.advance(2 * DAY.total_seconds())
    change(stage, BackfillRequest(dag_id="d", from_date=date, to_date=date))
    run_id = f"backfill__{date.isoformat()}"
    new = stage.dag(tasks=[stage.task("a"), stage.task("b")], **fields)
    stage.publish(new)
    look, looks = starting._within_limits, []

    def and_then_clear(connection: Any, now: Any) -> Any:
        found = look(connection, now)
        looks.append(now)
        if len(looks) == 1:
            request = ClearRequest(dag_id="d", run_ids=(run_id,), latest_version=True)
            thread = threading.Thread(target=change, args=(stage, request))
            thread.start()
            thread.join(20)
            assert not thread.is_alive()
        return found

    monkeypatch.setattr(starting, "_within_limits", and_then_clear)
    (id,) = stage.store.runs.start_due()
    run = stage.store.runs.by_id(id)
    assert run.version == new.version
    assert set(stage.states(run)) == {"a", "b"}


# Objects


def test_the_object_of_a_cleared_result_goes_with_its_run(stage: Any) -> None:
    stage.begin()
    stage.finish(stage.claim(), has_xcom=True, xcom={"$ref": "file:///xcom/one.json"})
    clear(stage, "a")
    run = stage.store.runs.get("d", "r")
    stage.schedule(run, "a")
    assert stage.store.runs.snapshot(run.id).xcoms == {}
    stage.finish(stage.claim(), has_xcom=True, xcom={"$ref": "file:///xcom/two.json"})
    assert stage.store.attempts.xcom("d", "r", "a") == {"$ref": "file:///xcom/two.json"}
    mark(stage, "skipped", "b")
    settle(stage)
    deleted = stage.store.deletions.runs("d", ["r"], who="ann")
    assert deleted.references == ["file:///xcom/one.json", "file:///xcom/two.json"]
    assert deleted.counts["xcoms"] == 2


def test_an_object_that_another_run_took_from_the_cache_outlives_it(stage: Any) -> None:
    spec = stage.dag(tasks=[stage.task("a", cache=CacheSpec(60.0))])
    stage.publish(spec)
    for name, cached in (("first", False), ("second", True)):
        run = stage.run(spec, name)
        stage.schedule(run, "a")
        key = {} if cached else {"cache_key": "a" * 64}
        stage.finish(stage.claim(), has_xcom=True, xcom={"$ref": "file:///xcom/one.json"}, cached=cached, **key)
        stage.end(run)
    stage.store.cache.clear()
    assert stage.store.deletions.runs("d", ["second"], who="ann").references == []
    assert stage.store.deletions.runs("d", ["first"], who="ann").references == ["file:///xcom/one.json"]

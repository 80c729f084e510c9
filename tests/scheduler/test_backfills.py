from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from yarrow.language.spec import DagSpec, ScheduleSpec
from yarrow.plans.requests import BackfillRequest, ClearRequest
from yarrow.protocol import Report
from yarrow.states import RunState
from yarrow.store.records import ClaimedAttempt, RunRecord

DAY = ScheduleSpec(cron="@daily")
START = datetime(2026, 1, 1, tzinfo=UTC)  # of the clock
ONE_DAY = timedelta(days=1)
LONG_AGO = START - 4000 * ONE_DAY


def chain(make_dag: Callable[..., DagSpec], dag_id: str = "d", **settings: Any) -> DagSpec:
    fields = {"schedule": DAY, "start_date": LONG_AGO, "max_active_tasks": 1000, **settings}
    return make_dag(dag_id, "a", "b", "c", upstream={"b": ["a"], "c": ["b"]}, **fields)


def begin(engine: Any, days: int, until: int = 1, dag_id: str = "d", **fields: Any) -> int:
    """Backfills the days from so many days before START."""
    first, last = START - days * ONE_DAY, START - until * ONE_DAY
    request = BackfillRequest(dag_id=dag_id, from_date=first, to_date=last, **fields)
    return int(str(engine.store.plans.carry_out(request, who="ann").result["backfill_id"]))


def backfilled(engine: Any, dag_id: str = "d") -> list[RunRecord]:
    return [run for run in engine.runs(dag_id) if run.run_type == "backfill"]


def most_at_once(engine: Any, id: int) -> int:
    """The most runs of a backfill that ran at the same time, by the history."""
    run_ids = {run.run_id for run in engine.runs("d") if run.backfill_id == id}
    running = most = 0
    for line in engine.store.runs.events("d", limit=100_000):
        if line.kind == "run.state" and line.run_id in run_ids:
            running += (line.to_state == "running") - (line.from_state == "running")
            most = max(most, running)
    return most


def test_every_run_is_made_and_run_once_within_the_limit(engine: Any, make_dag: Any) -> None:
    engine.publish(chain(make_dag))
    worker = engine.add_worker(slots=100)
    engine.settle()
    before = len(worker.claimed)
    id = begin(engine, 21, 2, max_active_runs=4)
    engine.settle()
    record = engine.store.backfills.get(id)
    assert (record.state, record.counts) == ("completed", {"success": 20})
    claimed = Counter((one.logical_date, one.task_id) for one in worker.claimed[before:])
    assert set(claimed.values()) == {1}
    assert len(claimed) == 60
    assert most_at_once(engine, id) == 4


def test_backfills_beside_one_another_keep_their_own_limits(engine: Any, make_dag: Any) -> None:
    engine.publish(chain(make_dag, max_active_runs=1))
    engine.add_worker(slots=100)
    engine.settle()
    first, second = begin(engine, 21, 12, max_active_runs=2), begin(engine, 16, 2, max_active_runs=5)
    engine.settle()
    assert [engine.store.backfills.get(id).state for id in (first, second)] == ["completed", "completed"]
    assert [engine.store.backfills.get(id).run_count for id in (first, second)] == [10, 10]
    assert (most_at_once(engine, first), most_at_once(engine, second)) == (2, 5)


def test_a_scheduled_run_is_not_starved(engine: Any, make_dag: Any) -> None:
    """Two task instances at once, fifty runs at work on the past: the new day's tasks go before all of theirs."""
    engine.config = replace(engine.config, parallelism=2)
    engine.start_scheduler()
    engine.publish(chain(make_dag, max_active_runs=1))
    worker = engine.add_worker(slots=100)
    engine.settle()
    begin(engine, 51, 2, max_active_runs=50)
    engine.tick()
    assert sum(run.state is RunState.RUNNING for run in backfilled(engine)) == 50
    worker.work()
    engine.clock.advance(ONE_DAY.total_seconds())
    worker.heartbeat()
    worker.claimed.clear()
    for _ in range(4):
        engine.tick()
        worker.work()
    scheduled = [place for place, one in enumerate(worker.claimed) if one.run_id.startswith("scheduled__")]
    assert [worker.claimed[place].task_id for place in scheduled] == ["a", "b", "c"]
    assert scheduled[0] <= 2  # after at most the two that had slots when it came
    assert scheduled == [scheduled[0], scheduled[0] + 2, scheduled[0] + 4]  # one slot is the past's meanwhile
    engine.settle()
    assert {str(run.state) for run in engine.runs("d")} == {"success"}


def test_a_scheduler_that_starts_anew_goes_on_with_it(engine: Any, make_dag: Any) -> None:
    engine.publish(chain(make_dag))
    worker = engine.add_worker(slots=100)
    engine.settle()
    id = begin(engine, 31, 2, max_active_runs=3)
    for _ in range(5):
        engine.tick()
        worker.work()
    left = engine.store.backfills.get(id).left
    assert 0 < left < 30
    worker.take()  # and is gone with what it took
    engine.workers.remove(worker)
    engine.scheduler.publisher.close()
    engine.start_scheduler()
    engine.add_worker("worker-2", slots=100)
    engine.advance(200)
    engine.settle()
    assert engine.store.backfills.get(id).counts == {"success": 30}


def test_a_run_that_fails_holds_up_no_other(engine: Any, make_dag: Any) -> None:
    engine.publish(chain(make_dag))
    worker = engine.add_worker(slots=100)
    engine.settle()
    bad = START - 5 * ONE_DAY

    def behave(attempt: ClaimedAttempt) -> Report:
        return Report(attempt.attempt_id, "failed" if attempt.logical_date == bad else "success")

    succeed, worker.behave = worker.behave, behave
    id = begin(engine, 9, 2, max_active_runs=1)
    engine.settle()
    assert engine.store.backfills.get(id).counts == {"success": 7, "failed": 1}
    worker.behave = succeed
    again = begin(engine, 9, 2, reprocess="failed")
    engine.settle()
    assert engine.store.backfills.get(again).counts == {"success": 1}
    assert [one.task_id for one in worker.claimed[-3:]] == ["a", "b", "c"]
    assert {str(run.state) for run in backfilled(engine)} == {"success"}


def test_what_looks_back_goes_one_day_after_another(engine: Any, make_dag: Any) -> None:
    engine.publish(chain(make_dag, task={"depends_on_past": True}, start_date=START - 6 * ONE_DAY))
    worker = engine.add_worker(slots=100)
    engine.tick()  # without catchup, only the newest day has a run
    begin(engine, 6, 2, max_active_runs=5)
    engine.settle()
    engine.assert_ended("d")
    days = [one.logical_date for one in worker.claimed if one.task_id == "c" and one.run_id.startswith("backfill__")]
    assert days == sorted(days)
    assert len(days) == 5


def test_catchup_leaves_the_days_of_a_backfill_to_it(engine: Any, make_dag: Any) -> None:
    engine.publish(chain(make_dag, catchup=True, start_date=START - 8 * ONE_DAY, max_active_runs=2))
    begin(engine, 6, 3)
    engine.add_worker(slots=100)
    engine.settle()
    types = [run.run_type for run in engine.runs("d")]
    assert types == ["scheduled"] * 2 + ["backfill"] * 4 + ["scheduled"] * 2
    assert len({run.logical_date for run in engine.runs("d")}) == 8
    engine.assert_ended("d")


def test_cancelled_in_the_middle_it_leaves_nothing_that_does_not_end(engine: Any, make_dag: Any) -> None:
    engine.publish(chain(make_dag))
    worker = engine.add_worker(slots=100)
    engine.settle()
    id = begin(engine, 21, 2, max_active_runs=3)
    for _ in range(4):
        engine.tick()
        worker.work()
    engine.tick()
    running = [run for run in backfilled(engine) if run.state is RunState.RUNNING]
    assert running
    engine.store.backfills.cancel(id, "bob")
    engine.settle()
    engine.assert_ended("d")
    run = backfilled(engine)[0]
    engine.store.plans.carry_out(ClearRequest(dag_id="d", run_ids=(run.run_id,)), who="bob")
    engine.settle()
    engine.assert_ended("d")
    begin(engine, 21, 2)
    engine.settle()
    assert len(backfilled(engine)) == 20
    engine.assert_ended("d")


def test_a_paused_backfill_ends_what_runs_and_goes_on_later(engine: Any, make_dag: Any) -> None:
    engine.publish(chain(make_dag))
    engine.add_worker(slots=100)
    engine.settle()
    id = begin(engine, 11, 2, max_active_runs=2)
    engine.tick()
    engine.store.backfills.pause(id, "bob")
    engine.settle()
    assert engine.store.backfills.get(id).counts == {"success": 2, "queued": 8}
    engine.store.backfills.resume(id, "bob")
    engine.settle()
    assert engine.store.backfills.get(id).counts == {"success": 10}


def test_only_the_selected_tasks_run(engine: Any, make_dag: Any) -> None:
    engine.publish(chain(make_dag))
    worker = engine.add_worker(slots=100)
    engine.settle()
    worker.claimed.clear()
    begin(engine, 4, 2, tasks="b+")
    engine.settle()
    assert Counter(one.task_id for one in worker.claimed) == {"b": 3, "c": 3}
    assert {tuple(engine.states(run)) for run in backfilled(engine)} == {("b", "c")}
    engine.assert_ended("d")


@pytest.mark.parametrize("days", [30, 3650])
def test_runs_that_wait_cost_a_pass_nothing(
    sqlite_engine: Any,
    make_dag: Any,
    statements: Callable[[], AbstractContextManager[list[str]]],
    days: int,
) -> None:
    engine = sqlite_engine
    engine.publish(chain(make_dag))
    engine.tick(2)
    begin(engine, days + 1, 2, max_active_runs=10)
    engine.tick(2)
    with statements() as found:
        assert engine.tick() is None
    assert len(found) <= 25
    assert sum(run.state is RunState.QUEUED for run in backfilled(engine)) == days - 10


def test_dates_are_those_of_the_timetable(sqlite_engine: Any, make_dag: Any) -> None:
    engine = sqlite_engine
    engine.publish(chain(make_dag))
    begin(engine, 3, 1)
    dates: list[datetime] = [run.logical_date for run in backfilled(engine)]
    assert dates == [START - number * ONE_DAY for number in (3, 2, 1)]

"""Due data intervals become runs: catchup, the latest alone, limits, pauses, and what can't be planned."""

from __future__ import annotations

import itertools
import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from yarrow.errors import StoreError
from yarrow.language.spec import DagSpec, ScheduleSpec
from yarrow.states import RunState
from yarrow.timetable import Interval, Timetable

DAY = ScheduleSpec(cron="@daily")

MakeDag = Callable[..., DagSpec]


Calls = Callable[[Callable[[], object]], int]


@pytest.fixture
def calls() -> Calls:
    """Counts the function calls, Python's and C's, that some work makes in this thread."""

    def count(work: Callable[[], object]) -> int:
        found = 0

        def profile(_frame: Any, event: str, _argument: Any) -> None:
            nonlocal found
            found += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            work()
        finally:
            sys.setprofile(before)
        return found

    return count


def dates(runs: Any) -> list[datetime]:
    return [run.logical_date for run in runs]


def days(*numbers: int) -> list[datetime]:
    return [datetime(2025, 12, number, tzinfo=UTC) for number in numbers]


def test_catchup_makes_every_missed_run_in_order(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", schedule=DAY, start_date=days(25)[0], catchup=True))
    engine.add_worker()
    engine.settle()
    assert dates(engine.runs("d")) == days(25, 26, 27, 28, 29, 30, 31)
    engine.assert_ended("d")
    run = engine.runs("d")[0]
    assert run.run_id == "scheduled__2025-12-25T00:00:00+00:00"
    assert (run.data_interval_start, run.data_interval_end, run.run_after) == (*days(25, 26), days(26)[0])
    record = engine.store.catalog.dag("d")
    assert record.scheduled_through == days(31)[0]
    assert record.next_run_after == datetime(2026, 1, 2, tzinfo=UTC)


def test_without_catchup_only_the_latest_interval_runs(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", schedule=DAY, start_date=days(1)[0]))
    engine.add_worker()
    engine.settle()
    assert dates(engine.runs("d")) == days(31)
    engine.clock.advance(5.5 * 86400)
    engine.settle()
    assert dates(engine.runs("d")) == [*days(31), datetime(2026, 1, 5, tzinfo=UTC)]


def test_the_next_run_starts_when_its_interval_has_ended(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", schedule=DAY, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=True))
    engine.add_worker()
    engine.settle()
    assert engine.runs("d") == []
    engine.clock.advance(86399)
    engine.settle()
    assert engine.runs("d") == []
    engine.clock.advance(1)
    engine.settle()
    assert dates(engine.runs("d")) == [datetime(2026, 1, 1, tzinfo=UTC)]


def test_a_new_trigger_schedule_waits_for_its_next_moment(engine: Any, make_dag: MakeDag) -> None:
    schedule = ScheduleSpec(cron="0 6 * * *", semantics="trigger")
    engine.publish(make_dag("d", "a", schedule=schedule))
    engine.settle()
    assert engine.runs("d") == []
    engine.clock.advance(6 * 3600)
    engine.settle()
    (run,) = engine.runs("d")
    assert run.logical_date == run.data_interval_end == datetime(2026, 1, 1, 6, tzinfo=UTC)


def test_once_runs_once_even_without_a_start_date(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", schedule=ScheduleSpec(cron="@once")))
    engine.add_worker()
    engine.settle()
    engine.clock.advance(86400)
    engine.settle()
    assert dates(engine.runs("d")) == [datetime(2026, 1, 1, tzinfo=UTC)]
    assert engine.store.catalog.dag("d").next_run_after is None


def test_a_schedule_without_a_start_date_has_no_beginning(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", schedule=ScheduleSpec(every=900.0)))
    engine.settle()
    assert dates(engine.runs("d")) == [datetime(2025, 12, 31, 23, 45, tzinfo=UTC)]


def test_an_end_date_ends_the_schedule(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", schedule=DAY, start_date=days(1)[0], end_date=days(4)[0], catchup=True))
    engine.add_worker()
    engine.settle()
    assert dates(engine.runs("d")) == days(1, 2, 3)
    assert engine.store.catalog.dag("d").next_run_after is None


def test_a_dag_without_a_schedule_is_never_due(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a"))
    engine.settle()
    assert engine.runs("d") == []
    assert engine.store.catalog.unscheduled() == []


def test_no_more_runs_are_made_than_may_be_active(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", schedule=DAY, start_date=days(1)[0], catchup=True, max_active_runs=3))
    worker = engine.add_worker()
    engine.tick(5)
    assert dates(engine.runs("d")) == days(1, 2, 3)
    first = next(attempt for attempt in worker.take() if attempt.logical_date == days(1)[0])
    worker.report(first)
    engine.tick(3)
    assert dates(engine.runs("d")) == days(1, 2, 3, 4), "one ended, so the next one is made"


def test_twenty_five_years_of_minutes_cost_nothing(
    sqlite_engine: Any,
    make_dag: MakeDag,
    statements: Callable[[], AbstractContextManager[list[str]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = sqlite_engine
    asked: list[datetime | None] = []
    next_interval = Timetable.next_interval

    def counted(timetable: Timetable, after: datetime | None) -> Interval | None:
        asked.append(after)
        return next_interval(timetable, after)

    monkeypatch.setattr(Timetable, "next_interval", counted)
    engine.publish(
        make_dag(
            "d",
            "a",
            schedule=ScheduleSpec(cron="* * * * *"),
            start_date=datetime(2001, 1, 1, tzinfo=UTC),
            catchup=True,
            max_active_runs=16,
        ),
        make_dag("other", "a", schedule=DAY),
    )
    with statements() as found:
        engine.tick(10)
    assert len(engine.runs("d")) == 16
    assert len(asked) <= 2 * 16, "only what may run is worked out"
    assert len(found) <= 500
    assert len(engine.runs("other")) == 1


def test_without_catchup_a_missed_run_is_not_made_up_for(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", schedule=DAY, max_active_runs=1))
    engine.add_worker()
    engine.tick()
    assert dates(engine.runs("d")) == days(31)
    engine.clock.advance(3 * 86400)  # the first run is still active all the time
    engine.tick(3)
    assert dates(engine.runs("d")) == days(31)
    engine.workers[0].heartbeat()
    engine.settle()
    assert dates(engine.runs("d")) == [*days(31), datetime(2026, 1, 3, tzinfo=UTC)]


def test_a_paused_dag_makes_no_runs_and_catches_up_afterwards(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", schedule=DAY, start_date=days(30)[0], catchup=True))
    engine.store.catalog.set_paused("d", True, "somebody")
    engine.settle()
    assert engine.runs("d") == []
    engine.store.catalog.set_paused("d", False, "somebody")
    engine.add_worker()
    engine.settle()
    assert dates(engine.runs("d")) == days(30, 31)


def test_continuous_runs_follow_on_each_other(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", schedule=ScheduleSpec(cron="@continuous")))
    worker = engine.add_worker()
    engine.clock.advance(10)
    engine.tick(3)
    (first,) = engine.runs("d")
    begin, now = datetime(2026, 1, 1, tzinfo=UTC), engine.clock()
    assert (first.logical_date, first.data_interval_start, first.data_interval_end) == (begin, begin, now)
    engine.advance(30)
    assert len(engine.runs("d")) == 1, "it still runs"
    worker.heartbeat()
    worker.work()
    engine.tick(3)
    first, second = engine.runs("d")
    assert (second.data_interval_start, second.data_interval_end) == (first.data_interval_end, engine.clock())
    worker.work()
    engine.tick(3)
    engine.clock.advance(1)
    engine.tick(3)
    assert len(engine.runs("d")) == 3


def test_continuous_runs_begin_with_the_start_date_and_stop_at_the_end_date(engine: Any, make_dag: MakeDag) -> None:
    begin, end = datetime(2025, 12, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    engine.publish(make_dag("d", "a", schedule=ScheduleSpec(cron="@continuous"), start_date=begin, end_date=end))
    engine.add_worker()
    for _ in range(20):
        engine.advance(10)
        engine.settle()
    runs = engine.runs("d")
    assert runs[0].data_interval_start == begin
    assert all(earlier.data_interval_end == later.data_interval_start for earlier, later in itertools.pairwise(runs))
    assert runs[-1].data_interval_end == end
    assert len(runs) == 6
    assert engine.store.catalog.dag("d").next_run_after is None


def test_several_crons_make_one_run_an_instant(engine: Any, make_dag: MakeDag) -> None:
    schedule = ScheduleSpec(cron=("0 6 * * *", "0 */6 * * *"), semantics="trigger")
    engine.publish(make_dag("d", "a", schedule=schedule, start_date=days(31)[0], catchup=True))
    engine.add_worker()
    engine.settle()
    assert dates(engine.runs("d")) == [days(31)[0] + timedelta(hours=6 * number) for number in range(5)]


# What `max_catchup_runs` leaves out


def cuts(engine: Any) -> list[str]:
    return [event.reason for event in engine.store.runs.events("d") if event.kind == "dag.catchup_cut"]


def test_only_the_newest_missed_runs_are_made_up_for(engine: Any, make_dag: MakeDag) -> None:
    dag = make_dag("d", "a", schedule=DAY, start_date=days(1)[0], catchup=True, max_catchup_runs=3, max_active_runs=1)
    engine.publish(dag)
    engine.tick(3)
    engine.store.catalog.set_paused("d", True, "somebody")
    engine.store.catalog.set_paused("d", False, "somebody")
    worker = engine.add_worker()
    engine.settle()
    assert dates(engine.runs("d")) == days(29, 30, 31)
    assert cuts(engine) == [
        "28 missed runs are left out, of the logical dates 2025-12-01T00:00:00Z to 2025-12-28T00:00:00Z: "
        "`max_catchup_runs` is 3."
    ]
    engine.clock.advance(2 * 86400)
    worker.heartbeat()
    engine.settle()
    assert len(engine.runs("d")) == 5
    engine.clock.advance(4 * 86400)  # nobody looked at it for so long
    worker.heartbeat()
    engine.settle()
    assert len(engine.runs("d")) == 8
    assert cuts(engine)[1].startswith("1 missed run is left out, of the logical dates 2026-01-03T00:00:00Z to ")


@pytest.mark.parametrize("semantics", ["interval", "trigger"])
def test_decades_of_minutes_are_cut_at_once(
    sqlite_engine: Any, make_dag: MakeDag, calls: Calls, semantics: str
) -> None:
    engine = sqlite_engine
    minutely = ScheduleSpec(cron="* * * * *", semantics=semantics)
    start = datetime(2001, 1, 1, tzinfo=UTC)
    engine.publish(
        make_dag("d", "a", schedule=minutely, start_date=start, catchup=True, max_catchup_runs=40, max_active_runs=2)
    )
    assert calls(engine.tick) < 500_000, "there are 13 million minutes"
    engine.add_worker()
    engine.settle()
    assert len(engine.runs("d")) == 40
    (cut,) = cuts(engine)
    assert cut.startswith("More than 1,000 missed runs are left out, of the logical dates 2001-01-01T00:00:00Z to 2025")


def test_a_tick_costs_the_same_however_much_was_missed(sqlite_engine: Any, make_dag: MakeDag, calls: Calls) -> None:
    engine = sqlite_engine
    costs = []
    for number, years in enumerate((1, 25)):
        start = datetime(2026 - years, 1, 1, tzinfo=UTC)
        minutely = ScheduleSpec(cron="* * * * *", timezone="Europe/Berlin")
        engine.publish(make_dag(f"d{number}", "a", schedule=minutely, start_date=start, catchup=True))
        costs.append(calls(engine.tick))
        engine.tick(3)
        assert len(engine.runs(f"d{number}")) == 16
    assert costs[1] < 1.5 * costs[0]


def test_many_blocked_dags_hide_no_other(
    sqlite_engine: Any, make_dag: MakeDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yarrow_scheduler.plan._DUE_AT_ONCE", 3)
    engine = sqlite_engine
    blocked = [
        make_dag(f"b{i}", "a", schedule=DAY, start_date=days(1)[0], catchup=True, max_active_runs=1) for i in range(8)
    ]
    engine.publish(*blocked, make_dag("late", "a", schedule=DAY))
    while engine.tick() is not None:
        pass
    assert [len(engine.runs(f"b{i}")) for i in range(8)] == [1] * 8
    assert len(engine.runs("late")) == 1


def test_a_dag_that_cannot_be_planned_stops_no_other(
    sqlite_engine: Any, make_dag: MakeDag, caplog: pytest.LogCaptureFixture
) -> None:
    engine = sqlite_engine
    bad = make_dag("bad", "a", schedule=ScheduleSpec(cron="61 * * * *"))
    engine.publish(bad, make_dag("good", "a", schedule=DAY))
    with caplog.at_level(logging.ERROR):
        engine.tick(3)
    assert len(engine.runs("good")) == 1
    assert [record.action for record in caplog.records] == ["schedule_failed"]  # type: ignore[attr-defined]


def test_the_clock_may_be_put_back(engine: Any, make_dag: MakeDag) -> None:
    engine.publish(make_dag("d", "a", schedule=DAY, start_date=days(29)[0], catchup=True, max_active_runs=1))
    engine.add_worker()
    engine.tick(2)
    engine.clock.advance(-3600)
    engine.settle()
    engine.clock.advance(3600)
    engine.settle()
    assert dates(engine.runs("d")) == days(29, 30, 31)
    assert {run.state for run in engine.runs("d")} == {RunState.SUCCESS}


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("params")])
def test_a_run_that_cannot_be_made_stops_no_other(
    sqlite_engine: Any,
    make_dag: MakeDag,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    engine = sqlite_engine
    engine.publish(make_dag("bad", "a", schedule=DAY), make_dag("good", "a", schedule=DAY))
    create = type(engine.store.runs).create
    tries = []

    def fail(self: Any, spec: DagSpec, version: str, **rest: Any) -> Any:
        if spec.dag_id == "bad":
            tries.append(engine.clock())
            raise error
        return create(self, spec, version, **rest)

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(type(engine.store.runs), "create", fail)
        engine.advance(90, step=1)
    assert len(engine.runs("good")) == 1
    assert [(moment - tries[0]).total_seconds() for moment in tries] == [0, 60], "not again and again"
    assert {record.action for record in caplog.records} == {"plan_failed"}  # type: ignore[attr-defined]
    engine.advance(60, step=1)
    assert len(engine.runs("bad")) == 1


@pytest.mark.parametrize("step", ["spec", "due"])
def test_a_broken_database_is_not_taken_for_a_bad_dag(
    sqlite_engine: Any, make_dag: MakeDag, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    engine = sqlite_engine
    engine.publish(make_dag("d", "a", schedule=DAY))
    if step == "due":
        engine.clock.advance(-3600)
        engine.tick()
        engine.clock.advance(3600)

    def fail(*_: Any, **__: Any) -> Any:
        raise StoreError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(type(engine.store.catalog), "spec", fail)
        with pytest.raises(StoreError):
            engine.tick()
    engine.tick()
    assert dates(engine.runs("d"))[-1] == days(31)[0]


def test_a_long_catchup_is_spread_over_several_passes(
    sqlite_engine: Any, make_dag: MakeDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("yarrow_scheduler.plan._RUNS_AT_ONCE", 3)
    engine = sqlite_engine
    engine.publish(make_dag("d", "a", schedule=DAY, start_date=days(1)[0], catchup=True, max_active_runs=8))
    counts = []
    for _ in range(4):
        engine.tick()
        counts.append(len(engine.runs("d")))
    assert counts == [3, 6, 8, 8]


def test_a_pointer_that_the_timetable_does_not_know_is_set_right(sqlite_engine: Any, make_dag: MakeDag) -> None:
    engine = sqlite_engine
    engine.publish(make_dag("d", "a", schedule=DAY, end_date=datetime(2026, 6, 1, tzinfo=UTC)))
    engine.tick()
    dag = engine.store.catalog.dag("d")
    late = datetime(2026, 1, 9, tzinfo=UTC)
    engine.store.catalog.set_schedule(dag, next_logical_date=late, next_run_after=engine.clock())
    engine.tick()
    assert len(engine.runs("d")) == 1
    assert engine.store.catalog.dag("d").next_logical_date == datetime(2026, 1, 1, tzinfo=UTC)


def test_another_scheduler_may_have_made_the_run(engine: Any, make_dag: MakeDag) -> None:
    dag = make_dag("d", "a", schedule=DAY, start_date=days(30)[0], catchup=True)
    engine.publish(dag)
    interval = (*days(30, 30, 31), days(31)[0])
    engine.store.runs.create(
        dag,
        dag.version,
        run_id="scheduled__2025-12-30T00:00:00+00:00",
        run_type="scheduled",
        interval=interval,
        params={},
    )
    engine.tick()
    assert dates(engine.runs("d")) == days(30, 31)

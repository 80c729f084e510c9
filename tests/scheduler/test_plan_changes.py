"""A schedule that changes in the life of a DAG: no run twice, and no time left out that the history does not name."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from yarrow.language.spec import DagSpec, ScheduleSpec

MakeDag = Callable[..., DagSpec]

START = datetime(2025, 12, 30, tzinfo=UTC)
DAILY = ScheduleSpec(cron="@daily")
HOURLY = ScheduleSpec(cron="@hourly")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc]  # year, month, day, hour, minute


def spans(engine: Any) -> list[tuple[datetime, datetime]]:
    return [(run.data_interval_start, run.data_interval_end) for run in engine.runs("d")]


def changes(engine: Any) -> list[str]:
    return [event.reason for event in engine.store.runs.events("d") if event.kind == "dag.schedule_changed"]


@pytest.fixture
def live(sqlite_engine: Any, make_dag: MakeDag) -> Callable[..., Any]:
    """Publishes the DAG with a schedule and lets the hours pass."""

    def go_on(schedule: ScheduleSpec | None, hours: float, *, catchup: bool = True, **settings: Any) -> Any:
        values = {"start_date": START, "catchup": catchup} | settings
        sqlite_engine.publish(make_dag("d", "a", schedule=schedule, **values))
        if not sqlite_engine.workers:
            sqlite_engine.add_worker()
        sqlite_engine.settle()
        left = timedelta(hours=hours)
        while left > timedelta(0):
            step = min(left, timedelta(hours=1))
            sqlite_engine.clock.advance(step.total_seconds())
            sqlite_engine.workers[0].heartbeat()
            sqlite_engine.settle()
            left -= step
        return sqlite_engine

    return go_on


def test_from_daily_to_hourly(live: Callable[..., Any]) -> None:
    engine = live(DAILY, 10.5)  # 10:30 on the first of January
    live(HOURLY, 0)
    covered = spans(engine)
    assert covered[:3] == [
        (START, utc(2025, 12, 31)),
        (utc(2025, 12, 31), utc(2026, 1, 1)),
        (utc(2026, 1, 1), utc(2026, 1, 1, 1)),
    ]
    assert covered[-1] == (utc(2026, 1, 1, 9), utc(2026, 1, 1, 10))
    assert len(covered) == 12
    assert changes(engine) == [
        "The schedule was `@daily` (UTC) and is `@hourly` (UTC). The runs so far cover the time up to "
        "2026-01-01T00:00:00Z; the next one covers 2026-01-01T00:00:00Z to 2026-01-01T01:00:00Z."
    ]


def test_from_hourly_to_daily(live: Callable[..., Any]) -> None:
    engine = live(HOURLY, 5.5)
    live(DAILY, 48)
    covered = spans(engine)
    assert covered[-3:] == [
        (utc(2026, 1, 1, 4), utc(2026, 1, 1, 5)),
        (utc(2026, 1, 1, 5), utc(2026, 1, 2)),
        (utc(2026, 1, 2), utc(2026, 1, 3)),
    ]
    (change,) = changes(engine)
    assert change.endswith("covers 2026-01-01T05:00:00Z to 2026-01-02T00:00:00Z, a shorter time than the others.")


def test_without_catchup_too_the_next_run_begins_where_the_last_one_ended(live: Callable[..., Any]) -> None:
    engine = live(HOURLY, 5.5, catchup=False)
    live(DAILY, 48, catchup=False)
    assert spans(engine)[-2:] == [(utc(2026, 1, 1, 5), utc(2026, 1, 2)), (utc(2026, 1, 2), utc(2026, 1, 3))]
    live(HOURLY, 1.5, catchup=False)
    assert spans(engine)[-3:-1] == [
        (utc(2026, 1, 3, 4), utc(2026, 1, 3, 5)),
        (utc(2026, 1, 3, 5), utc(2026, 1, 3, 6)),
    ]
    assert changes(engine)[-1].endswith(
        "up to 2026-01-03T00:00:00Z; the next one covers 2026-01-03T04:00:00Z to 2026-01-03T05:00:00Z. "
        "No run covers the time between."
    )


def test_another_time_zone_across_a_change_of_the_clocks(live: Callable[..., Any], clock: Any) -> None:
    start = utc(2026, 3, 26)
    clock.advance((utc(2026, 3, 28, 12) - clock()).total_seconds())
    engine = live(ScheduleSpec(cron="@daily", timezone="Europe/Berlin"), 24, start_date=start)
    live(ScheduleSpec(cron="@daily", timezone="America/New_York"), 48, start_date=start)
    assert spans(engine) == [
        (utc(2026, 3, 26, 23), utc(2026, 3, 27, 23)),
        (utc(2026, 3, 27, 23), utc(2026, 3, 28, 23)),
        (utc(2026, 3, 28, 23), utc(2026, 3, 29, 4)),  # shortened
        (utc(2026, 3, 29, 4), utc(2026, 3, 30, 4)),
        (utc(2026, 3, 30, 4), utc(2026, 3, 31, 4)),
    ]
    (change,) = changes(engine)
    assert "was `@daily` (Europe/Berlin) and is `@daily` (America/New_York)" in change
    assert "a shorter time than the others" in change


def test_from_intervals_to_moments_and_back(live: Callable[..., Any]) -> None:
    engine = live(DAILY, 30)  # 06:00 on the second of January
    moments = ScheduleSpec(cron="@daily", semantics="trigger")
    live(moments, 24)
    assert [run.logical_date for run in engine.runs("d")][-2:] == [utc(2026, 1, 1), utc(2026, 1, 3)]
    assert len({run.run_after for run in engine.runs("d")}) == len(engine.runs("d")), "none of a moment that had one"
    live(DAILY, 48)
    assert spans(engine)[-1] == (utc(2026, 1, 4), utc(2026, 1, 5))
    assert len(changes(engine)) == 2
    assert changes(engine)[1].endswith(
        "up to 2026-01-03T00:00:00Z; the next one covers 2026-01-04T00:00:00Z to 2026-01-05T00:00:00Z. "
        "No run covers the time between."
    )


@pytest.mark.parametrize("catchup", [True, False])
def test_from_a_cron_to_datasets_and_back(live: Callable[..., Any], catchup: bool) -> None:
    engine = live(DAILY, 12, catchup=catchup)
    before = len(engine.runs("d"))
    live(ScheduleSpec(datasets=("a",)), 60, catchup=catchup)
    engine.store.datasets.publish("a", "somebody")
    engine.settle()
    live(DAILY, 24, catchup=catchup)
    engine.store.datasets.publish("a", "somebody")
    engine.settle()
    runs = [run for run in engine.runs("d") if run.run_type == "scheduled"]
    assert [run.run_type for run in engine.runs("d")].count("dataset") == 1
    added = [run.logical_date for run in runs[before:]]
    assert added == [utc(2026, 1, day) for day in ((1, 2, 3, 4) if catchup else (3, 4))]
    to_datasets, back = changes(engine)
    assert to_datasets.endswith("cover the time up to 2026-01-01T00:00:00Z; none is due after them.")
    assert ("No run covers the time between." in back) is not catchup


@pytest.mark.parametrize("catchup", [True, False])
def test_paused_for_a_month(live: Callable[..., Any], catchup: bool) -> None:
    engine = live(DAILY, 12, catchup=catchup)
    before = len(engine.runs("d"))
    engine.store.catalog.set_paused("d", True, "somebody")
    live(DAILY, 31 * 24, catchup=catchup)
    assert len(engine.runs("d")) == before
    engine.store.catalog.set_paused("d", False, "somebody")
    live(DAILY, 24, catchup=catchup)
    added = [run.logical_date for run in engine.runs("d")][before:]
    missed = [utc(2026, 1, 1) + timedelta(days=number) for number in range(31)]
    assert added == [*(missed if catchup else missed[-1:]), utc(2026, 2, 1)]
    assert changes(engine) == []


def test_a_changed_file_with_the_same_schedule_changes_nothing(live: Callable[..., Any]) -> None:
    engine = live(DAILY, 12)
    live(DAILY, 36, description="another")
    live(None, 24)
    assert [run.logical_date for run in engine.runs("d")] == [START + timedelta(days=number) for number in range(4)]
    assert changes(engine) == [
        "The schedule was `@daily` (UTC) and is none. The runs so far cover the time up to 2026-01-03T00:00:00Z; "
        "none is due after them."
    ]


def test_a_steady_rhythm_that_begins_at_another_date(live: Callable[..., Any]) -> None:
    every = ScheduleSpec(every=86400.0)
    engine = live(every, 12)
    live(every, 36, start_date=START + timedelta(hours=7))
    assert spans(engine)[-3:] == [
        (utc(2025, 12, 31), utc(2026, 1, 1)),
        (utc(2026, 1, 1), utc(2026, 1, 1, 7)),
        (utc(2026, 1, 1, 7), utc(2026, 1, 2, 7)),
    ]
    (change,) = changes(engine)
    assert change.startswith("The schedule was `every 1d` and is `every 1d`")
    assert change.endswith("a shorter time than the others.")


def test_a_scheduler_that_knows_only_the_old_version_makes_no_run(sqlite_engine: Any, make_dag: MakeDag) -> None:
    engine = sqlite_engine
    old = make_dag("d", "a", schedule=DAILY, start_date=START, catchup=True)
    new = make_dag("d", "a", schedule=HOURLY, start_date=START, catchup=True)
    engine.publish(old)
    engine.publish(new)
    day = timedelta(days=1)
    made = engine.store.runs.create(
        old,
        old.version,
        run_id="scheduled__late",
        run_type="scheduled",
        interval=(START, START, START + day, START + day),
        params={},
        advance=(START + day, START + 2 * day),
    )
    assert made is None
    assert engine.runs("d") == []
    assert engine.store.catalog.dag("d").scheduled_through is None


SCHEDULES = [
    DAILY,
    HOURLY,
    ScheduleSpec(cron="0 */6 * * *", timezone="Asia/Kolkata"),
    ScheduleSpec(cron=("15 3 * * *", "45 17 * * 1-5"), timezone="America/New_York"),
    ScheduleSpec(every=5400.0),
    ScheduleSpec(cron="@daily", timezone="Pacific/Chatham", semantics="trigger"),
    ScheduleSpec(cron="@continuous"),
    ScheduleSpec(datasets=("x",)),
    None,
]


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_changes_are_no_time_is_covered_twice_and_every_hole_is_recorded(
    live: Callable[..., Any], seed: int
) -> None:
    source = random.Random(seed)
    engine = None
    for _ in range(5):
        engine = live(source.choice(SCHEDULES), source.choice([0, 1, 5.5, 14, 26.5]))
    assert engine is not None
    runs = [run for run in engine.runs("d") if run.run_type == "scheduled"]
    assert len({run.logical_date for run in runs}) == len(runs)
    told = " ".join(changes(engine))
    covering = [run for run in runs if run.data_interval_end > run.data_interval_start]
    for earlier, later in itertools.pairwise(runs):
        assert earlier.data_interval_end <= later.data_interval_start
    for earlier, later in itertools.pairwise(covering):
        if earlier.data_interval_end < later.data_interval_start:
            assert f"cover the time up to {earlier.data_interval_end.isoformat().removesuffix('+00:00')}Z" in told
            assert f"covers {later.data_interval_start.isoformat().removesuffix('+00:00')}Z to" in told

"""The runs of a schedule: which interval each covers, when it starts, and which is the newest that is due."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yarrow.language.spec import ScheduleSpec
from yarrow.schedules.preview import preview
from yarrow.timetable import Interval, Timetable, check_schedule, fire_times

Calls = Callable[[Callable[[], object]], int]

NEW_YORK = "America/New_York"


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc]  # year, month, day, hour, minute


def timetable(start: datetime, end: datetime | None = None, **schedule: Any) -> Timetable:
    return Timetable.of(ScheduleSpec(**schedule), start, end)


def test_a_run_covers_an_interval_and_starts_when_it_has_ended() -> None:
    monthly = timetable(utc(2013, 1, 1, 5), utc(2014, 1, 1, 5), cron="@monthly", timezone=NEW_YORK)
    runs = monthly.intervals(None, 100)
    assert len(runs) == 12
    first, last = runs[0], runs[-1]
    assert first == Interval(utc(2013, 1, 1, 5), utc(2013, 1, 1, 5), utc(2013, 2, 1, 5), utc(2013, 2, 1, 5))
    assert last.logical_date == utc(2013, 12, 1, 5)
    assert last.data_interval_end == last.run_after == utc(2014, 1, 1, 5)
    assert runs[3].data_interval_end == utc(2013, 5, 1, 4), "daylight saving time"
    assert all(a.data_interval_end == b.data_interval_start for a, b in itertools.pairwise(runs))


def test_trigger_runs_cover_no_time() -> None:
    daily = timetable(utc(2026, 1, 1), utc(2026, 1, 4), cron="@daily", semantics="trigger")
    assert daily.intervals(None, 9) == [Interval.exact(utc(2026, 1, day)) for day in (1, 2, 3)]


@pytest.mark.parametrize("semantics", ["interval", "trigger"])
def test_the_first_logical_date_is_the_first_fire_time_from_the_start_on(semantics: str) -> None:
    first = timetable(utc(2026, 1, 1, 0, 1), cron="@daily", semantics=semantics).next_interval(None)
    assert first is not None
    assert first.logical_date == utc(2026, 1, 2)
    first = timetable(utc(2026, 1, 1), cron="@daily", semantics=semantics).next_interval(None)
    assert first is not None
    assert first.logical_date == utc(2026, 1, 1)


def test_next_interval_steps_through_and_ends() -> None:
    daily = timetable(utc(2026, 1, 1), utc(2026, 1, 3), cron="@daily")
    first = daily.next_interval(None)
    assert first is not None
    second = daily.next_interval(first.logical_date)
    assert second is not None
    assert second.logical_date == utc(2026, 1, 2)
    assert daily.next_interval(second.logical_date) is None


def test_a_logical_date_before_the_start_does_not_count() -> None:
    daily = timetable(utc(2026, 1, 5), cron="@daily")
    assert daily.next_interval(utc(2020, 1, 1)) == daily.next_interval(None)


def test_an_end_before_the_first_fire_time() -> None:
    monthly = timetable(utc(2026, 1, 2), utc(2026, 1, 20), cron="@monthly")
    assert monthly.next_interval(None) is None
    assert monthly.latest_due(utc(2030, 1, 1), None) is None


def test_a_steady_rhythm_begins_with_the_start_and_knows_no_clocks() -> None:
    every = timetable(utc(2026, 3, 7, 22, 7), every=6 * 3600.0, timezone=NEW_YORK)
    runs = every.intervals(None, 5)
    assert [run.logical_date for run in runs] == [utc(2026, 3, 7, 22, 7) + timedelta(hours=6 * n) for n in range(5)]
    assert runs[0].run_after == utc(2026, 3, 8, 4, 7)
    latest = every.latest_due(utc(2026, 3, 9), None)
    assert latest is not None
    assert latest.run_after == utc(2026, 3, 8, 22, 7)
    assert every.latest_due(utc(2026, 3, 8, 4, 6), None) is None


def test_once() -> None:
    once = timetable(utc(2026, 1, 1, 7), cron="@once", timezone=NEW_YORK)
    assert once.next_interval(None) == Interval.exact(utc(2026, 1, 1, 7))
    assert once.next_interval(utc(2026, 1, 1, 7)) is None
    assert once.latest_due(utc(2026, 1, 1, 6), None) is None
    assert once.latest_due(utc(2027, 1, 1), None) == Interval.exact(utc(2026, 1, 1, 7))
    assert once.latest_due(utc(2027, 1, 1), utc(2026, 1, 1, 7)) is None


# The newest due run, against the list of all.

schedules = st.one_of(
    st.builds(
        ScheduleSpec,
        cron=st.sampled_from(
            ["@daily", "30 2 * * *", "0 */6 * * *", "15 1,2 * * *", "0 0 * * mon", "0 0 31 * *", "45 * * * *", "@once"]
        ),
        semantics=st.sampled_from(["interval", "trigger"]),
        timezone=st.sampled_from(["UTC", NEW_YORK, "Pacific/Apia", "Australia/Lord_Howe"]),
        gap=st.sampled_from(["shift", "skip"]),
        fold=st.sampled_from(["first", "second", "both"]),
    ),
    st.builds(ScheduleSpec, every=st.sampled_from([3600.0, 86400.0, 100000.5])),
)
moments = st.datetimes(datetime(2011, 10, 25), datetime(2012, 1, 15)).map(lambda moment: moment.replace(tzinfo=UTC))


@settings(max_examples=80, deadline=None)
@given(schedules, moments, moments, st.none() | moments, st.none() | moments)
def test_the_newest_due_run_is_the_last_of_all_that_are_due(
    schedule: ScheduleSpec, start: datetime, now: datetime, end: datetime | None, after: datetime | None
) -> None:
    table = Timetable.of(schedule, start, end)
    everything: list[Interval] = []
    while (run := table.next_interval(everything[-1].logical_date if everything else None)) is not None:
        if run.logical_date > utc(2012, 2, 15):
            break
        everything.append(run)
    assert everything == table.intervals(None, len(everything))
    assert all(run.logical_date >= start for run in everything)
    assert all(end is None or run.logical_date < end for run in everything)
    due = [run for run in everything if run.run_after <= now and (after is None or run.logical_date > after)]
    assert table.latest_due(now, after) == (due[-1] if due else None)
    later = [run for run in everything if run.run_after > now][:3]
    assert table.starting_after(now, 3)[: len(later)] == later


@settings(deadline=None)
@given(schedules, moments, moments)
def test_a_run_by_hand_has_the_interval_of_its_date_or_the_newest_complete_one(
    schedule: ScheduleSpec, start: datetime, logical_date: datetime
) -> None:
    table = Timetable.of(schedule, start)
    run = table.by_hand(logical_date)
    assert run.logical_date == logical_date
    assert run.data_interval_start <= run.data_interval_end
    first = table.next_interval(None)
    assert first is not None
    assert table.by_hand(first.logical_date) == first
    newest = table.latest_due(logical_date, None)
    if newest is not None and run.run_after <= logical_date:
        assert run.data_interval_start == newest.data_interval_start


@pytest.mark.parametrize("month", range(1, 13))
def test_the_newest_due_run_of_a_minute_schedule_of_decades_is_found_at_once(month: int, calls: Calls) -> None:
    minutely = timetable(utc(2000, 1, 1), cron="* * * * *", timezone=NEW_YORK)
    now = utc(2026, month, 1, 6)
    latest = minutely.latest_due(now, None)
    assert latest is not None
    assert latest.run_after == now
    assert calls(lambda: minutely.latest_due(now, None)) < 100_000, "there are 13 million minutes"


def test_five_fire_times_take_a_few_steps(calls: Calls) -> None:
    five = calls(lambda: fire_times("30 2 * * mon-fri", NEW_YORK, utc(2026, 6, 1), 5))
    assert five < 10_000


@pytest.mark.parametrize(
    ("policy", "now", "newest"),
    [
        ({"gap": "skip"}, utc(2026, 3, 8, 12), utc(2026, 3, 7, 7, 30)),
        ({"gap": "shift"}, utc(2026, 3, 8, 12), utc(2026, 3, 8, 7, 30)),
        ({"gap": "shift"}, utc(2026, 3, 8, 7, 15), utc(2026, 3, 7, 7, 30)),
    ],
)
def test_the_newest_due_run_just_after_a_gap(policy: dict[str, str], now: datetime, newest: datetime) -> None:
    daily = timetable(utc(2026, 1, 1), cron="30 2 * * *", timezone=NEW_YORK, semantics="trigger", **policy)
    assert daily.latest_due(now, None) == Interval.exact(newest)


# What is refused.


@pytest.mark.parametrize(
    ("schedule", "sentence"),
    [
        ({"cron": "0 0 30 2 *"}, "never fires"),
        ({"cron": "61 * * * *"}, "between 0 and 59"),
        ({"cron": "@daily", "timezone": "Mars/Olympus"}, "no time zone `Mars/Olympus`"),
        ({"every": 60.0, "timezone": "Mars/Olympus"}, "no time zone `Mars/Olympus`"),
        ({"cron": "@daily", "gap": "x"}, "`gap` is"),
        ({"cron": "@daily", "fold": "x"}, "`fold` is"),
        ({"cron": "@daily", "semantics": "x"}, "`semantics` is interval or trigger"),
        ({"every": 0.5}, "between one second and ten years"),
        ({"every": float("nan")}, "between one second and ten years"),
        ({"every": 1e12}, "between one second and ten years"),
        ({}, "either `cron` or `every` or `datasets`"),
        ({"cron": ()}, "either `cron` or `every` or `datasets`"),
        ({"every": 60.0, "datasets": ("a",)}, "either `cron` or `every` or `datasets`"),
        ({"datasets": ("a",), "mode": "some"}, "`mode` is all or any"),
        ({"cron": tuple(f"{minute} 0 * * *" for minute in range(60)) * 2}, "at most 100 cron expressions"),
        ({"cron": ("@daily", "@once")}, "stands alone"),
        ({"cron": "@daily", "every": 60.0}, "either `cron` or `every`"),
    ],
)
def test_a_schedule_that_can_not_be_followed(schedule: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        check_schedule(ScheduleSpec(**schedule))
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Timetable.of(ScheduleSpec(**schedule), utc(2026, 1, 1))


def test_naive_moments_are_refused() -> None:
    daily = timetable(utc(2026, 1, 1), cron="@daily")
    naive = datetime(2026, 1, 1)
    with pytest.raises(ValueError, match="no time zone"):
        timetable(naive, cron="@daily")
    with pytest.raises(ValueError, match="no time zone"):
        daily.latest_due(naive, None)
    with pytest.raises(ValueError, match="no time zone"):
        daily.next_interval(naive)


def test_a_far_end_is_no_end() -> None:
    yearly = timetable(utc(2026, 1, 1), datetime.max.replace(tzinfo=UTC), cron="@yearly")
    assert len(yearly.intervals(None, 100)) == 100


# The preview.


def test_a_preview_row() -> None:
    schedule = ScheduleSpec(cron="@monthly", timezone=NEW_YORK)
    row, _ = preview(schedule, utc(2013, 1, 1, 5), None, None, 2)
    assert row.to_json() == {
        "logical_date": "2013-01-01T05:00:00+00:00",
        "data_interval_start": "2013-01-01T05:00:00+00:00",
        "data_interval_end": "2013-02-01T05:00:00+00:00",
        "run_after": "2013-02-01T05:00:00+00:00",
        "local": "2013-02-01T00:00:00-05:00",
        "note": None,
    }
    assert row.words == "covers 2013-01-01 00:00 to 2013-02-01 00:00 America/New_York, starts at the end"


def test_a_preview_of_moments() -> None:
    schedule = ScheduleSpec(cron="30 2 * * *", timezone=NEW_YORK, semantics="trigger")
    rows = preview(schedule, utc(2026, 3, 7), utc(2026, 3, 10), None, 9)
    assert [row.words for row in rows] == [
        "starts at 2026-03-07 02:30 America/New_York",
        "starts at 2026-03-08 03:30 America/New_York",
        "starts at 2026-03-09 02:30 America/New_York",
    ]
    every = preview(ScheduleSpec(every=90.0), utc(2026, 3, 7), None, None, 1)
    assert every[0].words == "covers 2026-03-07 00:00 to 2026-03-07 00:01:30 UTC, starts at the end"


def test_a_preview_from_a_moment_on_shows_what_starts_later() -> None:
    schedule = ScheduleSpec(cron="@daily")
    (row,) = preview(schedule, utc(2020, 1, 1), None, utc(2026, 1, 1), 1)
    assert row.interval.run_after == utc(2026, 1, 2)
    assert row.interval.logical_date == utc(2026, 1, 1)
    (row,) = preview(schedule, utc(2020, 1, 1), None, utc(2019, 1, 1), 1)
    assert row.interval.logical_date == utc(2020, 1, 1)
    assert preview(schedule, utc(2020, 1, 1), utc(2020, 1, 5), utc(2026, 1, 1), 1) == []


# Several expressions, and schedules that no time decides.


def test_several_expressions_fire_in_turn_and_once_an_instant() -> None:
    both = timetable(utc(2026, 1, 2), cron=("0 6 * * *", "0 6,18 * * 1-5", "0 6 L * *"), semantics="trigger")
    found = [run.logical_date for run in both.intervals(None, 6)]
    assert found == [
        utc(2026, 1, 2, 6),
        utc(2026, 1, 2, 18),
        utc(2026, 1, 3, 6),
        utc(2026, 1, 4, 6),
        utc(2026, 1, 5, 6),
        utc(2026, 1, 5, 18),
    ]
    covering = timetable(utc(2026, 1, 2), cron=("0 6 * * *", "0 18 * * 1-5"))
    assert covering.intervals(None, 2) == [
        Interval.between(utc(2026, 1, 2, 6), utc(2026, 1, 2, 18)),
        Interval.between(utc(2026, 1, 2, 18), utc(2026, 1, 3, 6)),
    ]


@pytest.mark.parametrize("schedule", [{"datasets": ("a",)}, {"cron": "@continuous"}])
def test_a_schedule_that_no_time_decides_has_no_runs_in_advance(schedule: dict[str, Any]) -> None:
    nothing = timetable(utc(2026, 1, 1), **schedule)
    assert nothing.intervals(None, 3) == []
    assert nothing.latest_due(utc(2030, 1, 1), None) is None
    assert nothing.by_hand(utc(2026, 1, 1, 7)) == Interval.exact(utc(2026, 1, 1, 7))


@settings(max_examples=60, deadline=None)
@given(schedules, moments, moments, st.none() | moments, st.integers(1, 6))
def test_the_newest_runs_that_are_due_are_the_last_of_all(
    schedule: ScheduleSpec, start: datetime, now: datetime, end: datetime | None, count: int
) -> None:
    table = Timetable.of(schedule, start, end)
    due = list(itertools.takewhile(lambda run: run.run_after <= now, table.intervals(None, 3000)))
    expected = due[-count].logical_date if len(due) >= count else None
    assert table.newest_due(now, count) == expected
    if expected is not None:
        assert table.at(expected) == due[-count]
        assert table.count(expected, due[-1].logical_date, 3000) == count


def test_counting_ends_early_unless_the_rhythm_is_steady() -> None:
    first, last = utc(2001, 1, 1), utc(2025, 12, 31)
    assert timetable(first, cron="* * * * *").count(first, last, 50) == 51
    assert timetable(first, every=60.0).count(first, last, 50) == (last - first) / timedelta(minutes=1) + 1
    assert timetable(first, every=60.0).count(utc(2000, 1, 1), utc(2000, 1, 2), 50) == 0


def test_a_run_that_follows_on_another_schedule() -> None:
    daily = timetable(utc(2026, 1, 1), cron="@daily")
    assert daily.continued(utc(2026, 1, 5, 4), utc(2026, 1, 5, 5)) == Interval.between(
        utc(2026, 1, 5, 5), utc(2026, 1, 6)
    )
    assert daily.continued(utc(2026, 1, 5), utc(2026, 1, 6)) == Interval.between(utc(2026, 1, 6), utc(2026, 1, 7))
    assert daily.continued(utc(2026, 1, 5), utc(2026, 1, 5)) == Interval.between(utc(2026, 1, 6), utc(2026, 1, 7))
    assert daily.continued(utc(2025, 1, 5), utc(2025, 1, 6)) == Interval.between(utc(2026, 1, 1), utc(2026, 1, 2))
    moments = timetable(utc(2026, 1, 1), cron="@daily", semantics="trigger")
    assert moments.continued(utc(2026, 1, 5), utc(2026, 1, 6)) == Interval.exact(utc(2026, 1, 7))
    over = timetable(utc(2026, 1, 1), utc(2026, 1, 4), cron="@daily")
    assert over.continued(utc(2026, 1, 5, 4), utc(2026, 1, 5, 5)) is None

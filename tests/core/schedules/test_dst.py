"""Where the clocks of a zone are moved: tables of known days, and every minute around them by brute force."""

from __future__ import annotations

import functools
import itertools
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yarrow.timetable import fire_times

MINUTE = timedelta(minutes=1)

MOVES = [
    ("America/New_York", datetime(2026, 3, 8, 7)),
    ("America/New_York", datetime(2026, 11, 1, 6)),
    ("Europe/London", datetime(2026, 3, 29, 1)),
    ("Europe/London", datetime(2026, 10, 25, 1)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15)),  # back by half an hour
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10)),  # the 30th of December did not take place
    ("America/Sao_Paulo", datetime(2018, 11, 4, 3)),  # midnight did not take place
    ("America/Sao_Paulo", datetime(2019, 2, 17, 2)),
    ("Asia/Kolkata", datetime(2026, 6, 1)),
    ("UTC", datetime(2026, 6, 1)),
]


def fires(expr: str, zone: str, after: str, count: int, **policy: str) -> list[str]:
    found = fire_times(expr, zone, datetime.fromisoformat(after), count, **policy)
    assert all(moment.tzinfo is UTC for moment in found)
    return [moment.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes") for moment in found]


NEW_YORK_SPRING = "2026-03-08T00:00-05:00"
NEW_YORK_AUTUMN = "2026-11-01T00:00-04:00"


@pytest.mark.parametrize(
    ("expr", "policy", "expected"),
    [
        ("30 2 * * *", {}, "2026-03-08T03:30-04:00 2026-03-09T02:30-04:00"),
        ("30 2 * * *", {"gap": "skip"}, "2026-03-09T02:30-04:00 2026-03-10T02:30-04:00"),
        ("0 2 * * *", {}, "2026-03-08T03:00-04:00 2026-03-09T02:00-04:00"),
        ("0 2,3 * * *", {}, "2026-03-08T03:00-04:00 2026-03-09T02:00-04:00"),
        ("0 2,3 * * *", {"gap": "skip"}, "2026-03-08T03:00-04:00 2026-03-09T02:00-04:00"),
        ("15,45 2,3 * * *", {}, "2026-03-08T03:15-04:00 2026-03-08T03:45-04:00 2026-03-09T02:15-04:00"),
        ("0 */2 * * *", {}, "2026-03-08T03:00-04:00 2026-03-08T04:00-04:00 2026-03-08T06:00-04:00"),
        ("0 * * * *", {}, "2026-03-08T01:00-05:00 2026-03-08T03:00-04:00 2026-03-08T04:00-04:00"),
        ("0 0-23 * * *", {}, "2026-03-08T01:00-05:00 2026-03-08T03:00-04:00"),
        (
            "*/30 * * * *",
            {},
            "2026-03-08T00:30-05:00 2026-03-08T01:00-05:00 2026-03-08T01:30-05:00 "
            "2026-03-08T03:00-04:00 2026-03-08T03:30-04:00",
        ),
    ],
)
def test_spring_in_new_york(expr: str, policy: dict[str, str], expected: str) -> None:
    assert fires(expr, "America/New_York", NEW_YORK_SPRING, len(expected.split()), **policy) == expected.split()


@pytest.mark.parametrize(
    ("expr", "policy", "expected"),
    [
        ("30 1 * * *", {}, "2026-11-01T01:30-05:00 2026-11-02T01:30-05:00"),
        ("30 1 * * *", {"fold": "first"}, "2026-11-01T01:30-04:00 2026-11-02T01:30-05:00"),
        ("30 1 * * *", {"fold": "both"}, "2026-11-01T01:30-04:00 2026-11-01T01:30-05:00 2026-11-02T01:30-05:00"),
        (
            "0,30 1 * * *",
            {"fold": "both"},
            "2026-11-01T01:00-04:00 2026-11-01T01:30-04:00 2026-11-01T01:00-05:00 2026-11-01T01:30-05:00",
        ),
        ("0 0-2 * * *", {}, "2026-11-01T01:00-05:00 2026-11-01T02:00-05:00 2026-11-02T00:00-05:00"),
        ("0 */2 * * *", {}, "2026-11-01T02:00-05:00 2026-11-01T04:00-05:00"),
        ("0 * * * *", {}, "2026-11-01T01:00-04:00 2026-11-01T01:00-05:00 2026-11-01T02:00-05:00"),
        ("0 * * * *", {"fold": "first"}, "2026-11-01T01:00-04:00 2026-11-01T01:00-05:00"),
        (
            "*/40 * * * *",
            {},
            "2026-11-01T00:40-04:00 2026-11-01T01:00-04:00 2026-11-01T01:40-04:00 "
            "2026-11-01T01:00-05:00 2026-11-01T01:40-05:00 2026-11-01T02:00-05:00",
        ),
    ],
)
def test_autumn_in_new_york(expr: str, policy: dict[str, str], expected: str) -> None:
    assert fires(expr, "America/New_York", NEW_YORK_AUTUMN, len(expected.split()), **policy) == expected.split()


@pytest.mark.parametrize(
    ("zone", "expr", "after", "expected"),
    [
        ("Europe/London", "30 1 * * *", "2026-03-29T00:00+00:00", "2026-03-29T02:30+01:00 2026-03-30T01:30+01:00"),
        ("Europe/London", "30 1 * * *", "2026-10-25T00:00+01:00", "2026-10-25T01:30+00:00 2026-10-26T01:30+00:00"),
        (
            "Australia/Lord_Howe",
            "45 1 * * *",
            "2026-04-05T00:00+11:00",
            "2026-04-05T01:45+10:30 2026-04-06T01:45+10:30",
        ),
        (
            "Australia/Lord_Howe",
            "15 2 * * *",
            "2026-10-04T00:00+10:30",
            "2026-10-04T02:45+11:00 2026-10-05T02:15+11:00",
        ),
        ("Australia/Lord_Howe", "0 2 * * *", "2026-10-04T00:00+10:30", "2026-10-04T02:30+11:00 2026-10-05T02:00+11:00"),
        (
            "Pacific/Apia",
            "0 0 * * *",
            "2011-12-28T12:00-10:00",
            "2011-12-29T00:00-10:00 2011-12-31T00:00+14:00 2012-01-01T00:00+14:00",
        ),
        ("Pacific/Apia", "0 12 30 12 *", "2011-12-28T12:00-10:00", "2011-12-31T12:00+14:00 2012-12-30T12:00+14:00"),
        (
            "Pacific/Apia",
            "0 */8 * * *",
            "2011-12-29T12:00-10:00",
            "2011-12-29T16:00-10:00 2011-12-31T00:00+14:00 2011-12-31T08:00+14:00",
        ),
        ("America/Sao_Paulo", "0 0 * * *", "2018-11-03T12:00-03:00", "2018-11-04T01:00-02:00 2018-11-05T00:00-02:00"),
        ("America/Sao_Paulo", "0 0,1 * * *", "2018-11-03T12:00-03:00", "2018-11-04T01:00-02:00 2018-11-05T00:00-02:00"),
        ("America/Sao_Paulo", "30 23 * * *", "2019-02-16T12:00-02:00", "2019-02-16T23:30-03:00 2019-02-17T23:30-03:00"),
        ("Asia/Kolkata", "@daily", "2026-01-01T00:00+00:00", "2026-01-02T00:00+05:30 2026-01-03T00:00+05:30"),
        ("UTC", "@hourly", "2026-01-01T00:00+00:00", "2026-01-01T01:00+00:00 2026-01-01T02:00+00:00"),
    ],
)
def test_other_zones(zone: str, expr: str, after: str, expected: str) -> None:
    assert fires(expr, zone, after, len(expected.split())) == expected.split()


@functools.cache
def minutes_around(zone: str, move: datetime) -> tuple[list[tuple[datetime, datetime, str]], datetime, datetime]:
    """Every (instant, local time, kind) of four days; found by comparing each minute with the one before.

    Kinds: plain, first and second (of a time that comes twice), gap (the local time does not exist; the instant
    is as long after the gap began as the time is into it).
    """
    info = ZoneInfo(zone)
    start = move.replace(tzinfo=UTC) - timedelta(days=2)
    instants = [start + number * MINUTE for number in range(4 * 1440)]
    table: list[tuple[datetime, datetime, str]] = []
    repeated_until, expected = datetime.min, start.astimezone(info).replace(tzinfo=None)
    for instant in instants:
        here = instant.astimezone(info).replace(tzinfo=None)
        missing = (here - expected) // MINUTE
        table += [(instant + number * MINUTE, expected + number * MINUTE, "gap") for number in range(missing)]
        if here < expected:
            repeated_until = expected
            table = [(i, time, "first" if here <= time < expected else kind) for i, time, kind in table]
        table.append((instant, here, "second" if here < repeated_until else "plain"))
        expected = here + MINUTE
    return table, start, instants[-1]


@functools.cache
def day_of(time: datetime) -> tuple[int, int, int]:
    return time.month, time.day, time.isoweekday() % 7


def oracle(zone: str, move: datetime, minutes: set[int], hours: set[int] | None, days: set[int] | None,
           weekdays: set[int] | None, gap: str, fold: str) -> list[datetime]:  # fmt: skip
    def matches(time: datetime) -> bool:
        if time.minute not in minutes or (hours is not None and time.hour not in hours):
            return False
        _, day, weekday = day_of(time)
        if days is not None and weekdays is not None:
            return day in days or weekday in weekdays
        return (days is None or day in days) and (weekdays is None or weekday in weekdays)

    accepted = {"plain"} | ({"first", "second"} if fold == "both" else {fold}) | ({"gap"} if gap == "shift" else set())
    if hours is None or len(hours) == 24:
        accepted = {"plain", "first", "second"}
    table, start, end = minutes_around(zone, move)
    found = {instant for instant, time, kind in table if kind in accepted and matches(time)}
    return sorted(instant for instant in found if start < instant <= end)


def test_the_oracle_sees_each_kind_of_minute() -> None:
    kinds = {
        (zone, kind): sum(1 for row in minutes_around(zone, move)[0] if row[2] == kind)
        for zone, move in MOVES
        for kind in ("first", "second", "gap")
        if any(row[2] == kind for row in minutes_around(zone, move)[0])
    }
    assert kinds == {
        ("America/New_York", "gap"): 60,
        ("America/New_York", "first"): 60,
        ("America/New_York", "second"): 60,
        ("Europe/London", "gap"): 60,
        ("Europe/London", "first"): 60,
        ("Europe/London", "second"): 60,
        ("Australia/Lord_Howe", "first"): 30,
        ("Australia/Lord_Howe", "second"): 30,
        ("Australia/Lord_Howe", "gap"): 30,
        ("Pacific/Apia", "gap"): 1440,
        ("America/Sao_Paulo", "gap"): 60,
        ("America/Sao_Paulo", "first"): 60,
        ("America/Sao_Paulo", "second"): 60,
    }


def subset(low: int, high: int) -> st.SearchStrategy[set[int]]:
    return st.sets(st.integers(low, high), min_size=1, max_size=6)


def column(values: set[int] | None) -> str:
    return "*" if values is None else ",".join(map(str, values))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(MOVES),
    subset(0, 59),
    st.none() | subset(0, 3) | subset(0, 23) | st.just(set(range(24))),
    st.none() | subset(1, 31),
    st.none() | subset(0, 6),
    st.sampled_from(["shift", "skip"]),
    st.sampled_from(["first", "second", "both"]),
    st.integers(0, 4 * 1440 - 1),
)
def test_every_minute_around_a_move(
    where: tuple[str, datetime],
    minutes: set[int],
    hours: set[int] | None,
    days: set[int] | None,
    weekdays: set[int] | None,
    gap: str,
    fold: str,
    offset: int,
) -> None:
    zone, move = where
    expr = f"{column(minutes)} {column(hours)} {column(days)} * {column(weekdays)}"
    if len(expr) > 100:
        expr = f"{column(minutes)} * {column(days)} * {column(weekdays)}"
        hours = None
    _, start, end = minutes_around(zone, move)
    after = start + offset * MINUTE
    expected = [moment for moment in oracle(zone, move, minutes, hours, days, weekdays, gap, fold) if moment > after]
    found = fire_times(expr, zone, after, len(expected) + 1, gap=gap, fold=fold)
    assert found[: len(expected)] == expected
    assert all(moment > end for moment in found[len(expected) :])
    assert all(earlier < later for earlier, later in itertools.pairwise(found))


@settings(deadline=None)
@given(st.sampled_from(MOVES), st.sampled_from(["*/7 * * * *", "0,30 0-3 * * *", "15 2 * * *"]), st.integers(0, 5000))
def test_asking_one_by_one_gives_the_same_times(where: tuple[str, datetime], expr: str, offset: int) -> None:
    zone, move = where
    after = move.replace(tzinfo=UTC) - timedelta(days=2) + offset * MINUTE
    at_once = fire_times(expr, zone, after, 12, fold="both")
    one_by_one = []
    moment = after
    for _ in range(12):
        (moment,) = fire_times(expr, zone, moment, 1, fold="both")
        one_by_one.append(moment)
    assert one_by_one == at_once


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"timezone": "Europe/Lundon"}, "Did you mean `Europe/London`?"),
        ({"timezone": "utc"}, "Did you mean `UTC`?"),
        ({"timezone": "Europe"}, "There is no time zone `Europe`."),
        ({"timezone": "../../etc/passwd"}, "There is no time zone"),
        ({"timezone": ""}, "There is no time zone"),
        ({"timezone": "localtime"}, "There is no time zone"),
        ({"gap": "forward"}, "`gap` is shift or skip"),
        ({"fold": "third"}, "`fold` is first, second or both"),
        ({"after": datetime(2026, 1, 1)}, "has no time zone"),
        ({"count": -1}, "can't be negative"),
        ({"expr": "0 0 30 2 *"}, "never fires"),
    ],
)
def test_what_is_refused(changes: dict[str, object], sentence: str) -> None:
    arguments = {"expr": "@daily", "timezone": "UTC", "after": datetime(2026, 1, 1, tzinfo=UTC), "count": 1} | changes
    with pytest.raises(ValueError, match=re.escape(sentence)):
        fire_times(**arguments)  # type: ignore[arg-type]  # the arguments vary


def test_the_ends_of_the_calendar() -> None:
    assert fire_times("@yearly", "America/New_York", datetime(9999, 12, 31, tzinfo=UTC), 3) == []
    assert len(fire_times("@yearly", "Asia/Tokyo", datetime(9987, 6, 1, tzinfo=UTC), 5)) == 2
    assert fire_times("@yearly", "UTC", datetime(1, 1, 1, tzinfo=UTC), 1) == [datetime(1801, 1, 1, tzinfo=UTC)]

"""The strict reading of cron expressions, and the walk through local times, against brute force."""

from __future__ import annotations

import itertools
import random
import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from croniter import CroniterError, croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from yarrow.schedules.cron import parse_cron

LIMITS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
MONTHS = ["JAN", "Feb", "mar", "APR", "may", "jun", "JUL", "aug", "sep", "oct", "nov", "Dec"]
LAST_DAY = "last"
WEEKDAYS = ["SUN", "Mon", "tue", "WED", "thu", "fri", "Sat"]


@st.composite
def fields(draw: st.DrawFn, index: int) -> tuple[str, set[Any] | None]:
    """A field as text with the set of values that it stands for; None for `*`. Made without the parser."""
    low, high = LIMITS[index]
    if draw(st.booleans()):
        return "*", None
    texts, values = [], set()
    for _ in range(draw(st.integers(1, 3))):
        text, some = draw(items(index, low, high))
        texts.append(text)
        values |= some
    return ",".join(texts), values


@st.composite
def items(draw: st.DrawFn, index: int, low: int, high: int) -> tuple[str, set[Any]]:
    everything = list(range(low, high + 1))

    def spell(value: int) -> str:
        if index == 3 and draw(st.booleans()):
            return MONTHS[value - 1]
        if index == 4 and draw(st.booleans()):
            return WEEKDAYS[value]
        return draw(st.sampled_from([str(value), f"{value:02}"]))

    first = draw(st.sampled_from(everything))
    last = draw(st.sampled_from(everything))
    step = draw(st.integers(1, len(everything)))
    ring = everything[everything.index(first) :] + everything[: everything.index(first)]
    span = ring[: ring.index(last) + 1]
    marks = {2: ["last day"], 4: ["last", "nth"]}.get(index, [])
    kind = draw(st.sampled_from(["value", "range", "range/step", "*/step", "value/step", *marks]))
    if kind == "last day":
        return draw(st.sampled_from(["L", "l"])), {LAST_DAY}
    if kind == "last":
        return f"{spell(first)}L", {(first, -1)}
    if kind == "nth":
        number = draw(st.integers(1, 5))
        return f"{spell(first)}#{number}", {(first, number)}
    if kind == "value":
        return spell(first), {first}
    if kind == "range":
        return f"{spell(first)}-{spell(last)}", set(span)
    if kind == "range/step":
        return f"{spell(first)}-{spell(last)}/{step}", set(span[::step])
    if kind == "*/step":
        return f"*/{step}", set(everything[::step])
    return f"{spell(first)}/{step}", set(range(first, high + 1, step))


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, list[set[Any] | None]]:
    drawn = [draw(fields(index)) for index in range(5)]
    return " ".join(text for text, _ in drawn), [values for _, values in drawn]


def day_matches(day: datetime, values: list[set[Any] | None]) -> bool:
    _, _, days, months, weekdays = values
    if months is not None and day.month not in months:
        return False
    weekday = day.isoweekday() % 7
    a_week_later, tomorrow = day + timedelta(days=7), day + timedelta(days=1)
    names_of_day = {day.day} | ({LAST_DAY} if tomorrow.month != day.month else set())
    number = sum((day - timedelta(days=7 * weeks)).month == day.month for weeks in range(5))
    names_of_weekday = {weekday, (weekday, number)} | ({(weekday, -1)} if a_week_later.month != day.month else set())
    if days is not None and weekdays is not None:
        return bool(names_of_day & days or names_of_weekday & weekdays)
    return (days is None or bool(names_of_day & days)) and (weekdays is None or bool(names_of_weekday & weekdays))


def never_fires(values: list[set[Any] | None]) -> bool:
    """Whether no day of the 28 years in which leap years and weekdays come round fits."""
    return not any(day_matches(datetime(2004, 1, 1) + timedelta(days=day), values) for day in range(28 * 366))


def brute_force(values: list[set[Any] | None], first: datetime, last: datetime) -> list[datetime]:
    """Every matching minute in [first, last], found by looking at every day, hour and minute."""
    hours = sorted(values[1]) if values[1] is not None else range(24)
    minutes = sorted(values[0]) if values[0] is not None else range(60)
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [midnight + timedelta(days=number) for number in range((last - midnight).days + 1)]
    matching = [day for day in days if day_matches(day, values)]
    if len(hours) * len(minutes) > 20:  # enough of them: both ends of the time are what the tests look at
        matching = matching[:4] + matching[-4:]
    moments = {day.replace(hour=hour, minute=minute) for day in matching for hour in hours for minute in minutes}
    return sorted(moment for moment in moments if first <= moment <= last)


starts = st.datetimes(datetime(1999, 1, 1), datetime(2030, 1, 1))


@settings(deadline=None)
@given(expressions(), starts)
def test_forward_is_brute_force(expression: tuple[str, list[set[Any] | None]], start: datetime) -> None:
    text, values = expression
    if len(text) > 100:
        return
    end = start + timedelta(days=400)
    expected = brute_force(values, start + timedelta(microseconds=1), end)[:50]
    if never_fires(values):
        with pytest.raises(ValueError, match="never fires"):
            parse_cron(text)
        return
    cron = parse_cron(text)
    walked = itertools.takewhile(lambda moment: moment <= end, cron.forward(start))
    assert list(itertools.islice(walked, 50)) == expected


@settings(deadline=None)
@given(expressions(), starts)
def test_back_is_brute_force(expression: tuple[str, list[set[Any] | None]], end: datetime) -> None:
    text, values = expression
    if len(text) > 100:
        return
    try:
        cron = parse_cron(text)
    except ValueError:
        return
    start = end - timedelta(days=400)
    expected = brute_force(values, start, end)[::-1][:20]
    walked = itertools.takewhile(lambda moment: moment >= start, cron.back(end))
    assert list(itertools.islice(walked, 20)) == expected


def test_a_whole_leap_cycle_in_both_directions() -> None:
    cron = parse_cron("0 0 29 2 *")
    years = [moment.year for moment in itertools.islice(cron.forward(datetime(2090, 1, 1)), 4)]
    assert years == [2092, 2096, 2104, 2108]
    assert [moment.year for moment in itertools.islice(cron.back(datetime(2108, 2, 29)), 4)] == [2108, 2104, 2096, 2092]


@settings(deadline=None)
@given(expressions(), starts)
def test_what_it_names_is_brute_force(expression: tuple[str, list[set[Any] | None]], start: datetime) -> None:
    text, values = expression
    try:
        cron = parse_cron(text)
    except ValueError:
        return
    again = parse_cron(cron.canonical) if len(cron.canonical) <= 100 else cron
    assert again == cron
    for hours in range(0, 100, 7):
        moment = (start + timedelta(hours=hours)).replace(second=0, microsecond=0)
        minutes, hours_of_day = values[0], values[1]
        time_fits = (minutes is None or moment.minute in minutes) and (
            hours_of_day is None or moment.hour in hours_of_day
        )
        assert cron.names(moment) == (time_fits and day_matches(moment, values))


@pytest.mark.parametrize(
    ("expr", "days"),
    [
        ("0 0 L * *", "2024-01-31 2024-02-29 2024-03-31 2024-04-30"),
        ("0 0 L 2 *", "2024-02-29 2025-02-28 2026-02-28"),
        ("0 0 * * 5L", "2024-01-26 2024-02-23 2024-03-29"),
        ("0 0 * * 5#3", "2024-01-19 2024-02-16 2024-03-15"),
        ("0 0 * * fri#5", "2024-03-29 2024-05-31 2024-08-30"),
        ("0 0 * 2 thu#5", "2024-02-29 2052-02-29 2080-02-29 2120-02-29"),  # 2100 has no leap day
        ("0 0 1 * 5#3", "2024-01-19 2024-02-01 2024-02-16 2024-03-01"),  # croniter finds no date here
        ("0 0 * * 1,5#3", "2024-01-08 2024-01-15 2024-01-19 2024-01-22"),  # and does not read this one
        ("0 0 L,15 * sunL,7#1", "2024-01-07 2024-01-15 2024-01-28 2024-01-31"),
        ("0 0 31 2 0L", "2024-02-25 2025-02-23"),
    ],
)
def test_the_last_and_the_nth(expr: str, days: str) -> None:
    expected = [datetime.fromisoformat(day) for day in days.split()]
    cron = parse_cron(expr)
    assert list(itertools.islice(cron.forward(datetime(2024, 1, 1, 12)), len(expected))) == expected
    back = itertools.takewhile(lambda moment: moment > datetime(2024, 1, 1, 12), cron.back(expected[-1]))
    assert list(back) == expected[::-1]


@settings(deadline=None, max_examples=60)
@given(expressions(), starts)
def test_croniter_says_the_same_where_it_understands(
    expression: tuple[str, list[set[Any] | None]], start: datetime
) -> None:
    try:
        cron = parse_cron(expression[0])
    except ValueError:
        return
    text = re.sub(r"([0-6])L", r"L\1", cron.canonical)
    day_of_month, day_of_week = text.split()[2], text.split()[4]
    marked = "#" in day_of_week or "L" in day_of_week
    if marked and (day_of_month != "*" or set(day_of_week.split(",")) & set("0123456")):
        return  # either day is enough, which it does not know of such weekdays
    walk = croniter(text, start)
    try:
        expected = [walk.get_next(datetime) for _ in range(5)]
    except CroniterError:
        return
    assert list(itertools.islice(cron.forward(start), 5)) == expected


@settings(deadline=None, max_examples=40)
@given(expressions(), starts)
def test_the_walk_by_days_agrees_with_the_other_one(
    expression: tuple[str, list[set[Any] | None]], start: datetime
) -> None:
    try:
        cron = parse_cron(expression[0])
    except ValueError:
        return
    assert list(itertools.islice(cron.forward(start), 5)) == list(itertools.islice(cron._days_forward(start), 5))
    assert list(itertools.islice(cron.back(start), 5)) == list(itertools.islice(cron._days_back(start), 5))


@pytest.mark.parametrize("day", [29, 30, 31])
def test_the_last_days_of_short_months(day: int) -> None:
    values: list[set[Any] | None] = [{0}, {0}, {day}, None, None]
    cron = parse_cron(f"0 0 {day} * *")
    expected = brute_force(values, datetime(2019, 1, 1), datetime(2026, 1, 1))
    assert list(itertools.takewhile(lambda m: m.year < 2026, cron.forward(datetime(2018, 12, 31)))) == expected
    assert list(itertools.islice(cron.back(datetime(2025, 12, 31, 12)), len(expected))) == expected[::-1]


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("0-0 * * * *", "0 * * * *"),
        ("5-5/2 * * * *", "5 * * * *"),
        ("59/15 * * * *", "59 * * * *"),
        ("0 0 15-15 * *", "0 0 15 * *"),
        ("0 0 * jan-jan *", "0 0 * 1 *"),
        ("0 0 * * sun-sun", "0 0 * * 0"),
        ("0 0 * * 7", "0 0 * * 0"),
        ("0 0 * * 7-7", "0 0 * * 0"),
        ("0 0 * * 5-7", "0 0 * * 0,5,6"),
        ("0 0 * * 7-2", "0 0 * * 0,1,2"),
        ("0 0 * * 0-7", "0 0 * * *"),
        ("0 0 * * mon-SUN", "0 0 * * *"),
        ("0 0 * * Fri-Mon", "0 0 * * 0,1,5,6"),
        ("0 22-2 * * *", "0 0,1,2,22,23 * * *"),
        ("0 0 1 nov-feb *", "0 0 1 1,2,11,12 *"),
        ("0 0 1-31 * 1", "0 0 * * *"),  # both kinds of day are restricted: either is enough
        ("0 0 31 2 1", "0 0 * 2 1"),
        ("  0\t0  * * * \n", "0 0 * * *"),
        ("@Daily", "0 0 * * *"),
        ("@quarterly", "0 0 1 1,4,7,10 *"),
        ("@weekly", "0 0 * * 0"),
        ("@annually", "0 0 1 1 *"),
        ("0 0 l,31,1 * *", "0 0 1,31,L * *"),
        ("0 0 *,L * *", "0 0 * * *"),
        ("0 0 * * 7L,MON#1,mon#1,3", "0 0 * * 3,0L,1#1"),
        ("0 0 1-31 * 5#3", "0 0 * * *"),
        ("0 0 L * 0-6", "0 0 * * *"),
    ],
)
def test_spellings(text: str, same: str) -> None:
    assert parse_cron(text).canonical == same


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has none"),
        ("* * * *", "five fields"),
        ("* * * * * *", "Seconds and years are not supported"),
        ("0 0 1 1 * 0 2026", "Seconds and years are not supported"),
        ("0 0 30 2 *", "never fires"),
        ("0 0 31 2,4,6,9,11 *", "never fires"),
        ("R * * * *", "random"),
        ("r(1-5) * * * *", "random"),
        ("H H * * *", "hashed"),
        ("h(0-29)/10 * * * *", "hashed"),
        ("0 0 ? * *", "write `*`"),
        ("0 0 L-3 * *", "stands alone"),
        ("0 0 * * L5", "is `5L`"),
        ("0 0 * * 5#6", "followed by 1 to 5"),
        ("0 0 * * 5#0", "followed by 1 to 5"),
        ("0 0 * * L", "is `5L`"),
        ("0 0 * * 8L", "between 0 and 7"),
        ("0 0 * * 1-5#2", "third is `5#3`"),
        ("0 0 5L * *", "stands alone"),
        ("L * * * *", "belong to the days"),
        ("0 0 LW * *", "can't be read"),
        ("@continuous", "as soon as the one before has ended"),
        ("0 0 15W * *", "nearest weekday"),
        ("60 * * * *", "between 0 and 59"),
        ("* 24 * * *", "between 0 and 23"),
        ("0 0 0 * *", "between 1 and 31"),
        ("0 0 * 13 *", "between 1 and 12"),
        ("0 0 * * 8", "between 0 and 7"),
        ("*/0 * * * *", "between 1 and 60"),
        ("*/90 * * * *", "every: 90m"),
        ("1,,2 * * * *", "empty item"),
        ("1-2-3 * * * *", "can't be read"),
        ("*-5 * * * *", "can't be read"),
        ("-1 * * * *", "can't be read"),
        ("jan * * * *", "can't be read in the minute field"),
        ("0 0 * mon *", "can't be read in the month field"),
        ("\u0661 * * * *", "can't be read"),
        ("0\u00a00 * * *", "five fields"),
        ("@reboot", "no preset"),
        ("@once", "one run"),
        ("0 " * 60, "at most 100 characters"),
        ("9" * 80 + " * * * *", "between 0 and 59"),
    ],
)
def test_what_is_refused_and_how(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        parse_cron(text)


def test_no_text_raises_anything_but_value_error() -> None:
    alphabet = "0123456789*/-,@#?LWHRabdefmnorsun \t()"
    source = random.Random(7)
    for _ in range(5000):
        text = "".join(source.choices(alphabet, k=source.randint(0, 20)))
        try:
            cron = parse_cron(text)
        except ValueError:
            continue
        assert next(cron.forward(datetime(2026, 1, 1))) > datetime(2026, 1, 1)

"""The strict reading of cron expressions, and the walk through local times, against brute force."""

from __future__ import annotations

import itertools
import random
import re
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yarrow.cron import parse_cron

LIMITS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
MONTHS = ["JAN", "Feb", "mar", "APR", "may", "jun", "JUL", "aug", "sep", "oct", "nov", "Dec"]
WEEKDAYS = ["SUN", "Mon", "tue", "WED", "thu", "fri", "Sat"]


@st.composite
def fields(draw: st.DrawFn, index: int) -> tuple[str, set[int] | None]:
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
def items(draw: st.DrawFn, index: int, low: int, high: int) -> tuple[str, set[int]]:
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
    kind = draw(st.sampled_from(["value", "range", "range/step", "*/step", "value/step"]))
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
def expressions(draw: st.DrawFn) -> tuple[str, list[set[int] | None]]:
    drawn = [draw(fields(index)) for index in range(5)]
    return " ".join(text for text, _ in drawn), [values for _, values in drawn]


def day_matches(day: datetime, values: list[set[int] | None]) -> bool:
    _, _, days, months, weekdays = values
    if months is not None and day.month not in months:
        return False
    weekday = day.isoweekday() % 7
    if days is not None and weekdays is not None:
        return day.day in days or weekday in weekdays
    return (days is None or day.day in days) and (weekdays is None or weekday in weekdays)


def brute_force(values: list[set[int] | None], first: datetime, last: datetime) -> list[datetime]:
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
def test_forward_is_brute_force(expression: tuple[str, list[set[int] | None]], start: datetime) -> None:
    text, values = expression
    if len(text) > 100:
        return
    end = start + timedelta(days=400)
    expected = brute_force(values, start + timedelta(microseconds=1), end)[:50]
    if not any(day_matches(datetime(2024, 1, 1) + timedelta(days=day), values) for day in range(366)):  # a leap year
        with pytest.raises(ValueError, match="never fires"):
            parse_cron(text)
        return
    cron = parse_cron(text)
    walked = itertools.takewhile(lambda moment: moment <= end, cron.forward(start))
    assert list(itertools.islice(walked, 50)) == expected


@settings(deadline=None)
@given(expressions(), starts)
def test_back_is_brute_force(expression: tuple[str, list[set[int] | None]], end: datetime) -> None:
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


@pytest.mark.parametrize("day", [29, 30, 31])
def test_the_last_days_of_short_months(day: int) -> None:
    values: list[set[int] | None] = [{0}, {0}, {day}, None, None]
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

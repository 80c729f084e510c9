"""What a schedule means, in words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from yarrow.language.spec import ScheduleSpec
from yarrow.schedules.words import describe_schedule, schedule_text

COVERS = "; UTC; each run covers the time up to the next one, and starts when that has passed."


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("* * * * *", "Every minute"),
        ("*/15 * * * *", "Every 15 minutes"),
        ("0 * * * *", "Every hour"),
        ("30 * * * *", "At 30 minutes past every hour"),
        ("1 * * * *", "At 1 minute past every hour"),
        ("5,10 * * * *", "At 5 and 10 minutes past every hour"),
        ("0 6 * * *", "At 06:00 every day"),
        ("0,30 6,18 * * *", "At 06:00, 06:30, 18:00 and 18:30 every day"),
        ("0 */2 * * *", "Every 2 hours from 00:00 on"),
        ("0 9-17 * * 1-5", "Every hour from 09:00 to 17:00 on Mondays to Fridays"),
        ("*/10 8-11 * * 0,6", "Every 10 minutes from 08:00 to 11:50 on Saturdays and Sundays"),
        ("5,35 1-4,6 * * *", "At 5 and 35 minutes past the hours 01, 02, 03, 04 and 06 every day"),
        ("*/20 3,9,12 * * *", "Every 20 minutes in the hours 03, 09 and 12"),
        ("@monthly", "At 00:00 on day 1 of the month"),
        ("@quarterly", "At 00:00 on day 1 of the month in January, April, July and October"),
        (
            "0 0 1-7,20 11-2 *",
            "At 00:00 on days 1 to 7 and 20 of the month in January, February, November and December",
        ),
        ("0 0 L * *", "At 00:00 on the last day of the month"),
        ("0 0 15,L * *", "At 00:00 on day 15 and the last day of the month"),
        ("0 0 * * 5L,1#1", "At 00:00 on the first Monday and the last Friday of the month"),
        ("0 0 * * 3,5#3", "At 00:00 on Wednesdays and the third Friday of the month"),
        ("0 0 13 * 5", "At 00:00 on day 13 of the month and also on Fridays (either is enough)"),
        ("0 0 1-31 * 5", "At 00:00 every day"),
        ("* * * * 1", "Every minute on Mondays"),
    ],
)
def test_crons(cron: str, words: str) -> None:
    assert describe_schedule(ScheduleSpec(cron=cron)) == words + COVERS


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"cron": "0 6 * * *", "timezone": "America/Argentina/Buenos_Aires"}, "At 06:00 every day; Buenos Aires time;"),
        ({"cron": "0 6 * * *", "timezone": "Etc/GMT+5"}, "At 06:00 every day; Etc/GMT+5;"),
        (
            {"cron": "0 6 * * *", "semantics": "trigger"},
            "At 06:00 every day; UTC; each run starts at that moment and covers no time.",
        ),
        (
            {"cron": "0 6 * * *", "gap": "skip", "fold": "both"},
            "At 06:00 every day; UTC; a time that the clocks skip is left out; a time that comes twice counts both",
        ),
        ({"cron": ("0 6 * * *", "0 6 * * *", "0 7 L * *")}, "At 06:00 every day, or at 07:00 on the last day of the"),
        ({"every": 86400.0}, "Every day from the start date on"),
        ({"every": 5400.0}, "Every 90 minutes from the start date on"),
        ({"every": 1.5}, "Every 1.5 seconds from the start date on"),
        ({"cron": "@Once"}, "Once, at the start date"),
        ({"cron": "@continuous"}, "As soon as the run before has ended"),
    ],
)
def test_other_schedules(schedule: dict[str, Any], words: str) -> None:
    assert describe_schedule(ScheduleSpec(**schedule)).startswith(words)


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (None, None),
        (ScheduleSpec(cron="@daily"), "@daily"),
        (ScheduleSpec(cron=("0 6 * * 1", "0 7 * * 2")), "0 6 * * 1, 0 7 * * 2"),
        (ScheduleSpec(every=5400.0), "every 90m"),
        (ScheduleSpec(datasets=("a",)), "dataset a"),
        (ScheduleSpec(datasets=("a", "b")), "all of a, b"),
        (ScheduleSpec(datasets=("a", "b"), mode="any"), "any of a, b"),
    ],
)
def test_the_short_text(schedule: ScheduleSpec | None, text: str | None) -> None:
    assert schedule_text(schedule) == text


def test_the_short_text_fits_its_column() -> None:
    text = schedule_text(ScheduleSpec(datasets=tuple(f"dataset_{number}" for number in range(100))))
    assert text is not None
    assert len(text) == 250
    assert text.endswith("…")


def column(low: int, high: int) -> st.SearchStrategy[str]:
    values = st.sets(st.integers(low, high), min_size=1, max_size=8).map(
        lambda found: ",".join(map(str, sorted(found)))
    )
    return st.one_of(st.just("*"), values, st.integers(1, high - low).map(lambda step: f"*/{step}"))


@given(column(0, 59), column(0, 23), column(1, 28), column(1, 12), column(0, 6))
def test_every_expression_has_words(minute: str, hour: str, day: str, month: str, weekday: str) -> None:
    expr = f"{minute} {hour} {day} {month} {weekday}"
    words = describe_schedule(ScheduleSpec(cron=expr))
    assert words.endswith(COVERS)
    assert "  " not in words
    assert words[0].isupper()

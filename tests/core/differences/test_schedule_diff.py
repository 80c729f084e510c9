"""What differs about the coming runs of two versions of a DAG."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from yarrow.differences.dag_diff import DagDiff
from yarrow.differences.schedule_diff import ScheduleDiff
from yarrow.differences.words import summary
from yarrow.schedules.upcoming import Progress

Compare = Callable[..., DagDiff]


def dag(schedule: str, more: str = "") -> str:
    return f"schedule: {schedule}\n{more}tasks: {{a: {{operator: empty}}}}\n"


def moved(compare: Compare, old: str, new: str, **more: Progress) -> ScheduleDiff:
    found = compare(old, new, **more).schedule
    assert found is not None
    return found


def kinds(schedule: ScheduleDiff) -> list[tuple[str, str]]:
    return [(f"{fire.run_after:%d %H:%M}", fire.kind) for fire in schedule.fires]


def test_moments_that_go_come_and_stay(compare: Compare) -> None:
    schedule = moved(compare, dag('"0 */12 * * *"'), dag('"0 6,12 * * *"'))
    assert kinds(schedule) == [
        ("03 00:00", "removed"),
        ("03 06:00", "added"),
        ("03 12:00", "changed"),
        ("04 00:00", "removed"),
        ("04 06:00", "added"),
        ("04 12:00", "changed"),
        ("05 00:00", "removed"),
        ("05 06:00", "added"),
    ]
    noon = schedule.fires[2]
    assert noon.old is not None
    assert noon.new is not None
    assert (noon.old.data_interval_start.hour, noon.new.data_interval_start.hour) == (0, 6)
    assert schedule.old_words.startswith("At 00:00 and 12:00 every day")


def test_a_moment_that_both_have_is_no_change_though_it_is_not_among_the_next_five(compare: Compare) -> None:
    schedule = moved(compare, dag('{cron: "@hourly", semantics: trigger}'), dag('{cron: "@daily", semantics: trigger}'))
    assert kinds(schedule)[:6] == [*((f"02 {hour}:00", "removed") for hour in range(13, 18)), ("03 00:00", "same")]
    assert [kind for _, kind in kinds(schedule)[5:]] == ["same"] * 5


def test_intervals_that_change_their_width(compare: Compare) -> None:
    schedule = moved(compare, dag('"@daily"'), dag('{cron: "@daily", semantics: trigger}'))
    assert {fire.kind for fire in schedule.fires} == {"changed"}
    assert {fire.new.data_interval_start == fire.run_after for fire in schedule.fires if fire.new} == {True}


def test_no_more_runs(compare: Compare) -> None:
    schedule = moved(compare, dag('"@daily"'), dag("null"))
    assert kinds(schedule) == [(f"0{day} 00:00", "removed") for day in range(3, 8)]
    assert schedule.new_words == "Only by hand: there is no schedule."


@pytest.mark.parametrize("schedule", ["{datasets: [a]}", '"@continuous"', '"@once"'])
def test_what_no_time_decides_has_no_moments(compare: Compare, schedule: str) -> None:
    found = moved(compare, dag("null"), dag(schedule, "max_active_runs: 1\n"))
    assert found.fires == ()
    assert not found.moved


def test_an_end_that_comes_earlier(compare: Compare) -> None:
    old, new = dag('"@daily"'), dag('"@daily"', "end_date: 2026-08-04\n")
    found = compare(old, new)
    assert found.schedule is not None
    assert kinds(found.schedule) == [
        ("03 00:00", "same"),
        ("04 00:00", "same"),
        *((f"0{day} 00:00", "removed") for day in (5, 6, 7)),
    ]
    assert summary(found) == "schedule moved"


def test_what_moves_nothing(compare: Compare) -> None:
    diff = compare(dag('"@daily"'), dag('"@daily"', "catchup: true\nstart_date: 2026-01-01\n"))
    assert diff.schedule is not None
    assert not diff.schedule.moved
    assert summary(diff) == "start_date, catchup changed"


def test_the_zone_is_told_once(compare: Compare) -> None:
    schedule = moved(compare, dag('"@daily"'), dag('"@daily"', "timezone: Europe/Zurich\n"))
    assert [change.path for change in schedule.changes] == ["timezone"]
    assert {kind for _, kind in kinds(schedule)} == {"added", "removed"}


JANUARY = datetime(2026, 1, 1, tzinfo=UTC)


def test_what_it_does_to_the_next_run(compare: Compare, now: datetime) -> None:
    progress = Progress(JANUARY, datetime(2026, 8, 1, tzinfo=UTC), datetime(2026, 8, 2, tzinfo=UTC))
    schedule = moved(compare, dag('"@daily"'), dag('"0 6 * * *"'), progress=progress)
    assert schedule.consequences == (
        "The schedule was `@daily` (UTC) and is `0 6 * * *` (UTC). The runs so far cover the time up to "
        "2026-08-02T00:00:00Z; the next one covers 2026-08-02T00:00:00Z to 2026-08-02T06:00:00Z, a shorter time than "
        "the others.",
    )


def test_catchup_makes_up_for_what_was_missed(compare: Compare) -> None:
    progress = Progress(JANUARY, datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 7, 2, tzinfo=UTC))
    caught_up = dag('"@daily"', "catchup: true\nstart_date: 2026-01-01\n")
    schedule = moved(compare, dag('"@daily"'), caught_up, progress=progress)
    assert schedule.consequences == (
        "`catchup` makes up for what was missed: 31 runs are due at once, of the logical dates 2026-07-02T00:00:00Z to "
        "2026-08-01T00:00:00Z.",
    )
    limited = dag('"@daily"', "catchup: true\nmax_catchup_runs: 3\nstart_date: 2026-01-01\n")
    (sentence,) = moved(compare, dag('"@daily"'), limited, progress=progress).consequences
    assert sentence.startswith(
        "`catchup` makes up for what was missed: 3 runs are due at once, of the logical dates 2026-07-30T00:00:00Z to "
        "2026-08-01T00:00:00Z. 28 missed runs are left out"
    )


def test_catchup_that_is_no_news_is_not_told(compare: Compare) -> None:
    progress = Progress(JANUARY, datetime(2026, 7, 1, tzinfo=UTC), datetime(2026, 7, 2, tzinfo=UTC))
    old, new = (dag('"@daily"', f"catchup: true\nstart_date: 2026-01-0{day}\n") for day in (1, 2))
    assert moved(compare, old, new, progress=progress).consequences == ()


def test_a_schedule_that_is_over(compare: Compare) -> None:
    old, new = (dag(f'"@{word}"', "end_date: 2026-01-01\n") for word in ("daily", "weekly"))
    schedule = moved(compare, old, new)
    assert schedule.fires == ()
    assert schedule.consequences == ("No run starts after 2026-08-02T12:00:00Z in either version.",)

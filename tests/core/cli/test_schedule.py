"""`yarrow schedule next`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from yarrow.clock import utc_now

Yarrow = Callable[..., Any]

MONTHS = ("schedule", "next", "--cron", "@monthly", "--timezone", "America/New_York", "--start", "2013-01-01")


def test_rows(yarrow: Yarrow) -> None:
    rows = yarrow(*MONTHS, "--count", "3", "--json").json()
    assert rows[2] == {
        "logical_date": "2013-03-01T05:00:00+00:00",
        "data_interval_start": "2013-03-01T05:00:00+00:00",
        "data_interval_end": "2013-04-01T04:00:00+00:00",
        "run_after": "2013-04-01T04:00:00+00:00",
        "local": "2013-04-01T00:00:00-04:00",
        "note": None,
    }
    assert len(rows) == 3


def test_table(yarrow: Yarrow) -> None:
    lines = yarrow(*MONTHS, "--count", "1").stdout.splitlines()
    assert lines[0].startswith("At 00:00 on day 1 of the month; New York time; each run covers the time up to the next")
    assert lines[2].split("  ")[0] == "LOGICAL DATE (UTC)"
    assert lines[3].endswith("2013-02-01 05:00:00  2013-02-01 00:00:00-05:00")


def test_several_crons(yarrow: Yarrow) -> None:
    both = ("schedule", "next", "--cron", "0 6 * * 1-5", "--cron", "0 10 * * 6", "--start", "2026-01-01")
    answer = yarrow(*both, "--timezone", "America/New_York", "--after", "2026-01-01T12:00")
    assert answer.stdout.splitlines()[0] == (
        "At 06:00 on Mondays to Fridays, or at 10:00 on Saturdays; New York time; each run covers the time up to the "
        "next one, and starts when that has passed."
    )
    rows = yarrow(*both, "--semantics", "trigger", "--count", "4", "--json").json()
    assert [row["local"][:16] for row in rows] == [
        *("2026-01-01T06:00", "2026-01-02T06:00", "2026-01-03T10:00", "2026-01-05T06:00")
    ]


def test_a_fixed_distance(yarrow: Yarrow) -> None:
    every = ("schedule", "next", "--every", "90m", "--start", "2026-01-01", "--count", "2")
    assert [row["logical_date"][11:16] for row in yarrow(*every, "--json").json()] == ["00:00", "01:30"]
    assert yarrow(*every).stdout.startswith("Every 90 minutes from the start date on, whatever the clocks do; ")


SPRING = ("schedule", "next", "--cron", "30 2 * * *", "--timezone", "America/New_York", "--start", "2026-03-07")
AUTUMN = ("schedule", "next", "--cron", "30 1 * * *", "--timezone", "America/New_York", "--start", "2026-10-31")


@pytest.mark.parametrize(
    ("arguments", "notes"),
    [
        (SPRING, ["clocks go forward: 02:30 does not exist, runs at 03:30", None]),
        ((*SPRING, "--gap", "skip"), ["clocks go forward: 02:30 on 2026-03-08 does not exist and is left out", None]),
        (AUTUMN, ["clocks go back: 01:30 comes twice, this is the second; the other does not count", None]),
        (
            (*AUTUMN, "--fold", "first"),
            ["clocks go back: 01:30 comes twice, this is the first; the other does not count", None],
        ),
        (
            (*AUTUMN, "--fold", "both"),
            [
                "clocks go back: 01:30 comes twice, this is the first; both count",
                "clocks go back: 01:30 comes twice, this is the second; both count",
            ],
        ),
    ],
)
def test_a_row_near_a_change_of_the_clocks_says_so(
    yarrow: Yarrow, arguments: tuple[str, ...], notes: list[str | None]
) -> None:
    rows = yarrow(*arguments, "--count", "2", "--json").json()
    assert [row["note"] for row in rows] == notes
    lines = yarrow(*arguments, "--count", "2").stdout.splitlines()
    assert lines[2].endswith("NOTE")
    assert lines[3].endswith(notes[0] or "")


def test_every_hour_that_passes_counts(yarrow: Yarrow) -> None:
    hourly = ("schedule", "next", "--cron", "@hourly", "--timezone", "America/New_York", "--semantics", "trigger")
    rows = yarrow(*hourly, "--start", "2026-11-01T00:00", "--count", "4", "--json").json()
    assert [row["local"][11:19] + row["local"][19:] for row in rows] == [
        *("00:00:00-04:00", "01:00:00-04:00", "01:00:00-05:00", "02:00:00-05:00")
    ]
    assert [bool(row["note"]) for row in rows] == [False, True, True, False]


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("{datasets: [a, b]}", "When each of `a` and `b` has been published since the run before; each run is for all"),
        ("{datasets: [a, b], mode: any}", "When `a` or `b` has been published since the run before"),
        ("{datasets: [a]}", "When `a` has been published since the run before"),
        ("'@continuous'", "As soon as the run before has ended; each run covers the time since"),
        ("null", "Only by hand: there is no schedule."),
    ],
)
def test_what_no_time_decides_is_said_in_words(yarrow: Yarrow, tmp_path: Path, schedule: str, words: str) -> None:
    file = tmp_path / "d.yaml"
    file.write_text(f"schedule: {schedule}\ntasks: {{a: {{operator: empty}}}}\n")
    answer = yarrow("schedule", "next", file)
    assert answer.exit_code == 0
    assert answer.stdout.startswith(words)
    assert len(answer.stdout.splitlines()) == 1
    assert yarrow("schedule", "next", file, "--json").json() == []


def test_once(yarrow: Yarrow) -> None:
    once = ("schedule", "next", "--cron", "@once", "--start", "2026-01-01")
    assert yarrow(*once).stdout.startswith("Once, at the start date")
    assert len(yarrow(*once, "--json").json()) == 1


def test_a_moment_without_an_offset_is_local(yarrow: Yarrow) -> None:
    berlin = ("schedule", "next", "--cron", "@monthly", "--timezone", "Europe/Berlin", "--count", "1", "--json")
    assert yarrow(*berlin, "--start", "2013-01-01").json()[0]["logical_date"] == "2012-12-31T23:00:00+00:00"
    assert yarrow(*berlin, "--start", "2013-01-01T00:00Z").json()[0]["logical_date"] == "2013-01-31T23:00:00+00:00"


def test_semantics_after_and_end(yarrow: Yarrow) -> None:
    daily = ("schedule", "next", "--cron", "@daily", "--start", "2026-01-01", "--json")
    (row,) = yarrow(*daily, "--semantics", "trigger", "--count", "1").json()
    assert row["logical_date"] == row["run_after"] == row["data_interval_end"] == "2026-01-01T00:00:00+00:00"
    (row,) = yarrow(*daily, "--after", "2026-02-01T12:00", "--count", "1").json()
    assert row["run_after"] == "2026-02-02T00:00:00+00:00"
    assert len(yarrow(*daily, "--end", "2026-01-04").json()) == 3


def test_a_dag_file(yarrow: Yarrow, tmp_path: Path) -> None:
    file = tmp_path / "d.yaml"
    file.write_text(
        "schedule: '0 6 * * 1'\ntimezone: Asia/Tokyo\nstart_date: 2026-01-01\ntasks: {a: {operator: empty}}\n"
    )
    (row,) = yarrow("schedule", "next", file, "--count", "1", "--json").json()
    assert row["local"] == "2026-01-12T06:00:00+09:00"
    (row,) = yarrow("schedule", "next", file, "--count", "1", "--start", "2026-02-01", "--json").json()
    assert row["logical_date"] == "2026-02-01T21:00:00+00:00"


def test_a_dag_file_without_a_start_date_begins_now(yarrow: Yarrow, tmp_path: Path) -> None:
    file = tmp_path / "d.yaml"
    file.write_text("schedule: {every: 15m}\ntasks: {a: {operator: empty}}\n")
    before = utc_now()
    rows = yarrow("schedule", "next", file, "--count", "2", "--json").json()
    starts = [datetime.fromisoformat(row["run_after"]) for row in rows]
    assert before < starts[0] <= utc_now() + timedelta(minutes=15)
    assert starts[0].minute % 15 == 0
    assert starts[1] - starts[0] == timedelta(minutes=15)
    (row,) = yarrow("schedule", "next", file, "--count", "1", "--after", "2026-01-01T00:10", "--json").json()
    assert row["run_after"] == "2026-01-01T00:15:00+00:00"
    file.write_text("schedule: '@once'\ntasks: {a: {operator: empty}}\n")
    assert yarrow("schedule", "next", file).stdout.startswith("Once, at the start date; without one,")


def test_a_dag_file_with_faults(yarrow: Yarrow, tmp_path: Path) -> None:
    file = tmp_path / "d.yaml"
    file.write_text("tasks: {a: {operator: empyt}}")
    answer = yarrow("schedule", "next", file)
    assert answer.exit_code == 2
    assert "Did you mean `empty`?" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name either a DAG file or a schedule with --cron or --every."),
        (["--cron", "@daily", "--every", "5m", "--start", "2026-01-01"], "Name either a DAG file or a schedule"),
        (["--every", "5 minutes", "--start", "2026-01-01"], "--every: `5 minutes` is not a duration"),
        (["--every", "100ms", "--start", "2026-01-01"], "`every` is between one second and ten years"),
        (["--cron", "@daily", "--cron", "@once", "--start", "2026-01-01"], "`@once` has no fire times"),
        (["--cron", "*/5 * * * * *", "--start", "2026-01-01"], "Seconds and years are not supported"),
        (["--cron", "@daily"], "A start is needed"),
        (["--cron", "* * *", "--start", "2026-01-01"], "five fields"),
        (["--cron", "0-0 * * * R", "--start", "2026-01-01"], "R"),
        (["--cron", "@daily", "--start", "2026-01-01", "--timezone", "Europe/Berln"], "Did you mean `Europe/Berlin`?"),
        (["--cron", "@daily", "--start", "soon"], "'soon' is not a date"),
    ],
)
def test_what_is_wrong_is_said(yarrow: Yarrow, arguments: list[str], message: str) -> None:
    answer = yarrow("schedule", "next", *arguments)
    assert answer.exit_code == 2
    assert message in answer.stderr
    assert not answer.stdout


def test_a_dag_file_has_a_schedule_of_its_own(yarrow: Yarrow, tmp_path: Path) -> None:
    file = tmp_path / "d.yaml"
    file.write_text("schedule: '@daily'\nstart_date: 2026-01-01\ntasks: {a: {operator: empty}}\n")
    answer = yarrow("schedule", "next", file, "--gap", "skip", "--cron", "@daily")
    assert answer.exit_code == 2
    assert "it does not go with --cron, --gap" in answer.stderr


def test_a_degenerate_range_is_not_every_minute(yarrow: Yarrow) -> None:
    rows = json.loads(yarrow("schedule", "next", "--cron", "0-0 * * * *", "--start", "2026-01-01", "--json").stdout)
    assert [row["logical_date"][11:16] for row in rows[:3]] == ["00:00", "01:00", "02:00"]

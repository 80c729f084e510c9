"""`yarrow schedule next`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
    }
    assert len(rows) == 3


def test_table(yarrow: Yarrow) -> None:
    lines = yarrow(*MONTHS, "--count", "1").stdout.splitlines()
    assert lines[0].split("  ")[0] == "LOGICAL DATE (UTC)"
    assert lines[1].endswith("2013-02-01 05:00:00  2013-02-01 00:00:00-05:00")


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tasks: {a: {operator: empty}}", "has no schedule: its runs are started by hand."),
        ("tasks: {a: {operator: empyt}}", "Did you mean `empty`?"),
        ("schedule: '@daily'\ntasks: {a: {operator: empty}}", "A start is needed: --start"),
    ],
)
def test_a_dag_file_that_has_none(yarrow: Yarrow, tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "d.yaml"
    file.write_text(text)
    answer = yarrow("schedule", "next", file)
    assert answer.exit_code == 2
    assert message in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name either a DAG file or a schedule with --cron."),
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


def test_a_degenerate_range_is_not_every_minute(yarrow: Yarrow) -> None:
    rows = json.loads(yarrow("schedule", "next", "--cron", "0-0 * * * *", "--start", "2026-01-01", "--json").stdout)
    assert [row["logical_date"][11:16] for row in rows[:3]] == ["00:00", "01:00", "02:00"]

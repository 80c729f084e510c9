"""What fires around changes of clocks in zones with odd rules, line by line from a table (dst_golden.tsv).

A line of the table says what the wall clock did, and at which local times an expression fires in a window around that.
It was written down from the wall clock alone: the clock was read at every minute, a time of day that it never showed
was moved on by as much as the clock was put forward, and one that it showed twice counted as the policy says.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from yarrow.schedules.cron import parse_cron
from yarrow.schedules.dst import Policy
from yarrow.schedules.fires import CronFires
from yarrow.timetable import fire_times

TABLE = list(csv.DictReader(Path(__file__).with_name("dst_golden.tsv").read_text().splitlines(), delimiter="\t"))
ZONES = sorted({line["zone"] for line in TABLE})


def lines_of(zone: str) -> list[dict[str, str]]:
    return [line for line in TABLE if line["zone"] == zone]


def wanted(line: dict[str, str]) -> list[datetime]:
    return [datetime.fromisoformat(text) for text in line["fires (local time)"].split()]


def window(line: dict[str, str]) -> tuple[datetime, datetime]:
    return datetime.fromisoformat(line["after"]), datetime.fromisoformat(line["until"])


def test_the_table_has_what_is_odd() -> None:
    assert len(ZONES) == 17
    changes = {line["change"] for line in TABLE}
    sizes = set()
    for change in changes - {"no change of clocks"}:
        before, after = (datetime.fromisoformat(text) for text in change.split(" becomes "))
        sizes.add((after - before) / timedelta(minutes=1))
    assert sizes == {30, -30, 60, -60, 120, -120, 1440}
    years = {zone: {line["after"][:4] for line in lines_of(zone)} for zone in ZONES}
    assert sum("2037" in found for found in years.values()) >= 12
    assert sum(min(found) < "2026" for found in years.values()) >= 12


@pytest.mark.parametrize("zone", ZONES)
def test_the_wall_clock_shows_what_the_table_says(zone: str) -> None:
    for line in lines_of(zone):
        for moment in wanted(line):
            assert moment.astimezone(ZoneInfo(zone)).isoformat() == moment.isoformat(), line
        if " becomes " not in line["change"]:
            continue
        before, after = (datetime.fromisoformat(text) for text in line["change"].split(" becomes "))
        start, end = window(line)
        change = start + (end - start) / 2
        assert change.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == after
        minute_before = (change - timedelta(minutes=1)).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        assert minute_before == before - timedelta(minutes=1)


@pytest.mark.parametrize("zone", ZONES)
def test_what_fires_around_a_change_of_clocks(zone: str) -> None:
    for line in lines_of(zone):
        expected = [moment.astimezone(UTC) for moment in wanted(line)]
        start, end = window(line)
        policy = {"gap": line["gap"], "fold": line["fold"]}
        assert expected, line
        found = fire_times(line["cron"], zone, start, len(expected) + 1, **policy)
        assert found[:-1] == expected, line
        assert found[-1] > end, line


@pytest.mark.parametrize("zone", ZONES)
def test_the_same_backwards(zone: str) -> None:
    for line in lines_of(zone):
        expected = [moment.astimezone(UTC) for moment in wanted(line)]
        fires = CronFires(parse_cron(line["cron"]), ZoneInfo(zone), Policy(line["gap"], line["fold"]))
        start, end = window(line)
        found = fires.newest(end, len(expected) + 1)
        assert found[1:] == expected, line
        assert found[0] <= start, line
        assert fires.latest(end) == expected[-1], line
        assert fires.latest(expected[-1] - timedelta(microseconds=1)) == found[-2], line

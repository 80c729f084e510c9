"""The notes of a preview: a run near a change of the clocks says what they do to it, any other says nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yarrow.language.spec import ScheduleSpec
from yarrow.schedules.cron import parse_cron
from yarrow.schedules.preview import preview

ZONES = ["America/New_York", "Australia/Lord_Howe", "America/Havana", "Antarctica/Troll", "Pacific/Chatham", "UTC"]
CRONS = ["30 2 * * *", "15 0,1,2,3 * * *", "45 1-3 * * *", "*/20 2 * * *", "0 */2 * * *", "0 12 * * 1", "5 0 L * *"]


def comes_twice(local: datetime, zone: ZoneInfo) -> bool:
    """Whether the wall clock shows a time twice: later offsets are smaller then."""
    first, second = (local.replace(tzinfo=zone, fold=fold).utcoffset() for fold in (0, 1))
    assert first is not None
    assert second is not None
    return first > second


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ZONES), st.lists(st.sampled_from(CRONS), min_size=1, max_size=2, unique=True), st.data())
def test_a_run_has_a_note_when_the_clocks_matter_to_it(zone: str, crons: list[str], data: st.DataObject) -> None:
    fold = data.draw(st.sampled_from(["first", "second", "both"]))
    month = data.draw(st.sampled_from([3, 4, 9, 10, 11]))
    schedule = ScheduleSpec(
        cron=tuple(crons) if len(crons) > 1 else crons[0], timezone=zone, semantics="trigger", fold=fold
    )
    info = ZoneInfo(zone)
    for row in preview(schedule, datetime(2026, month, 1, tzinfo=UTC), None, None, 120):
        local = row.interval.run_after.astimezone(info).replace(tzinfo=None, fold=0)
        named = any(parse_cron(cron).names(local) for cron in crons)
        note = row.note or ""
        assert ("comes twice" in note) == (named and comes_twice(local, info)), row
        if not named:
            assert f"runs at {local:%H:%M}" in note, row
        if "does not exist" in note or "do not exist" in note:
            assert zone != "UTC"
        if zone == "UTC":
            assert row.note is None


@pytest.mark.parametrize(
    ("crons", "gap", "notes"),
    [
        (("0 2 * * *", "0 3 * * *"), "shift", ["clocks go forward: 02:00 does not exist, runs at 03:00"]),
        (("*/20 2 * * *", "0 4 * * *"), "skip", ["clocks go forward: 02:00 to 02:40 do not exist and are left out"]),
        (("30 2 * * *", "10 3 * * *"), "skip", [None, "clocks go forward: 02:30 on 2026-03-08 does not exist"]),
        (("0 * * * *",), "shift", [None, None]),
    ],
)
def test_several_times_and_expressions(crons: tuple[str, ...], gap: str, notes: list[str | None]) -> None:
    schedule = ScheduleSpec(cron=crons, timezone="America/New_York", gap=gap, semantics="trigger")
    rows = preview(schedule, datetime(2026, 3, 8, 6, tzinfo=UTC), None, None, len(notes))
    for row, note in zip(rows, notes, strict=True):
        assert (row.note or "").startswith(note or "")
        assert (row.note is None) == (note is None)

"""The coming runs of a schedule, for people: as text and in words, with what a change of the clocks does to them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from zoneinfo import ZoneInfo

from yarrow.language.spec import ScheduleSpec
from yarrow.schedules.cron import is_continuous, is_once, parse_cron
from yarrow.schedules.dst import Policy, local_start, readings
from yarrow.schedules.fires import TICK, fires_of
from yarrow.schedules.walk import Cron
from yarrow.schedules.zones import load_zone
from yarrow.timetable import Interval, Timetable


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One coming run, for people: as ISO 8601 text and in words."""

    interval: Interval
    zone: ZoneInfo
    note: str | None = None  # what a change of the clocks does to it

    def to_json(self) -> dict[str, str | None]:
        """The instants in UTC; `local` is the start of the run in the zone of the schedule."""
        return {
            "logical_date": self.interval.logical_date.isoformat(),
            "data_interval_start": self.interval.data_interval_start.isoformat(),
            "data_interval_end": self.interval.data_interval_end.isoformat(),
            "run_after": self.interval.run_after.isoformat(),
            "local": self.interval.run_after.astimezone(self.zone).isoformat(),
            "note": self.note,
        }

    @property
    def words(self) -> str:
        """A sentence: what the run covers and when it starts, in the zone of the schedule."""
        start, end = self.interval.data_interval_start, self.interval.data_interval_end
        if start == end:
            return f"starts at {self._local(self.interval.run_after)} {self.zone.key}"
        return f"covers {self._local(start)} to {self._local(end)} {self.zone.key}, starts at the end"

    def _local(self, instant: datetime) -> str:
        local = instant.astimezone(self.zone)
        return f"{local:%Y-%m-%d %H:%M:%S}" if local.second else f"{local:%Y-%m-%d %H:%M}"


def preview(
    schedule: ScheduleSpec, start: datetime, end: datetime | None, after: datetime | None, count: int
) -> list[PreviewRow]:
    """The first `count` runs of a schedule, or those that start later than `after`. Raises ValueError.

    There are none when something else than time says when they are due.
    """
    timetable = Timetable.of(schedule, start, end)
    intervals = timetable.intervals(None, count) if after is None else timetable.starting_after(after, count)
    zone = load_zone(schedule.timezone)
    notes = _Notes(schedule, start)
    return [PreviewRow(interval, zone, notes.of(interval.run_after)) for interval in intervals]


class _Notes:
    """Says what a change of the clocks does to a run."""

    def __init__(self, schedule: ScheduleSpec, start: datetime) -> None:
        timeless = is_once(schedule.cron) or is_continuous(schedule.cron)
        self._crons = [] if timeless else [parse_cron(expr) for expr in schedule.crons]
        self._fires = fires_of(schedule, start)
        self._zone = load_zone(schedule.timezone)
        self._policy = Policy(schedule.gap, schedule.fold)

    def of(self, run_after: datetime) -> str | None:
        """The note on the run that starts then; None: the clocks don't matter to it."""
        if not self._crons:
            return None
        before = self._fires.latest(run_after - TICK)
        back = self._back(run_after)
        forward = self._forward(before, run_after) if before is not None else None
        return "; ".join(note for note in (forward, back) if note) or None

    def _back(self, run_after: datetime) -> str | None:
        """When its local time comes twice."""
        local = run_after.astimezone(self._zone).replace(tzinfo=None, fold=0)
        first, second = readings(local, self._zone)
        if first >= second or not any(cron.names(local) for cron in self._crons):
            return None
        which = "the first" if run_after == first else "the second"
        often = "both count" if self._counts_twice(local) else "the other does not count"
        return f"clocks go back: {local:%H:%M} comes twice, this is {which}; {often}"

    def _counts_twice(self, local: datetime) -> bool:
        return self._policy.fold == "both" or any(cron.every_hour and cron.names(local) for cron in self._crons)

    def _forward(self, before: datetime, run_after: datetime) -> str | None:
        """When a time that it stands for, or that was left out since the run before, does not exist."""
        missing = sorted({local for cron in self._crons for local in self._missing(cron, before, run_after)})
        if not missing:
            return None
        local = run_after.astimezone(self._zone)
        first, last = (f"{time:%H:%M}" for time in (missing[0], missing[-1]))
        day = "" if missing[0].date() == local.date() else f" on {missing[0]:%Y-%m-%d}"
        what = f"{first}{day} does not exist" if first == last else f"{first} to {last}{day} do not exist"
        if self._policy.gap == "skip":
            return f"clocks go forward: {what} and {'is' if first == last else 'are'} left out"
        return f"clocks go forward: {what}, runs at {local:%H:%M}"

    def _missing(self, cron: Cron, before: datetime, run_after: datetime) -> Iterator[datetime]:
        """The local times of an expression between two runs, or at the second of them, that don't exist."""
        if cron.every_hour:
            return
        end = run_after.astimezone(self._zone).replace(tzinfo=None)
        for local in takewhile(lambda time: time <= end, cron.forward(local_start(before, self._zone))):
            shifted, late = readings(local, self._zone)
            if shifted > late and before < shifted <= run_after:
                yield local

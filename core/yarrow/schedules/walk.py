"""Walks through the local times that a cron expression names, in both directions.

The walk is on naive local time; what a local time means on the clock of a zone is the affair of `dst`. croniter walks
where the fields are plain lists. With `L` and `#` it loses its way (`0 0 1 * 5#3` finds no date at all, `0 0 22 * 0L`
drops one of the two kinds of day), so those expressions are walked here, day by day.
"""

from __future__ import annotations

import calendar
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import MAXYEAR, MINYEAR, date, datetime, time

from croniter import CroniterError, croniter

LAST = -1
"""Where the number of a weekday within its month stands, as the 3 of `5#3`: the last one."""

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


@dataclass(frozen=True, slots=True)
class Field:
    """One of the five fields: its name, its bounds and the names that stand for numbers."""

    label: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.high - self.low + 1


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of month", 1, 31),
    Field("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, start=1)}),
    Field("day of week", 0, 6, {name: number for number, name in enumerate(_WEEKDAYS)}),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression, read: the values of each field, ascending. Days of the week count from Sunday, 0."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int] | None  # None: any. When both kinds of day are given, either may match
    months: frozenset[int]
    weekdays: frozenset[int] | None
    last_day: bool = False  # the last day of the month as well as `days`
    nth_weekdays: frozenset[tuple[int, int]] = frozenset()  # as well as `weekdays`: (weekday, 1 to 5 or LAST)

    @property
    def every_hour(self) -> bool:
        """Whether it names no hour, so that every hour that really passes counts."""
        return len(self.hours) == 24

    @property
    def canonical(self) -> str:
        """The same expression in plain lists. Some date fits it."""
        marked = {
            "day of month": ["L"] * self.last_day,
            "day of week": [f"{day}L" if nth == LAST else f"{day}#{nth}" for day, nth in sorted(self.nth_weekdays)],
        }
        columns = (self.minutes, self.hours, self.days, self.months, self.weekdays)
        return " ".join(
            _column(values, form, marked.get(form.label, [])) for values, form in zip(columns, FIELDS, strict=True)
        )

    def names(self, local: datetime) -> bool:
        """Whether a naive local time, of a whole minute, is one of those that the expression names."""
        return (
            local.minute in self.minutes
            and local.hour in self.hours
            and local.month in self.months
            and local.day in self._days_of(local.year, local.month)
        )

    @property
    def plain(self) -> bool:
        """Whether it has neither `L` nor `#`."""
        return not self.last_day and not self.nth_weekdays

    def forward(self, after: datetime) -> Iterator[datetime]:
        """Yields the naive local times later than the naive `after`, in order, to the end of the calendar."""
        return self._croniter_forward(after) if self.plain else self._days_forward(after)

    def back(self, before: datetime) -> Iterator[datetime]:
        """Yields the naive local times not later than the naive `before`, newest first, to the calendar's beginning."""
        return self._croniter_back(before) if self.plain else self._days_back(before)

    def _croniter_forward(self, after: datetime) -> Iterator[datetime]:
        walk = croniter(self.canonical, after.replace(second=0, microsecond=0))
        with suppress(CroniterError, OverflowError, ValueError):  # the end of the calendar
            while True:
                yield walk.get_next(datetime)

    def _croniter_back(self, before: datetime) -> Iterator[datetime]:
        walk = croniter(self.canonical, before.replace(second=30, microsecond=0))
        with suppress(CroniterError, OverflowError, ValueError):
            while True:
                yield walk.get_prev(datetime)

    def _days_forward(self, after: datetime) -> Iterator[datetime]:
        for year in range(after.year, MAXYEAR + 1):
            for month in sorted(self.months):
                if (year, month) < (after.year, after.month):
                    continue
                for day in self._days_of(year, month):
                    yield from self._later(datetime.combine(date(year, month, day), time.min), after)

    def _days_back(self, before: datetime) -> Iterator[datetime]:
        for year in range(before.year, MINYEAR - 1, -1):
            for month in sorted(self.months, reverse=True):
                if (year, month) > (before.year, before.month):
                    continue
                for day in reversed(self._days_of(year, month)):
                    yield from self._earlier(datetime.combine(date(year, month, day), time.min), before)

    def _later(self, midnight: datetime, after: datetime) -> Iterator[datetime]:
        """The times of a day that are later than `after`."""
        if midnight.date() < after.date():
            return
        for hour in self.hours:
            if midnight.date() > after.date() or hour >= after.hour:
                for minute in self.minutes:
                    if (local := midnight.replace(hour=hour, minute=minute)) > after:
                        yield local

    def _earlier(self, midnight: datetime, before: datetime) -> Iterator[datetime]:
        """The times of a day that are not later than `before`, newest first."""
        if midnight.date() > before.date():
            return
        for hour in reversed(self.hours):
            if midnight.date() < before.date() or hour <= before.hour:
                for minute in reversed(self.minutes):
                    if (local := midnight.replace(hour=hour, minute=minute)) <= before:
                        yield local

    def _days_of(self, year: int, month: int) -> list[int]:
        """The days of a month that fit."""
        first, length = calendar.monthrange(year, month)  # Monday is 0 here
        every_day = range(1, length + 1)
        if self.days is None and self.weekdays is None:
            return list(every_day)
        return [day for day in every_day if self._fits(day, (first + day) % 7, length)]

    def _fits(self, day: int, weekday: int, length: int) -> bool:
        if self.days is not None and (day in self.days or (self.last_day and day == length)):
            return True
        if self.weekdays is None:
            return False
        if weekday in self.weekdays or (weekday, (day + 6) // 7) in self.nth_weekdays:
            return True
        return day + 7 > length and (weekday, LAST) in self.nth_weekdays


def _column(values: Collection[int] | None, form: Field, marked: list[str]) -> str:
    if values is None or len(values) == form.size:
        return "*"
    return ",".join([*map(str, sorted(values)), *marked])

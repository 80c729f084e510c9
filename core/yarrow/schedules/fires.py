"""The instants that a schedule names, walked in both directions of time."""

from __future__ import annotations

import heapq
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo

from yarrow.language.spec import ScheduleSpec
from yarrow.schedules.cron import is_continuous, is_once, parse_cron
from yarrow.schedules.dst import EVERY_HOUR, Policy, local_start, readings, to_instants
from yarrow.schedules.walk import Cron
from yarrow.schedules.zones import load_zone

SHORTEST_EVERY = 1.0
"""Seconds."""
LONGEST_EVERY = 3650 * 86400.0

FIRST = datetime(1800, 1, 1, tzinfo=UTC)
LAST = datetime(9990, 1, 1, tzinfo=UTC)
"""The calendar has ends, and the offset of a zone must not lead beyond them."""

TICK = timedelta(microseconds=1)


class Fires(ABC):
    """The instants (UTC) that a schedule names."""

    @abstractmethod
    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yields the instants strictly later than an instant, in strictly ascending order."""

    @abstractmethod
    def newest(self, instant: datetime, count: int) -> list[datetime]:
        """The newest `count` that are not later than an instant, ascending; fewer at the beginning of time."""

    def latest(self, instant: datetime) -> datetime | None:
        """The newest that is not later than an instant; None at the beginning of time."""
        newest = self.newest(instant, 1)
        return newest[0] if newest else None

    def count(self, first: datetime, last: datetime, most: int) -> int:
        """How many there are from `first` to `last`, both included; where counting takes long, at most `most` + 1."""
        found = takewhile(lambda fire: fire <= last, self.after(first - TICK))
        return sum(1 for _ in islice(found, most + 1))


@dataclass(frozen=True, slots=True)
class CronFires(Fires):
    """A cron expression in a zone."""

    cron: Cron
    zone: ZoneInfo
    policy: Policy

    def after(self, instant: datetime) -> Iterator[datetime]:
        locals_ = takewhile(lambda local: local.year < LAST.year, self.cron.forward(local_start(instant, self.zone)))
        policy = EVERY_HOUR if self.cron.every_hour else self.policy
        return (fire for fire in to_instants(locals_, self.zone, policy) if fire > instant)

    def newest(self, instant: datetime, count: int) -> list[datetime]:
        """Steps back, further each time: a local time may stand for no instant, or for one that is too late."""
        local, steps = instant.astimezone(self.zone).replace(tzinfo=None), count
        while True:
            locals_ = list(islice(takewhile(lambda one: one.year >= FIRST.year, self.cron.back(local)), steps))
            if not locals_:
                return []
            since = min(readings(locals_[-1], self.zone)) - TICK
            found = deque(takewhile(lambda fire: fire <= instant, self.after(since)), maxlen=count)
            if len(found) == count or len(locals_) < steps:
                return list(found)
            steps *= 2


@dataclass(frozen=True, slots=True)
class UnionFires(Fires):
    """Several schedules at once: an instant that two of them name counts once."""

    parts: tuple[Fires, ...]

    def after(self, instant: datetime) -> Iterator[datetime]:
        return _once_each(heapq.merge(*(part.after(instant) for part in self.parts)))

    def newest(self, instant: datetime, count: int) -> list[datetime]:
        return list(_once_each(heapq.merge(*(part.newest(instant, count) for part in self.parts))))[-count:]


@dataclass(frozen=True, slots=True)
class EveryFires(Fires):
    """A steady rhythm that begins at an instant. It knows no clocks that are put forward or back."""

    origin: datetime
    every: timedelta

    def after(self, instant: datetime) -> Iterator[datetime]:
        number = max((instant - self.origin) // self.every + 1, 0)
        while (fire := self.origin + number * self.every) < LAST:
            yield fire
            number += 1

    def newest(self, instant: datetime, count: int) -> list[datetime]:
        number = (instant - self.origin) // self.every
        return [self.origin + step * self.every for step in range(max(number - count + 1, 0), number + 1)]

    def count(self, first: datetime, last: datetime, most: int) -> int:
        """Exact, however many there are."""
        before_first = max(-((self.origin - first) // self.every), 0)
        return max((last - self.origin) // self.every + 1 - before_first, 0)


@dataclass(frozen=True, slots=True)
class OnceFires(Fires):
    """A single instant."""

    at: datetime

    def after(self, instant: datetime) -> Iterator[datetime]:
        return iter([self.at] if self.at > instant else [])

    def newest(self, instant: datetime, count: int) -> list[datetime]:
        return [self.at] if self.at <= instant else []


@dataclass(frozen=True, slots=True)
class NoFires(Fires):
    """No instant is known in advance: something else than time says when."""

    def after(self, instant: datetime) -> Iterator[datetime]:
        return iter([])

    def newest(self, instant: datetime, count: int) -> list[datetime]:
        return []


def fires_of(schedule: ScheduleSpec, start: datetime) -> Fires:
    """The instants of a schedule. Raises ValueError, with a sentence, for a schedule that can't be followed."""
    zone = load_zone(schedule.timezone)
    policy = Policy(schedule.gap, schedule.fold)
    given = [kind for kind in ("cron", "every", "datasets") if getattr(schedule, kind) not in (None, ())]
    if len(given) != 1:
        raise ValueError("A schedule has either `cron` or `every` or `datasets`, and names at least one.")
    if schedule.every is not None:
        return EveryFires(start, _rhythm(schedule.every))
    if is_once(schedule.cron):
        return OnceFires(start)
    if schedule.datasets or is_continuous(schedule.cron):
        return NoFires()
    parts = [CronFires(parse_cron(expr), zone, policy) for expr in schedule.crons]
    return parts[0] if len(parts) == 1 else UnionFires(tuple(parts))


def _once_each(instants: Iterator[datetime]) -> Iterator[datetime]:
    """Ascending instants, each of them once."""
    last: datetime | None = None
    for instant in instants:
        if instant != last:
            yield (last := instant)


def _rhythm(every: float) -> timedelta:
    if not math.isfinite(every) or not SHORTEST_EVERY <= every <= LONGEST_EVERY:
        raise ValueError(f"`every` is between one second and ten years, not {every:g} s.")
    return timedelta(seconds=every)

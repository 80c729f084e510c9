"""The instants that a schedule names, walked in both directions of time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from yarrow.cron import Cron, is_once, parse_cron
from yarrow.dst import EVERY_HOUR, Policy, local_start, readings, to_instants
from yarrow.language.spec import ScheduleSpec
from yarrow.zones import load_zone

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
    def latest(self, instant: datetime) -> datetime | None:
        """The newest that is not later than an instant; None at the beginning of time."""


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

    def latest(self, instant: datetime) -> datetime | None:
        """Steps back, further each time: a local time may stand for no instant, or for one that is too late."""
        local, steps = instant.astimezone(self.zone).replace(tzinfo=None), 1
        while True:
            oldest = self.cron.back(local, steps)[-1]
            since = min(readings(oldest, self.zone)) - TICK
            newest = deque(takewhile(lambda fire: fire <= instant, self.after(since)), maxlen=1)
            if newest:
                return newest[0]
            steps *= 2


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

    def latest(self, instant: datetime) -> datetime | None:
        number = (instant - self.origin) // self.every
        return self.origin + number * self.every if number >= 0 else None


@dataclass(frozen=True, slots=True)
class OnceFires(Fires):
    """A single instant."""

    at: datetime

    def after(self, instant: datetime) -> Iterator[datetime]:
        return iter([self.at] if self.at > instant else [])

    def latest(self, instant: datetime) -> datetime | None:
        return self.at if self.at <= instant else None


def fires_of(schedule: ScheduleSpec, start: datetime) -> Fires:
    """The instants of a schedule. Raises ValueError, with a sentence, for a schedule that can't be followed."""
    zone = load_zone(schedule.timezone)
    policy = Policy(schedule.gap, schedule.fold)
    if schedule.cron is not None and schedule.every is None:
        if is_once(schedule.cron):
            return OnceFires(start)
        return CronFires(parse_cron(schedule.crons[0]), zone, policy)
    if schedule.every is not None and schedule.cron is None:
        return EveryFires(start, _rhythm(schedule.every))
    raise ValueError("A schedule has either `cron` or `every`.")


def _rhythm(every: float) -> timedelta:
    if not math.isfinite(every) or not SHORTEST_EVERY <= every <= LONGEST_EVERY:
        raise ValueError(f"`every` is between one second and ten years, not {every:g} s.")
    return timedelta(seconds=every)

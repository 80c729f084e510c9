"""Turns local times into instants where the clocks of a zone are put forward or back.

A local time in a gap (the clocks were put forward over it) does not exist; one in a fold (they were put back over it)
comes twice. What happens then is a policy, not an accident.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

GAPS = ("shift", "skip")
FOLDS = ("first", "second", "both")

_REACH = timedelta(hours=26)
"""No zone ever moved its clocks by more than a day (Pacific/Apia skipped one)."""
_STEP = timedelta(hours=2)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a local time that does not exist, or that comes twice, stands for."""

    gap: str = "shift"  # shift: as long after the gap began as the time is into it; skip: nothing
    fold: str = "second"  # first, second or both

    def __post_init__(self) -> None:
        if self.gap not in GAPS:
            raise ValueError(f"`gap` is {' or '.join(GAPS)}, not `{self.gap}`.")
        if self.fold not in FOLDS:
            raise ValueError(f"`fold` is {', '.join(FOLDS[:-1])} or {FOLDS[-1]}, not `{self.fold}`.")

    def instants(self, local: datetime, zone: ZoneInfo) -> tuple[datetime, ...]:
        """The instants, in order, that a naive local time stands for in a zone: none, one or two."""
        early, late = readings(local, zone)
        if early == late:
            return (early,)
        if early > late:  # a gap: the offset from before it moves the time forward, the one from after it back
            return (early,) if self.gap == "shift" else ()
        return {"first": (early,), "second": (late,), "both": (early, late)}[self.fold]


EVERY_HOUR = Policy(gap="skip", fold="both")
"""The policy of an expression that names no hour: it goes by the time that really passes."""


def to_instants(locals_: Iterable[datetime], zone: ZoneInfo, policy: Policy) -> Iterator[datetime]:
    """Yields the instants (UTC) of ascending naive local times in strictly ascending order, none twice.

    In a fold or after a gap the order of the instants is not that of the local times: an instant is held back
    until no later local time can come before it.
    """
    held: list[datetime] = []
    last: datetime | None = None
    for local in locals_:
        earliest = min(readings(local, zone))
        while held and held[0] < earliest:
            instant = heapq.heappop(held)
            if instant != last:
                yield (last := instant)
        for instant in policy.instants(local, zone):
            heapq.heappush(held, instant)
    while held:
        instant = heapq.heappop(held)
        if instant != last:
            yield (last := instant)


def local_start(instant: datetime, zone: ZoneInfo) -> datetime:
    """The naive local time from which to walk so that no instant later than `instant` is missed.

    It is the local time itself, and earlier by as much as the clocks are moved when that happens around then.
    """
    return instant.astimezone(zone).replace(tzinfo=None) - _change_around(instant, zone)


def readings(local: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """A naive local time as an instant (UTC) by the offset from before a change of the clocks, and by the one after it.

    Both are the same when no change makes the local time doubtful.
    """
    aware = local.replace(tzinfo=zone)
    early = aware.astimezone(UTC)
    if aware.utcoffset() == aware.replace(fold=1).utcoffset():
        return early, early
    return early, aware.replace(fold=1).astimezone(UTC)


def _change_around(instant: datetime, zone: ZoneInfo) -> timedelta:
    """By how much the clocks are moved in the day before and after an instant."""
    moment, end = instant - _REACH, instant + _REACH
    offset = _offset(moment, zone)
    change = timedelta(0)
    while moment < end:
        moment += _STEP
        change = max(change, abs(_offset(moment, zone) - offset))
    return change


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta(0)

"""The data intervals that a backfill is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from yarrow.errors import UsageError
from yarrow.language.spec import DagSpec
from yarrow.plans.requests import BackfillRequest
from yarrow.plans.situation import Situation
from yarrow.schedules.cron import is_once
from yarrow.schedules.fires import TICK
from yarrow.schedules.upcoming import timetable_of
from yarrow.schedules.words import moment_text
from yarrow.timetable import NO_START, Interval, Timetable, has_moments

MOST_RUNS = 100_000
"""Data intervals of one backfill."""
MOST_OUTSIDE = 1_000
"""How many data intervals before the start date, and as many after the end date, are listed one by one."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One data interval of a span."""

    interval: Interval
    skip: str | None = None  # why it can't have a run now


def slots_of(request: BackfillRequest, situation: Situation) -> list[Slot]:
    """The data intervals of the DAG's timetable that have begun by now, by their logical dates.

    Raises:
        UsageError: The DAG has no schedule of its own times, or the span has no data interval, or too many.
    """
    timetable = _timetable(situation)
    _check_span(request, situation.now)
    last = min(request.to_date, situation.now)
    slots = list(_before_start(situation.newest, request.from_date, last))
    for interval in timetable.within(request.from_date, last):
        skip = None
        if interval.run_after > situation.now:
            skip = f"not over yet: its data interval ends at {moment_text(interval.data_interval_end)}"
        slots.append(Slot(interval, skip))
        if len(slots) > MOST_RUNS:
            raise UsageError(
                f"The DAG {request.dag_id!r} has more than {MOST_RUNS:,} logical dates from "
                f"{moment_text(request.from_date)} to {moment_text(request.to_date)}.",
                hint="Backfill a shorter span, and another one after it.",
            )
    slots += _after_end(situation.newest, request.from_date, last)
    if not slots:
        raise _no_date(request, timetable)
    return slots


def _timetable(situation: Situation) -> Timetable:
    schedule = situation.newest.schedule
    if schedule is None or not has_moments(schedule) or is_once(schedule.cron):
        raise UsageError(
            f"The DAG {situation.dag_id!r} can't be backfilled: only a DAG with a schedule of its own times can, "
            f"and {_kind(situation.newest)}.",
            hint="Trigger a run for each logical date instead.",
        )
    return timetable_of(situation.newest, situation.created_at)


def _kind(spec: DagSpec) -> str:
    if spec.schedule is None:
        return "this one has no schedule"
    return (
        "this one waits for data sets"
        if spec.schedule.datasets
        else f"the schedule of this one is {spec.schedule.cron}"
    )


def _check_span(request: BackfillRequest, now: datetime) -> None:
    start, end = moment_text(request.from_date), moment_text(request.to_date)
    if request.from_date > request.to_date:
        raise UsageError(f"The backfill would go from {start} to {end}, which is earlier.", hint="Swap them.")
    if request.from_date > now:
        raise UsageError(
            f"Both {start} and {end} are in the future: there is nothing to backfill yet.",
            hint="A backfill is of data intervals that are over.",
        )


def _before_start(spec: DagSpec, first: datetime, last: datetime) -> Iterator[Slot]:
    """The logical dates that the schedule would have before the start date. A steady rhythm begins there."""
    if spec.start_date is None or spec.schedule is None or spec.schedule.every is not None or first >= spec.start_date:
        return iter(())
    found = Timetable.of(spec.schedule, NO_START).within(first, min(last, spec.start_date - TICK))
    return _outside(found, f"outside the dates of the DAG, whose start_date is {moment_text(spec.start_date)}")


def _after_end(spec: DagSpec, first: datetime, last: datetime) -> Iterator[Slot]:
    if spec.end_date is None or spec.schedule is None or last < spec.end_date:
        return iter(())
    unending = Timetable.of(spec.schedule, spec.start_date or NO_START)
    found = unending.within(max(first, spec.end_date), last)
    return _outside(found, f"outside the dates of the DAG, whose end_date is {moment_text(spec.end_date)}")


def _outside(intervals: Iterator[Interval], reason: str) -> Iterator[Slot]:
    for place, interval in enumerate(islice(intervals, MOST_OUTSIDE), 1):
        more = "; more of them are not listed" if place == MOST_OUTSIDE else ""
        yield Slot(interval, f"{reason}{more}")


def _no_date(request: BackfillRequest, timetable: Timetable) -> UsageError:
    """Names the logical dates around a span that has none."""
    before = timetable.before(request.from_date)
    if before is not None and timetable.at(before) is None:
        before = None
    following = timetable.next_interval(request.from_date)
    near = [moment_text(date) for date in (before, following.logical_date if following else None) if date]
    start, end = moment_text(request.from_date), moment_text(request.to_date)
    names = f"the nearest {'is' if len(near) == 1 else 'are'} {' and '.join(near)}" if near else "nor any other"
    return UsageError(f"The DAG {request.dag_id!r} has no logical date from {start} to {end}: {names}.")

"""Works out which run of a DAG's schedule comes next, from how far its runs have come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from yarrow.language.spec import DagSpec, ScheduleSpec
from yarrow.schedules.cron import is_continuous, is_once
from yarrow.schedules.fires import TICK
from yarrow.schedules.words import moment_text, schedule_text
from yarrow.timetable import NO_START, Interval, Timetable

_COUNTED = 1000
"""How many runs are counted one by one when they are left out; beyond that it is "more than"."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the scheduled runs of a DAG have come."""

    created_at: datetime  # of the DAG
    scheduled_through: datetime | None = None  # the logical date of the newest scheduled run, or one left out
    covered_until: datetime | None = None  # the end of its data interval; None: there is no run of that logical date


@dataclass(frozen=True, slots=True)
class Cut:
    """Missed runs that are left out."""

    through: datetime  # the logical date of the last of them
    first: Interval  # the first run that is made up for
    reason: str  # a sentence


def timetable_of(spec: DagSpec, created_at: datetime) -> Timetable:
    """The timetable of a DAG that has a schedule. Without a start date it has no beginning; `@once` is now, then."""
    assert spec.schedule is not None
    once = is_once(spec.schedule.cron)
    return Timetable.of(spec.schedule, spec.start_date or (created_at if once else NO_START), spec.end_date)


def upcoming(spec: DagSpec, progress: Progress, now: datetime) -> Interval | None:
    """The next run to create, due or not; None: none is known in advance.

    Without catchup, what was missed but for the latest is left out. A schedule of the meaning `trigger` that has no
    run yet waits for its next moment. A run after a change of the schedule begins where the one before ended.
    """
    if spec.schedule is None or spec.schedule.datasets:
        return None
    if is_continuous(spec.schedule.cron):
        return _continuous(spec, progress, now)
    timetable = timetable_of(spec, progress.created_at)
    through = progress.scheduled_through
    if through is None:
        following = timetable.next_interval(None)
    else:
        following = timetable.continued(through, progress.covered_until or through)
    if spec.catchup or following is None:
        return following
    if through is None and spec.schedule.semantics != "interval":
        return next(iter(timetable.starting_after(now, 1)), None)
    latest = timetable.latest_due(now, through)
    return latest if latest is not None and latest.logical_date > following.logical_date else following


def cut_catchup(spec: DagSpec, created_at: datetime, oldest: datetime, now: datetime) -> Cut | None:
    """What `max_catchup_runs` leaves out of the runs that are due; None: nothing.

    Args:
        created_at: Of the DAG.
        oldest: The logical date of the run that would come next.
    """
    most = spec.max_catchup_runs
    if most is None or spec.schedule is None:
        return None
    shortest = 60.0 if spec.schedule.every is None else spec.schedule.every
    if (now - oldest).total_seconds() < most * shortest:
        return None  # there can't be more than so many
    timetable = timetable_of(spec, created_at)
    kept = timetable.newest_due(now, most)
    first = timetable.at(kept) if kept is not None and kept > oldest else None
    if first is None:
        return None
    through = max(timetable.before(first.logical_date) or oldest, oldest)
    count = max(timetable.count(oldest, through, _COUNTED), 1)
    number = f"More than {_COUNTED:,}" if count == _COUNTED + 1 and spec.schedule.every is None else f"{count:,}"
    reason = (
        f"{number} missed {'run is' if count == 1 else 'runs are'} left out, of the logical dates "
        f"{moment_text(oldest)} to {moment_text(through)}: `max_catchup_runs` is {most}."
    )
    return Cut(through, first, reason)


def has_changed(old: DagSpec, new: DagSpec) -> bool:
    """Whether the schedule is another one. A steady rhythm begins with the start date, which then counts too."""
    steady = new.schedule is not None and new.schedule.every is not None
    return old.schedule != new.schedule or (steady and old.start_date != new.start_date)


def change_of_schedule(old: DagSpec, new: DagSpec, progress: Progress, now: datetime) -> str | None:
    """What a change of the schedule does to the runs, in a sentence; None: it is the same, or there was no run yet."""
    through = progress.scheduled_through
    if through is None or not has_changed(old, new):
        return None
    words = f"The schedule was {_named(old.schedule)} and is {_named(new.schedule)}."
    covered = progress.covered_until or through
    following = upcoming(new, progress, now)
    if following is None:
        return f"{words} The runs so far cover the time up to {moment_text(covered)}; none is due after them."
    start, end = following.data_interval_start, following.data_interval_end
    words = f"{words} The runs so far cover the time up to {moment_text(covered)}; the next one "
    if start == end or (new.schedule is not None and is_continuous(new.schedule.cron)):
        words += f"is of {moment_text(following.logical_date)}"
    else:
        words += f"covers {moment_text(start)} to {moment_text(end)}"
        if _is_shortened(new, progress, following):
            words += ", a shorter time than the others"
    if covered < start < end:
        return f"{words}. No run covers the time between."
    return f"{words}."


def _is_shortened(spec: DagSpec, progress: Progress, interval: Interval) -> bool:
    """Whether a run begins at no fire time of the schedule."""
    before = timetable_of(spec, progress.created_at).next_interval(interval.logical_date - TICK)
    return before is None or before.logical_date != interval.logical_date


def _continuous(spec: DagSpec, progress: Progress, now: datetime) -> Interval | None:
    """The run from the end of the one before, or from the start date, to now; it covers some time, however short."""
    through = progress.scheduled_through
    if through is None:
        start = spec.start_date or progress.created_at
    else:
        start = max(progress.covered_until or through, through + TICK)
    if spec.end_date is not None and (start >= spec.end_date or now > spec.end_date):
        return None
    return Interval.between(start, max(now, start + TICK))


def _named(schedule: ScheduleSpec | None) -> str:
    if schedule is None:
        return "none"
    details = [schedule.timezone] if schedule.crons else []
    details += [schedule.semantics] if schedule.semantics != "interval" else []
    details += [f"gap {schedule.gap}"] if schedule.gap != "shift" else []
    details += [f"fold {schedule.fold}"] if schedule.fold != "second" else []
    text = f"`{schedule_text(schedule)}`"
    return f"{text} ({', '.join(details)})" if details else text

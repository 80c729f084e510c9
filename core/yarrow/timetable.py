"""Computes when the runs of a schedule are due and what data interval each one covers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice, takewhile

from yarrow.errors import UsageError
from yarrow.language.spec import DagSpec, ScheduleSpec
from yarrow.schedules.cron import is_continuous, is_once, parse_cron
from yarrow.schedules.dst import Policy
from yarrow.schedules.fires import FIRST, LAST, TICK, CronFires, Fires, fires_of
from yarrow.schedules.zones import load_zone

SEMANTICS = ("interval", "trigger")
MODES = ("all", "any")
MOST_NAMES = 100
"""Cron expressions, or data sets, of one schedule."""

NO_START = datetime(1970, 1, 1, tzinfo=UTC)
"""Where the schedule of a DAG without a start date begins."""


@dataclass(frozen=True, slots=True)
class Interval:
    """One run of a schedule. Instants are aware UTC."""

    logical_date: datetime
    data_interval_start: datetime
    data_interval_end: datetime
    run_after: datetime  # the run starts then

    @classmethod
    def exact(cls, instant: datetime) -> Interval:
        """A run at an instant, that covers no time."""
        return cls(instant, instant, instant, instant)

    @classmethod
    def between(cls, start: datetime, end: datetime) -> Interval:
        """A run over [start, end), that starts when the interval has ended."""
        return cls(start, start, end, end)


def scheduled_run_id(logical_date: datetime) -> str:
    """The run_id of the scheduled run of a logical date."""
    return f"scheduled__{logical_date.isoformat()}"


def fire_times(
    expr: str, timezone: str, after: datetime, count: int, *, gap: str = "shift", fold: str = "second"
) -> list[datetime]:
    """Returns the first `count` instants (aware UTC) strictly after `after` at which a cron expression fires.

    Args:
        expr: Five fields, or a preset such as `@daily`.
        timezone: An IANA name. The fields are local times of this zone.
        after: An aware datetime.
        count: How many; fewer are returned only at the end of the calendar.
        gap: A local time that does not exist because the clocks are put forward: `shift` it forward by as much, or
            `skip` it.
        fold: A local time that comes twice because the clocks are put back: the `first`, the `second` or `both`.
            Neither matters to an expression that names no hour: it fires in every hour that passes.

    Raises:
        ValueError: With a sentence that says what is not valid.
    """
    if count < 0:
        raise ValueError(f"The count can't be negative: {count}.")
    fires = CronFires(parse_cron(expr), load_zone(timezone), Policy(gap, fold))
    return list(islice(fires.after(_instant(after, "after")), count))


def check_schedule(schedule: ScheduleSpec) -> None:
    """Raises ValueError, with a sentence, when a schedule can't be followed."""
    if schedule.semantics not in SEMANTICS:
        raise ValueError(f"`semantics` is {' or '.join(SEMANTICS)}, not `{schedule.semantics}`.")
    if schedule.mode not in MODES:
        raise ValueError(f"`mode` is {' or '.join(MODES)}, not `{schedule.mode}`.")
    if len(schedule.crons) > MOST_NAMES or len(schedule.datasets) > MOST_NAMES:
        raise ValueError(f"A schedule has at most {MOST_NAMES} cron expressions or data sets.")
    fires_of(schedule, FIRST)


def has_moments(schedule: ScheduleSpec) -> bool:
    """Whether time says when the runs are due: not with data sets, and not with `@continuous`."""
    return not schedule.datasets and not is_continuous(schedule.cron)


class Timetable:
    """The runs of one schedule between a start and an end."""

    def __init__(self, fires: Fires, *, covers: bool, start: datetime, end: datetime) -> None:
        self._fires = fires
        self._covers = covers  # whether a run covers the time up to the next fire, and waits for it
        self._start = start
        self._end = end

    @classmethod
    def of(cls, schedule: ScheduleSpec, start: datetime, end: datetime | None = None) -> Timetable:
        """The timetable of a schedule.

        Args:
            schedule: When the runs are due.
            start: Aware. The first logical date is the first fire time that is not before it.
            end: Aware. Logical dates are before it; None: no end.

        Raises:
            ValueError: As `check_schedule`.
        """
        check_schedule(schedule)
        start = _instant(start, "start")
        covers = schedule.semantics == "interval" and not is_once(schedule.cron)
        return cls(fires_of(schedule, start), covers=covers, start=start, end=_instant(end, "end") if end else LAST)

    def next_interval(self, after_logical: datetime | None) -> Interval | None:
        """The first run, or the one that follows a logical date; None when the schedule is over."""
        return next(self._upcoming(after_logical), None)

    def at(self, logical_date: datetime) -> Interval | None:
        """The run of a logical date, which need not be a fire time: then it ends at the next one, and is shorter."""
        if not self._start <= logical_date < self._end:
            return None
        if not self._covers:
            return Interval.exact(logical_date)
        end = next(self._fires.after(logical_date), None)
        return Interval.between(logical_date, end) if end else None

    def continued(self, through: datetime, covered_until: datetime) -> Interval | None:
        """The run that follows on one of perhaps another schedule, so that nothing is left out or covered twice.

        Args:
            through: The logical date of that run.
            covered_until: The end of its data interval. The run that follows begins there, and is shorter than others
                when that is no fire time. A run that covers no time is one of a later fire time.
        """
        if not self._covers or not through < covered_until or covered_until < self._start:
            return self.next_interval(max(through, covered_until))
        return self.at(covered_until)

    def newest_due(self, now: datetime, count: int) -> datetime | None:
        """The logical date of the oldest of the newest `count` runs that are due; None when there are fewer."""
        now = _instant(now, "now")
        last = now if not self._covers else self._fires.latest(now)
        if last is None:
            return None
        dates = self._fires.newest(min(last - TICK if self._covers else last, self._end - TICK), count)
        return dates[0] if len(dates) == count and dates[0] >= self._start else None

    def before(self, logical_date: datetime) -> datetime | None:
        """The logical date right before another one."""
        return self._fires.latest(logical_date - TICK)

    def count(self, first: datetime, last: datetime, most: int) -> int:
        """How many logical dates there are from `first` to `last`; where counting takes long, at most `most` + 1."""
        return self._fires.count(first, last, most)

    def intervals(self, after: datetime | None, count: int) -> list[Interval]:
        """The first `count` runs whose logical date is later than `after`; from the first run when it is None."""
        return list(islice(self._upcoming(after), count))

    def within(self, first: datetime, last: datetime) -> Iterator[Interval]:
        """The runs with a logical date from `first` to `last`, both included, in one walk."""
        upcoming = self._upcoming(_instant(first, "first logical date") - TICK)
        return takewhile(lambda interval: interval.logical_date <= last, upcoming)

    def starting_after(self, instant: datetime, count: int) -> list[Interval]:
        """The first `count` runs that start later than an instant."""
        instant = _instant(instant, "after")
        if not self._covers:
            return self.intervals(instant, count)
        under_way = self._fires.latest(instant)  # its interval is the first that ends later
        return self.intervals(under_way - TICK if under_way else None, count)

    def latest_due(self, now: datetime, after_logical: datetime | None) -> Interval | None:
        """The newest run that is due at `now` and later than a logical date; None when there is none.

        What lies between is left out: this is the step of a schedule without catchup.
        """
        due = self._newest(_instant(now, "now"))
        if due is None or due.logical_date < self._start:
            return None
        if after_logical is not None and due.logical_date <= after_logical:
            return None
        return due

    def by_hand(self, logical_date: datetime) -> Interval:
        """The run that somebody asks for: of that logical date when the schedule has it, else the newest complete one.

        Before the first run is complete it is one that covers no time.
        """
        logical_date = _instant(logical_date, "logical date")
        following = self.next_interval(logical_date - TICK)
        if following is not None and following.logical_date == logical_date:
            return following
        complete = self.latest_due(logical_date, None)
        if complete is None:
            return Interval.exact(logical_date)
        return Interval(
            logical_date, complete.data_interval_start, complete.data_interval_end, complete.data_interval_end
        )

    def _upcoming(self, after_logical: datetime | None) -> Iterator[Interval]:
        after = self._start - TICK
        if after_logical is not None:
            after = max(after, _instant(after_logical, "logical date"))
        fires = self._fires.after(after)
        if not self._covers:
            yield from (Interval.exact(fire) for fire in takewhile(lambda fire: fire < self._end, fires))
            return
        start = next(fires, None)
        for end in fires:
            if start is None or start >= self._end:
                return
            yield Interval.between(start, end)
            start = end

    def _newest(self, now: datetime) -> Interval | None:
        if not self._covers:
            fire = self._fires.latest(min(now, self._end - TICK))
            return Interval.exact(fire) if fire else None
        ended = self._fires.latest(now)  # the end of the newest complete interval
        begun = self._fires.latest(min(ended, self._end) - TICK) if ended else None
        return Interval.between(begun, next(self._fires.after(begun))) if begun else None


def run_by_hand(
    schedule: ScheduleSpec | None, start: datetime | None, end: datetime | None, logical_date: datetime
) -> Interval:
    """The run that somebody starts for a logical date, as `Timetable.by_hand`; without a schedule it covers no time."""
    if schedule is None or (is_once(schedule.cron) and start is None):
        return Interval.exact(_instant(logical_date, "logical date"))
    return Timetable.of(schedule, start or NO_START, end).by_hand(logical_date)


def trial_run(spec: DagSpec, logical_date: datetime | None, now: datetime) -> Interval:
    """The run of a DAG that is tried out: of a logical date as `run_by_hand`, else the newest complete one, or now.

    Raises:
        UsageError: No schedule reaches as far as the logical date.
    """
    if logical_date is not None:
        if not FIRST <= logical_date < LAST:
            raise UsageError(
                f"The logical date {logical_date.isoformat()} is out of range: "
                f"it is in the years from {FIRST.year} to {LAST.year - 1}."
            )
        return run_by_hand(spec.schedule, spec.start_date, spec.end_date, logical_date)
    if spec.schedule is None or spec.schedule.datasets or spec.start_date is None:
        return Interval.exact(now)
    return Timetable.of(spec.schedule, spec.start_date, spec.end_date).latest_due(now, None) or Interval.exact(now)


def _instant(moment: datetime, what: str) -> datetime:
    """An aware datetime as UTC, kept within the calendar. Raises ValueError for a naive one."""
    if moment.tzinfo is None:
        raise ValueError(f"The {what} `{moment.isoformat()}` has no time zone; add one, such as +00:00.")
    if moment.year < FIRST.year:
        return FIRST
    return LAST if moment.year >= LAST.year else moment.astimezone(UTC)

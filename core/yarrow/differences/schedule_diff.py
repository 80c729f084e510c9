"""What differs between the schedules of two versions of a DAG, down to the moments at which runs start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from yarrow.differences.changes import Change, changes
from yarrow.language.spec import DagSpec
from yarrow.schedules.cron import is_once
from yarrow.schedules.fires import TICK
from yarrow.schedules.upcoming import Progress, change_of_schedule, cut_catchup, timetable_of, upcoming
from yarrow.schedules.words import describe_schedule, moment_text
from yarrow.timetable import NO_START, Interval, Timetable, has_moments

SCHEDULE_FIELDS: Final = ("schedule", "timezone", "start_date", "end_date", "catchup", "max_catchup_runs")
"""The fields of a DAG that say when it runs."""

COUNT: Final = 5
"""How many coming runs of each version are compared."""

_COUNTED: Final = 1000
"""How many missed runs are counted one by one; beyond that it is "more than"."""


@dataclass(frozen=True, slots=True)
class Fire:
    """A moment at which a run starts, in one version or in both."""

    run_after: datetime
    old: Interval | None  # the run of the old version that starts then
    new: Interval | None

    @property
    def kind(self) -> str:
        """same, changed (another data interval), added or removed."""
        if self.old == self.new:
            return "same"
        return "changed" if self.old and self.new else "added" if self.new else "removed"

    def to_json(self) -> dict[str, Any]:
        """`{run_after, kind, old, new}`; `old` and `new` are `{data_interval_start, data_interval_end}` or null."""
        return {
            "run_after": self.run_after.isoformat(),
            "kind": self.kind,
            "old": _plain(self.old),
            "new": _plain(self.new),
        }


@dataclass(frozen=True, slots=True)
class ScheduleDiff:
    """What differs about when a DAG runs."""

    changes: Sequence[Change]
    old_words: str
    new_words: str
    fires: Sequence[Fire] = ()  # the next ones of both versions; none where time does not say when it runs
    consequences: Sequence[str] = ()  # sentences: what it does to the next run, and to missed ones

    @property
    def moved(self) -> bool:
        """Whether coming runs start at other moments or cover other times."""
        return any(fire.kind != "same" for fire in self.fires)

    def to_json(self) -> dict[str, Any]:
        """`{changes, words: {old, new}, fires, consequences}`."""
        return {
            "changes": [change.to_json() for change in self.changes],
            "words": {"old": self.old_words, "new": self.new_words},
            "fires": [fire.to_json() for fire in self.fires],
            "consequences": list(self.consequences),
        }


def schedule_diff(old: DagSpec, new: DagSpec, now: datetime, progress: Progress | None) -> ScheduleDiff | None:
    """What differs about when a DAG runs, as `dag_diff`; None: nothing."""
    found = tuple(_changes(old, new))
    if not found:
        return None
    fires = tuple(_fires(old, new, now))
    sentences = list(_consequences(old, new, now, progress)) if progress is not None else []
    if not fires and (_timetable(old) or _timetable(new)):
        sentences.insert(0, f"No run starts after {moment_text(now.replace(microsecond=0))} in either version.")
    words = describe_schedule(old.schedule), describe_schedule(new.schedule)
    return ScheduleDiff(found, *words, fires, tuple(sentences))


def _changes(old: DagSpec, new: DagSpec) -> Iterator[Change]:
    before, after = old.canonical(), new.canonical()
    for name in SCHEDULE_FIELDS:
        one, other = (
            {name: getattr(spec, name), **canonical}[name] for spec, canonical in ((old, before), (new, after))
        )
        for change in changes(name, one, other):
            if change.path == "schedule.timezone" and old.timezone != new.timezone:
                continue  # it is that of the DAG
            yield change


def _timetable(spec: DagSpec) -> Timetable | None:
    """The timetable of a DAG, if time says when it runs."""
    if spec.schedule is None or not has_moments(spec.schedule):
        return None
    if spec.start_date is None and is_once(spec.schedule.cron):
        return None
    return Timetable.of(spec.schedule, spec.start_date or NO_START, spec.end_date)


def _fires(old: DagSpec, new: DagSpec, now: datetime) -> Iterator[Fire]:
    tables = _timetable(old), _timetable(new)
    moments = sorted({one.run_after for table in tables if table for one in table.starting_after(now, COUNT)})
    for moment in moments:
        yield Fire(moment, *(_starting_at(table, moment) for table in tables))


def _starting_at(table: Timetable | None, moment: datetime) -> Interval | None:
    following = next(iter(table.starting_after(moment - TICK, 1)), None) if table is not None else None
    return following if following is not None and following.run_after == moment else None


def _consequences(old: DagSpec, new: DagSpec, now: datetime, progress: Progress) -> Iterator[str]:
    sentence = change_of_schedule(old, new, progress, now)
    if sentence is not None:
        yield sentence
    before, after = (_missed(spec, progress, now) for spec in (old, new))
    if after is not None and after != before:
        yield after


def _missed(spec: DagSpec, progress: Progress, now: datetime) -> str | None:
    """Which runs are made at once for what was missed; None when there is at most one."""
    if spec.schedule is None or not has_moments(spec.schedule) or not spec.catchup:
        return None
    following = upcoming(spec, progress, now)
    if following is None or following.run_after > now:
        return None
    cut = cut_catchup(spec, progress.created_at, following.logical_date, now)
    first = following if cut is None else cut.first
    table = timetable_of(spec, progress.created_at)
    last = table.latest_due(now, None)
    if last is None or last.logical_date <= first.logical_date:
        return None
    count = table.count(first.logical_date, last.logical_date, _COUNTED)
    number = f"More than {_COUNTED:,}" if count > _COUNTED else f"{count:,}"
    span = f"{moment_text(first.logical_date)} to {moment_text(last.logical_date)}"
    left_out = f" {cut.reason}" if cut is not None else ""
    return (
        f"`catchup` makes up for what was missed: {number} runs are due at once, of the logical dates {span}.{left_out}"
    )


def _plain(interval: Interval | None) -> dict[str, str] | None:
    if interval is None:
        return None
    return {
        "data_interval_start": interval.data_interval_start.isoformat(),
        "data_interval_end": interval.data_interval_end.isoformat(),
    }

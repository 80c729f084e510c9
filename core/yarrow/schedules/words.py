"""Says in words what a schedule means, and what a change of the clocks does to one of its runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime

from yarrow.language.durations import format_duration
from yarrow.language.spec import ScheduleSpec
from yarrow.schedules.cron import is_continuous, is_once, parse_cron
from yarrow.schedules.walk import LAST, Cron

LONGEST_TEXT = 250
"""Characters of a schedule that listings keep."""

_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_NTH = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", LAST: "last"}
_FEW = 6
"""Times of the day that are named one by one."""


def schedule_text(schedule: ScheduleSpec | None) -> str | None:
    """The schedule as a person would write it, short enough for a listing."""
    if schedule is None:
        return None
    if schedule.datasets:
        text = (
            f"{schedule.mode} of {', '.join(schedule.datasets)}"
            if len(schedule.datasets) > 1
            else (f"dataset {schedule.datasets[0]}")
        )
    elif schedule.every is not None:
        text = f"every {format_duration(schedule.every)}"
    else:
        text = ", ".join(schedule.crons)
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"


def describe_schedule(schedule: ScheduleSpec | None) -> str:
    """A sentence that says when runs are due and what each one covers. Raises ValueError as `check_schedule`."""
    if schedule is None:
        return "Only by hand: there is no schedule."
    if schedule.datasets:
        return _datasets_words(schedule)
    if is_continuous(schedule.cron):
        return "As soon as the run before has ended; each run covers the time since the end of that one's interval."
    if is_once(schedule.cron):
        return "Once, at the start date; without one, when the DAG is first seen."
    if schedule.every is not None:
        when = f"every {_duration_words(schedule.every)} from the start date on, whatever the clocks do"
    else:
        crons = [parse_cron(expr) for expr in dict.fromkeys(schedule.crons)]
        when = f"{', or '.join(_cron_words(cron) for cron in crons)}; {_zone_words(schedule.timezone)}"
        when += "".join(f"; {words}" for words in _policy_words(schedule))
    covers = {
        "interval": "each run covers the time up to the next one, and starts when that has passed",
        "trigger": "each run starts at that moment and covers no time",
    }[schedule.semantics]
    return f"{when[0].upper()}{when[1:]}; {covers}."


def moment_text(instant: datetime) -> str:
    """An instant in UTC, for sentences."""
    return f"{instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='auto')}Z"


def join_words(words: Sequence[str], last: str = "and") -> str:
    """The words as a list in a sentence."""
    return f" {last} ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _datasets_words(schedule: ScheduleSpec) -> str:
    names = [f"`{name}`" for name in schedule.datasets]
    if len(names) == 1:
        when = f"When {names[0]} has been published"
    elif schedule.mode == "any":
        when = f"When {join_words(names, 'or')} has been published"
    else:
        when = f"When each of {join_words(names)} has been published"
    return f"{when} since the run before; each run is for all that was published since then."


def _duration_words(seconds: float) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds % size == 0:
            number = int(seconds // size)
            return name if number == 1 else f"{number} {name}s"
    return f"{seconds:g} seconds"


def _zone_words(timezone: str) -> str:
    area, _, place = timezone.rpartition("/")
    return f"{place.replace('_', ' ')} time" if area and area != "Etc" else timezone


def _policy_words(schedule: ScheduleSpec) -> Iterable[str]:
    if schedule.gap == "skip":
        yield "a time that the clocks skip is left out"
    if schedule.fold != "second":
        times = {"first": "the first time", "both": "both times"}[schedule.fold]
        yield f"a time that comes twice counts {times}"


def _cron_words(cron: Cron) -> str:
    times, days = _time_words(cron), _day_words(cron)
    parts = [times, days or ("every day" if times.startswith("at ") and not cron.every_hour else "")]
    if len(cron.months) < 12:
        parts.append(f"in {_spans([_MONTHS[month - 1] for month in sorted(cron.months)], _MONTHS)}")
    return " ".join(part for part in parts if part)


def _time_words(cron: Cron) -> str:
    """When on such a day: "at 06:00 and 18:30", "every 15 minutes from 09:00 to 17:45"."""
    minutes, hours = cron.minutes, cron.hours
    if not cron.every_hour and len(minutes) * len(hours) <= _FEW:
        return f"at {join_words([f'{hour:02}:{minute:02}' for hour in hours for minute in minutes])}"
    step = _step(minutes, 60)
    if cron.every_hour:
        if step and minutes[0] == 0:
            return "every minute" if step == 1 else f"every {step} minutes"
        if minutes == (0,):
            return "every hour"
        return f"{_minute_words(minutes)} past every hour"
    span = f"from {hours[0]:02}:{minutes[0]:02} to {hours[-1]:02}:{minutes[-1]:02}"
    if hours == tuple(range(hours[0], hours[-1] + 1)):
        if step:
            return f"every minute {span}" if step == 1 else f"every {step} minutes {span}"
        return f"every hour {span}" if len(minutes) == 1 else f"{_minute_words(minutes)} past every hour {span}"
    if len(minutes) == 1 and (step := _step(hours, 24)):
        return f"every {step} hours from {hours[0]:02}:{minutes[0]:02} on"
    every = f"every {step} minutes" if step > 1 else "every minute"
    start = f"{every} in" if step and minutes[0] == 0 else f"{_minute_words(minutes)} past"
    return f"{start} the hours {join_words([f'{hour:02}' for hour in hours])}"


def _minute_words(minutes: Sequence[int]) -> str:
    plural = "minute" if minutes == (1,) else "minutes"
    return f"at {join_words([str(minute) for minute in minutes])} {plural}"


def _step(values: Sequence[int], size: int) -> int:
    """The distance between the values when they go evenly round; 0 when they don't."""
    if len(values) < 2 or size % len(values):
        return 0
    step = size // len(values)
    return step if tuple(values) == tuple(range(values[0], size, step)) and values[0] < step else 0


def _day_words(cron: Cron) -> str:
    """On which days, "" for every one that the months have."""
    of_month, of_week = _month_day_words(cron), _weekday_words(cron)
    if of_month and of_week:
        return f"on {of_month} and also on {of_week} (either is enough)"
    if of_month or of_week:
        return f"on {of_month or of_week}"
    return ""


def _month_day_words(cron: Cron) -> str:
    if cron.days is None:
        return ""
    parts = []
    if cron.days:
        days = _spans([str(day) for day in sorted(cron.days)], [str(day) for day in range(1, 32)])
        parts.append(f"{'day' if len(cron.days) == 1 else 'days'} {days}")
    if cron.last_day:
        parts.append("the last day")
    return f"{join_words(parts)} of the month"


def _weekday_words(cron: Cron) -> str:
    if cron.weekdays is None:
        return ""
    parts = []
    if cron.weekdays:
        week = [*_WEEKDAYS[1:], _WEEKDAYS[0]]  # people begin it with Monday
        named = [f"{day}s" for day in week if _WEEKDAYS.index(day) in cron.weekdays]
        parts.append(_spans(named, [f"{day}s" for day in week]))
    if cron.nth_weekdays:
        nth = sorted(cron.nth_weekdays, key=lambda pair: (pair[1] == LAST, pair[1], pair[0]))
        parts.append(f"{join_words([f'the {_NTH[number]} {_WEEKDAYS[day]}' for day, number in nth])} of the month")
    return join_words(parts)


def _spans(words: Collection[str], everything: Sequence[str]) -> str:
    """The words, three or more in a row as "first to last"."""
    spans: list[list[str]] = []
    places = [everything.index(word) for word in words]
    for place in places:
        if spans and everything.index(spans[-1][-1]) == place - 1:
            spans[-1].append(everything[place])
        else:
            spans.append([everything[place]])
    parts: list[str] = []
    for span in spans:
        parts += [f"{span[0]} to {span[-1]}"] if len(span) > 2 else span
    return join_words(parts)

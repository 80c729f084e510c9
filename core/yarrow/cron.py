"""Reads cron expressions strictly, and walks through the local times that they name.

A field is read here, into the plain set of its values, and croniter only ever sees such sets: it reads `5-5` as
"every", takes a sixth field for seconds and makes times up at random for `R`. It walks on naive local time; what a
local time means on the clock of a zone is `yarrow.dst`'s affair.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache

from croniter import croniter

PRESETS: Mapping[str, str] = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

LONGEST_EXPRESSION = 100

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LONGEST_MONTHS = {month: calendar.monthrange(2024, month)[1] for month in range(1, 13)}  # a leap year

_ITEM = re.compile(r"(?P<low>\*|[0-9]+|[a-z]+)(?:-(?P<high>[0-9]+|[a-z]+))?(?:/(?P<step>[0-9]+))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Field:
    """One of the five fields: its name, its bounds and the names that stand for numbers."""

    label: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.high - self.low + 1


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, start=1)}),
    _Field("day of week", 0, 6, {name: number for number, name in enumerate(_WEEKDAYS)}),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression, read: the values of each field. Days of the week count from Sunday, 0."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int] | None  # None: any. When both kinds of day are given, either may match
    months: frozenset[int]
    weekdays: frozenset[int] | None

    @property
    def every_hour(self) -> bool:
        """Whether it names no hour, so that every hour that really passes counts."""
        return len(self.hours) == 24

    @property
    def canonical(self) -> str:
        """The same expression in plain lists of numbers. Some date fits it."""
        columns = (self.minutes, self.hours, self.days, self.months, self.weekdays)
        return " ".join(_column(values, form) for values, form in zip(columns, _FIELDS, strict=True))

    def forward(self, after: datetime) -> Iterator[datetime]:
        """Yields the naive local times later than the naive `after`, in order. They are at most 8 years apart."""
        walk = croniter(self.canonical, after.replace(second=0, microsecond=0))
        while True:
            yield walk.get_next(datetime)

    def back(self, before: datetime, count: int) -> list[datetime]:
        """Returns the newest `count` naive local times that are not later than the naive `before`, newest first."""
        walk = croniter(self.canonical, before.replace(second=30, microsecond=0))
        return [walk.get_prev(datetime) for _ in range(count)]


def _column(values: frozenset[int] | None, form: _Field) -> str:
    if values is None or len(values) == form.size:
        return "*"
    return ",".join(map(str, sorted(values)))


def is_once(expr: str | tuple[str, ...] | None) -> bool:
    """Whether an expression is the preset that names no times but the start date."""
    return isinstance(expr, str) and expr.strip().lower() == "@once"


@lru_cache(maxsize=1024)
def parse_cron(expr: str) -> Cron:
    """Reads an expression of five fields or a preset. Raises ValueError with a sentence."""
    columns = _columns(expr)
    values = []
    for text, form in zip(columns, _FIELDS, strict=True):
        try:
            values.append(_parse_field(text.lower(), form))
        except ValueError as error:
            raise ValueError(f"The cron expression `{expr}` is not valid: {error}") from None
    minutes, hours, days, months, weekdays = values
    cron = Cron(
        minutes=minutes or frozenset(range(60)),
        hours=hours or frozenset(range(24)),
        days=days,
        months=months or frozenset(_LONGEST_MONTHS),
        weekdays=weekdays,
    )
    return _simplify_days(cron, expr)


def cron_pattern() -> str:
    """A regular expression, for editors, of what `parse_cron` reads, and of `@once`. It lets a little more pass."""
    presets = "|".join(_any_case(name) for name in (*PRESETS, "@once"))
    columns = []
    for form in _FIELDS:
        highest = 7 if form.label == "day of week" else form.high
        numbers = "|".join(str(number) for number in range(form.low, highest + 1))
        value = f"(?:{'|'.join([f'0*(?:{numbers})', *map(_any_case, form.names)])})"
        item = rf"(?:\*|{value}(?:-{value})?)(?:/0*[1-9][0-9]?)?"
        columns.append(f"{item}(?:,{item})*")
    five = "[ \\t]+".join(columns)
    return rf"^\s*(?:{presets}|{five})\s*$"


def _any_case(word: str) -> str:
    return "".join(f"[{letter.upper()}{letter}]" if letter.isalpha() else letter for letter in word)


def _columns(expr: str) -> list[str]:
    """Splits an expression into its five fields, a preset into those that it stands for."""
    if len(expr) > LONGEST_EXPRESSION:
        raise ValueError(f"A cron expression has at most {LONGEST_EXPRESSION} characters; this one has {len(expr)}.")
    text = expr.strip(" \t\r\n")
    if text.startswith("@"):
        return _preset(text.lower()).split()
    columns = re.split(r"[ \t]+", text) if text else []
    if len(columns) != 5:
        count = {0: "none", 1: "one"}.get(len(columns), str(len(columns)))
        extra = " Seconds and years are not supported." if len(columns) in (6, 7) else ""
        raise ValueError(
            f"A cron expression has five fields (minute, hour, day of month, month, day of week); "
            f"`{expr}` has {count}.{extra}"
        )
    return columns


def _preset(name: str) -> str:
    try:
        return PRESETS[name]
    except KeyError:
        pass
    if name == "@once":
        raise ValueError("`@once` has no fire times: it means one run, at the start date.")
    raise ValueError(f"There is no preset `{name}`; there are {', '.join(PRESETS)} and @once.")


def _parse_field(text: str, form: _Field) -> frozenset[int] | None:
    """The values of a field; None for `*`."""
    values: set[int] = set()
    unrestricted = False
    for item in text.split(","):
        if item == "*":
            unrestricted = True
        else:
            values.update(_parse_item(item, form))
    return None if unrestricted else frozenset(values)


def _parse_item(item: str, form: _Field) -> list[int]:
    """The values of one item of a list: a value, a range or either with a step."""
    match = _ITEM.fullmatch(item)
    if match is None or (match["low"] == "*" and match["high"]):
        raise ValueError(_unreadable(item, form))
    step = _step(match["step"], form)
    if match["low"] == "*":
        return list(range(form.low, form.high + 1, step))
    low = _value(match["low"], form)
    if match["high"]:
        return _span(low, _value(match["high"], form), step, form)
    return _span(low, form.high if match["step"] else low, step, form)


def _step(text: str | None, form: _Field) -> int:
    """The number after the slash; 1 when there is none."""
    if text is None:
        return 1
    step = int(text)
    if not 1 <= step <= form.size:
        hint = " A longer rhythm is written as `{every: 90m}`." if step and form.label in ("minute", "hour") else ""
        raise ValueError(f"a step in the {form.label} field is between 1 and {form.size}, not {text}.{hint}")
    return step


def _span(low: int, high: int, step: int, form: _Field) -> list[int]:
    """The values from `low` to `high`; a range such as `fri-mon` or `22-2` goes on past the end of its field."""
    if low > form.high:  # Sunday as 7, at the start of a range or alone
        low, high = low - form.size, high % form.size
    if high < low:
        high += form.size
    return [form.low + (value - form.low) % form.size for value in range(low, high + 1, step)]


def _value(text: str, form: _Field) -> int:
    """A number or a name of the field."""
    if not text.isdigit():
        if text not in form.names:
            raise ValueError(_unreadable(text, form))
        return form.names[text]
    value = int(text)
    highest = 7 if form.label == "day of week" else form.high
    if not form.low <= value <= highest:
        raise ValueError(f"`{text}` is not between {form.low} and {highest} in the {form.label} field.")
    return value


_EXTENSIONS = {
    "h": "`H` (a hashed value) is not supported, write the number",
    "r": "`R` (a random value) is not supported, write the number",
    "?": "`?` is not supported, write `*`",
    "#": "`#` (the nth weekday of a month) is not supported",
    "l": "`L` (the last) is not supported",
    "w": "`W` (the nearest weekday) is not supported",
}


def _unreadable(item: str, form: _Field) -> str:
    for mark, sentence in _EXTENSIONS.items():
        if mark in item and not re.sub(rf"[0-9()/#?-]|{re.escape(mark)}", "", item):
            return f"in the {form.label} field, {sentence}."
    return (
        f"`{item}` can't be read in the {form.label} field." if item else f"the {form.label} field has an empty item."
    )


def _simplify_days(cron: Cron, expr: str) -> Cron:
    """Drops what can't matter from the two kinds of day. Raises ValueError when no date is left."""
    if cron.days is None:
        return cron
    if cron.weekdays is not None and (len(cron.days) == 31 or len(cron.weekdays) == 7):
        return replace(cron, days=None, weekdays=None)
    if min(cron.days) <= max(_LONGEST_MONTHS[month] for month in cron.months):
        return cron
    if cron.weekdays is not None:
        return replace(cron, days=None)
    raise ValueError(f"The cron expression `{expr}` never fires: none of its months has such a day.")

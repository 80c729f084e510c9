"""Reads cron expressions strictly: what has no one meaning, such as seconds, `R` or `W`, is refused with a sentence."""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from yarrow.schedules.walk import FIELDS, LAST, Cron, Field

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

_LONGEST_MONTHS = {month: calendar.monthrange(2024, month)[1] for month in range(1, 13)}  # a leap year

_TIMELESS: Mapping[str, str] = {
    "@once": "one run, at the start date",
    "@continuous": "a run as soon as the one before has ended",
}
_LAST_DAY = (LAST, LAST)

_NTH = re.compile(r"(?P<day>[0-9]+|[a-z]+?)(?:l|#(?P<nth>[0-9]+))", re.ASCII)
_ITEM = re.compile(r"(?P<low>\*|[0-9]+|[a-z]+)(?:-(?P<high>[0-9]+|[a-z]+))?(?:/(?P<step>[0-9]+))?", re.ASCII)


def is_once(expr: str | tuple[str, ...] | None) -> bool:
    """Whether an expression is the preset that names no times but the start date."""
    return isinstance(expr, str) and expr.strip().lower() == "@once"


def is_continuous(expr: str | tuple[str, ...] | None) -> bool:
    """Whether an expression is the preset that names no times: a run starts when the one before has ended."""
    return isinstance(expr, str) and expr.strip().lower() == "@continuous"


@lru_cache(maxsize=1024)
def parse_cron(expr: str) -> Cron:
    """Reads an expression of five fields or a preset. Raises ValueError with a sentence."""
    columns = _columns(expr)
    values: list[frozenset[int] | None] = []
    marked: set[tuple[int, int]] = set()
    for text, form in zip(columns, FIELDS, strict=True):
        try:
            values.append(_parse_field(text.lower(), form, marked))
        except ValueError as error:
            raise ValueError(f"The cron expression `{expr}` is not valid: {error}") from None
    minutes, hours, days, months, weekdays = values
    cron = Cron(
        minutes=tuple(range(60)) if minutes is None else tuple(sorted(minutes)),
        hours=tuple(range(24)) if hours is None else tuple(sorted(hours)),
        days=days,
        months=frozenset(_LONGEST_MONTHS) if months is None else months,
        weekdays=weekdays,
        last_day=days is not None and _LAST_DAY in marked,
        nth_weekdays=frozenset() if weekdays is None else frozenset(marked - {_LAST_DAY}),
    )
    return _simplify_days(cron, expr)


def cron_pattern() -> str:
    """A regular expression, for editors, of what a schedule may say. It lets a little more pass than `parse_cron`."""
    presets = "|".join(_any_case(name) for name in (*PRESETS, *_TIMELESS))
    columns = []
    for form in FIELDS:
        highest = 7 if form.label == "day of week" else form.high
        numbers = "|".join(str(number) for number in range(form.low, highest + 1))
        value = f"(?:{'|'.join([f'0*(?:{numbers})', *map(_any_case, form.names)])})"
        item = rf"(?:\*|{value}(?:-{value})?)(?:/0*[1-9][0-9]?)?"
        if form.label == "day of month":
            item = f"(?:{item}|[Ll])"
        elif form.label == "day of week":
            item = f"(?:{item}|{value}(?:#[1-5]|[Ll]))"
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
    if name in _TIMELESS:
        raise ValueError(f"`{name}` has no fire times: it means {_TIMELESS[name]}. It stands alone.")
    raise ValueError(f"There is no preset `{name}`; there are {', '.join([*PRESETS, *_TIMELESS])}.")


def _parse_field(text: str, form: Field, marked: set[tuple[int, int]]) -> frozenset[int] | None:
    """The values of a field; None for `*`. Its items with `L` and `#` are put into `marked`."""
    values: set[int] = set()
    unrestricted = False
    for item in text.split(","):
        if item == "*":
            unrestricted = True
        elif (mark := _parse_mark(item, form)) is not None:
            marked.add(mark)
        else:
            values.update(_parse_item(item, form))
    return None if unrestricted else frozenset(values)


def _parse_mark(item: str, form: Field) -> tuple[int, int] | None:
    """What `L`, `5L` and `5#3` stand for: the last day, or a weekday with its number; None for other items."""
    if form.label == "day of month":
        return _LAST_DAY if item == "l" else None
    match = _NTH.fullmatch(item) if form.label == "day of week" else None
    if match is None:
        return None
    if match["nth"] is not None and not 1 <= int(match["nth"]) <= 5:
        raise ValueError(f"`#` is followed by 1 to 5, not by {match['nth']}; the last one is `{match['day']}L`.")
    return _value(match["day"], form) % 7, int(match["nth"]) if match["nth"] is not None else LAST


def _parse_item(item: str, form: Field) -> list[int]:
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


def _step(text: str | None, form: Field) -> int:
    """The number after the slash; 1 when there is none."""
    if text is None:
        return 1
    step = int(text)
    if not 1 <= step <= form.size:
        hint = " A longer rhythm is written as `{every: 90m}`." if step and form.label in ("minute", "hour") else ""
        raise ValueError(f"a step in the {form.label} field is between 1 and {form.size}, not {text}.{hint}")
    return step


def _span(low: int, high: int, step: int, form: Field) -> list[int]:
    """The values from `low` to `high`; a range such as `fri-mon` or `22-2` goes on past the end of its field."""
    if low > form.high:  # Sunday as 7, at the start of a range or alone
        low, high = low - form.size, high % form.size
    if high < low:
        high += form.size
    return [form.low + (value - form.low) % form.size for value in range(low, high + 1, step)]


def _value(text: str, form: Field) -> int:
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


_MARKS = {
    "day of month": "`L` stands alone there: the last day of the month.",
    "day of week": "The last Friday of a month is `5L`, the third is `5#3`.",
}
_NO_MARKS = "`L` and `#` belong to the days."
_EXTENSIONS = {
    "h": "`H` (a hashed value) is not supported, write the number",
    "r": "`R` (a random value) is not supported, write the number",
    "?": "`?` is not supported, write `*`",
    "w": "`W` (the nearest weekday) is not supported",
}


def _unreadable(item: str, form: Field) -> str:
    for mark, sentence in _EXTENSIONS.items():
        if mark in item and not re.sub(rf"[0-9()/#?-]|{re.escape(mark)}", "", item):
            return f"in the {form.label} field, {sentence}."
    if re.fullmatch(r"[0-9a-z-]*(?:l|#)[0-9l#-]*", item):
        return f"`{item}` can't be read in the {form.label} field. {_MARKS.get(form.label, _NO_MARKS)}"
    return (
        f"`{item}` can't be read in the {form.label} field." if item else f"the {form.label} field has an empty item."
    )


def _simplify_days(cron: Cron, expr: str) -> Cron:
    """Drops what can't matter from the two kinds of day. Raises ValueError when no date is left."""
    if len(cron.days or ()) == 31 or len(cron.weekdays or ()) == 7:
        return replace(cron, days=None, weekdays=None, last_day=False, nth_weekdays=frozenset())
    if cron.days is None or cron.last_day:
        return cron
    if min(cron.days) <= max(_LONGEST_MONTHS[month] for month in cron.months):
        return cron
    if cron.weekdays is not None:
        return replace(cron, days=None)
    raise ValueError(f"The cron expression `{expr}` never fires: none of its months has such a day.")

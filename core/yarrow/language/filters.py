"""The filters and macros of the template language: a fixed list, over plain data."""

from __future__ import annotations

import inspect
import json
import posixpath
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from yarrow.language.values import (
    MAX_TEXT,
    ValueFault,
    bounded,
    bounded_number,
    kind,
    number,
    plain,
    sequence,
    text,
    to_json,
    to_text,
)

_ABSENT: Final = object()


def _default(value: Any, default: Any = "", empty_too: Any = False) -> Any:
    """The default when the path does not exist; with `true` also when the value is null, false or empty."""
    return default if empty_too and not value else value


def _int(value: Any, default: Any = _ABSENT) -> Any:
    """A whole number; a fraction is cut off."""
    try:
        if isinstance(value, str):
            if len(value) > 40:
                raise ValueError
            value = float(value) if any(mark in value for mark in ".eE") else int(value)
        return bounded_number(int(number(value, "`int`")))
    except (ValueError, OverflowError, ValueFault):
        if default is not _ABSENT:
            return default
        raise ValueFault(f"`int` can't read {_shown(value)} as a number.") from None


def _float(value: Any, default: Any = _ABSENT) -> Any:
    """A number with a fraction."""
    try:
        if isinstance(value, str):
            value = float(value)
        return bounded_number(float(number(value, "`float`")))
    except (ValueError, OverflowError, ValueFault):
        if default is not _ABSENT:
            return default
        raise ValueFault(f"`float` can't read {_shown(value)} as a number.") from None


def _round(value: Any, digits: Any = 0) -> Any:
    """Rounded to so many digits after the point; a whole number when there are none."""
    amount = number(value, "`round`")
    places = number(digits, "The digits of `round`")
    if not isinstance(places, int) or abs(places) > 100:
        raise ValueFault("The digits of `round` are a whole number up to 100.")
    return round(amount) if places == 0 else round(amount, places)


def _length(value: Any) -> int:
    """How many characters, items or keys there are."""
    if isinstance(value, str | list | tuple | Mapping):
        return len(value)
    raise ValueFault(f"`length` needs text, a list or a mapping, not {kind(value)}.")


def _replace(value: Any, old: Any, new: Any) -> str:
    """Every `old` in a text replaced by `new`."""
    before, search, insert = text(value, "`replace`"), text(old, "`replace`"), text(new, "`replace`")
    if len(before) + before.count(search) * len(insert) > MAX_TEXT:
        raise ValueFault(f"The text is longer than {MAX_TEXT:,} characters.")
    return before.replace(search, insert)


def _join(value: Any, separator: Any = "") -> str:
    """The items of a list as one text."""
    between = text(separator, "`join`")
    parts: list[str] = []
    size = 0
    for item in sequence(value, "`join`"):
        parts.append(to_text(item))
        size += len(parts[-1]) + len(between)
        if size > MAX_TEXT + len(between):
            raise ValueFault(f"The text is longer than {MAX_TEXT:,} characters.")
    return between.join(parts)


def _first(value: Any) -> Any:
    """The first item of a list or character of a text."""
    return _end(value, 0, "`first`")


def _last(value: Any) -> Any:
    """The last item of a list or character of a text."""
    return _end(value, -1, "`last`")


def _end(value: Any, place: int, what: str) -> Any:
    items = value if isinstance(value, str) else sequence(value, what)
    if not items:
        raise ValueFault(f"{what} of something empty.")
    return items[place]


def _min(value: Any) -> Any:
    """The smallest item of a list."""
    return _end(_ordered(value, "`min`"), 0, "`min`")


def _max(value: Any) -> Any:
    """The largest item of a list."""
    return _end(_ordered(value, "`max`"), -1, "`max`")


def _sum(value: Any) -> Any:
    """The sum of a list of numbers."""
    return bounded_number(sum(number(item, "`sum`") for item in sequence(value, "`sum`")))


def _sort(value: Any, reverse: Any = False) -> list[Any]:
    """A list of numbers or of texts in order; with `true` in descending order."""
    ordered = _ordered(value, "`sort`")
    return ordered[::-1] if reverse else ordered


def _ordered(value: Any, what: str) -> list[Any]:
    items = sequence(value, what)
    kinds = {kind(item) for item in items}
    if len(kinds) > 1 or not kinds <= {"a number", "text", "a date"}:
        raise ValueFault(f"{what} needs a list of numbers or of texts, not of {' and '.join(sorted(kinds))}.")
    return sorted(items)


def _unique(value: Any) -> list[Any]:
    """A list without repetitions, in the order of the first of each."""
    found: dict[str, Any] = {}
    for item in sequence(value, "`unique`"):
        found.setdefault(json.dumps(plain(item), sort_keys=True), item)
    return list(found.values())


def _fromjson(value: Any) -> Any:
    """The data that a JSON text holds."""
    source = bounded(text(value, "`fromjson`"))
    try:
        return json.loads(source, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueFault(f"`fromjson`: the text is not JSON: {error}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _list(value: Any) -> list[Any]:
    """The items of a list, the keys of a mapping or the characters of a text."""
    if isinstance(value, str | list | tuple | Mapping):
        return bounded(list(value))  # type: ignore[no-any-return] # the same list
    raise ValueFault(f"`list` needs text, a list or a mapping, not {kind(value)}.")


def _abs(value: Any) -> Any:
    """A number without its sign."""
    return abs(number(value, "`abs`"))


def _date(value: Any, what: str) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            raise ValueFault(f"{what}: {_shown(value)} is not an ISO 8601 date.") from None
    raise ValueFault(f"{what} needs a date, not {kind(value)}.")


def _date_format(name: str, pattern: str | None, doc: str) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        date = _date(value, f"`{name}`")
        return date.isoformat() if pattern is None else date.strftime(pattern)

    convert.__doc__ = doc
    return convert


def _ds_add(ds: Any, days: Any) -> str:
    """The date `days` later, as YYYY-MM-DD; a negative number goes back."""
    amount = number(days, "`macros.ds_add`")
    try:
        return (_date(ds, "`macros.ds_add`") + timedelta(days=amount)).strftime("%Y-%m-%d")
    except OverflowError:
        raise ValueFault("`macros.ds_add`: the date is out of range.") from None


def _ds_format(ds: Any, input_format: Any, output_format: Any) -> str:
    """The date read with one strftime format and written with another."""
    read, write = text(input_format, "`macros.ds_format`"), text(output_format, "`macros.ds_format`")
    source = text(ds, "`macros.ds_format`")
    if len(read) > 100 or len(write) > 100 or len(source) > 100:
        raise ValueFault("`macros.ds_format`: dates and formats have at most 100 characters.")
    try:
        return datetime.strptime(source, read).strftime(write)  # noqa: DTZ007 - it is text in and text out
    except ValueError as error:
        raise ValueFault(f"`macros.ds_format`: {error}.") from None


def _shown(value: Any) -> str:
    return f"`{value[:40]}`" if isinstance(value, str) else kind(value)


def _string(value: Any) -> str:
    """The value as text."""
    return to_text(value)


def _tojson(value: Any) -> str:
    """The value as JSON."""
    return to_json(value)


def _lower(value: Any) -> str:
    """In lower case."""
    return text(value, "`lower`").lower()


def _upper(value: Any) -> str:
    """In upper case."""
    return text(value, "`upper`").upper()


def _trim(value: Any) -> str:
    """Without white space at both ends."""
    return text(value, "`trim`").strip()


def _basename(value: Any) -> str:
    """The last part of a path or URL."""
    return posixpath.basename(text(value, "`basename`").rstrip("/"))


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": _abs,
    "basename": _basename,
    "default": _default,
    "ds": _date_format("ds", "%Y-%m-%d", "A date as YYYY-MM-DD."),
    "ds_nodash": _date_format("ds_nodash", "%Y%m%d", "A date as YYYYMMDD."),
    "first": _first,
    "float": _float,
    "fromjson": _fromjson,
    "int": _int,
    "join": _join,
    "last": _last,
    "length": _length,
    "list": _list,
    "lower": _lower,
    "max": _max,
    "min": _min,
    "replace": _replace,
    "round": _round,
    "sort": _sort,
    "string": _string,
    "sum": _sum,
    "tojson": _tojson,
    "trim": _trim,
    "ts": _date_format("ts", None, "A date and time in ISO 8601."),
    "ts_nodash": _date_format("ts_nodash", "%Y%m%dT%H%M%S", "A date and time as YYYYMMDDTHHMMSS."),
    "unique": _unique,
    "upper": _upper,
}
MACROS: Final[Mapping[str, Callable[..., Any]]] = {"ds_add": _ds_add, "ds_format": _ds_format}


def arity(function: Callable[..., Any], *, piped: bool) -> tuple[int, int]:
    """How many arguments a filter (without the value piped into it) or macro takes: at least and at most."""
    parameters = list(inspect.signature(function).parameters.values())[1 if piped else 0 :]
    needed = sum(parameter.default is inspect.Parameter.empty for parameter in parameters)
    return needed, len(parameters)


FILTER_ARITY: Final = {name: arity(function, piped=True) for name, function in FILTERS.items()}
MACRO_ARITY: Final = {name: arity(function, piped=False) for name, function in MACROS.items()}

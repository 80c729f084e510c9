"""The column steps of `preprocess`, compiled to one SQL statement."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from yarrow import param
from yarrow.errors import Fail
from yarrow_operators.ducks import literal, quote, require_columns

Scalar = str | float | bool
DatePart = Literal[
    "year", "quarter", "month", "week", "day", "dow", "isodow", "doy", "hour", "minute", "second", "epoch"
]


class Range(TypedDict, total=False):
    """Bounds, inclusive; either may be left out."""

    min: float
    max: float


class Scaling(TypedDict, total=False):
    """Constants of a scaling, from the training data: `mean` and `std`, or `min` and `max`."""

    mean: float
    std: float
    min: float
    max: float


class Cast(TypedDict):
    """Changes types: `columns: {dep_delay: DOUBLE}`. With `on_error: null` a value that does not fit becomes null."""

    op: Literal["cast"]
    columns: dict[str, str]
    on_error: NotRequired[Literal["fail", "null"]]


class FillNull(TypedDict):
    """Gives nulls a value: `columns: {dep_delay: 0}`."""

    op: Literal["fill_null"]
    columns: dict[str, Scalar]


class Clip(TypedDict):
    """Keeps numbers within bounds: `columns: {distance: {min: 0, max: 5000}}`. Nulls stay null."""

    op: Literal["clip"]
    columns: dict[str, Range]


class Scale(TypedDict):
    """Scales numbers: `(x - mean) / std`, or `(x - min) / (max - min)`."""

    op: Literal["scale"]
    columns: dict[str, Scaling]


class OneHot(TypedDict):
    """Makes a column of 0 and 1 for each value: `origin_JFK`. The column itself goes, unless `drop: false`."""

    op: Literal["one_hot"]
    column: str
    values: list[Scalar]
    prefix: NotRequired[str]
    drop: NotRequired[bool]


class Hash(TypedDict):
    """Sorts values into `buckets` numbers from 0, by their MD5; by default into the column `<column>_hash`."""

    op: Literal["hash"]
    column: str
    buckets: Annotated[int, param(doc="How many numbers there are.", minimum=1)]
    into: NotRequired[str]


class Bucketize(TypedDict):
    """Numbers the interval between ascending `boundaries` that a value lies in; a boundary belongs to the upper one."""

    op: Literal["bucketize"]
    column: str
    boundaries: list[float]
    labels: NotRequired[list[str]]
    into: NotRequired[str]


class DateParts(TypedDict):
    """Takes parts of a date or time: `dep_hour`, `dep_dow` (0 is Sunday); of a time with zone in `timezone`."""

    op: Literal["date_parts"]
    column: str
    parts: list[DatePart]
    prefix: NotRequired[str]
    timezone: NotRequired[str]


class Lower(TypedDict):
    """Turns text into lower case."""

    op: Literal["lower"]
    columns: list[str]


class RegexExtract(TypedDict):
    """Takes the part of a text that a group of an RE2 pattern matches; null when it does not match."""

    op: Literal["regex_extract"]
    column: str
    pattern: str
    group: NotRequired[int]
    into: NotRequired[str]


class Rename(TypedDict):
    """Renames columns: `columns: {old: new}`."""

    op: Literal["rename"]
    columns: dict[str, str]


class Drop(TypedDict):
    """Leaves columns out."""

    op: Literal["drop"]
    columns: list[str]


class Select(TypedDict):
    """Keeps these columns alone, in this order."""

    op: Literal["select"]
    columns: list[str]


class Expr(TypedDict):
    """Adds or replaces columns by SQL expressions: `columns: {speed: distance / air_time}`."""

    op: Literal["expr"]
    columns: dict[str, str]


class Filter(TypedDict):
    """Keeps the rows for which an SQL condition is true."""

    op: Literal["filter"]
    where: str


class Join(TypedDict):
    """Joins a data set of `inputs`: `on` names equal columns, or maps ours to theirs. `columns` are what it adds."""

    op: Literal["join"]
    input: str
    on: list[str] | dict[str, str]
    how: NotRequired[Literal["left", "inner"]]
    columns: NotRequired[list[str]]


class Sql(TypedDict):
    """Any SELECT; the rows so far are the table `input`."""

    op: Literal["sql"]
    query: str


Step = (
    Cast
    | FillNull
    | Clip
    | Scale
    | OneHot
    | Hash
    | Bucketize
    | DateParts
    | Lower
    | RegexExtract
    | Rename
    | Drop
    | Select
    | Expr
    | Filter
    | Join
    | Sql
)

Columns = Callable[[str], list[str]]
"""Finds the columns of a query without running it; raises `Fail` for one that is wrong."""


def compile_steps(steps: Sequence[Step], table: str, columns_of: Columns) -> str:
    """One SELECT statement that does all steps in their order.

    Args:
        steps: What to do.
        table: The name of the table to begin with.
        columns_of: Proves each step before the next one is looked at.

    Raises:
        Fail: A step is wrong; the error tells which.
    """
    ctes: list[str] = []
    source, columns = quote(table), columns_of(f"SELECT * FROM {quote(table)}")
    for number, step in enumerate(steps, start=1):
        where = f"step {number} ({step['op']})"
        if step["op"] == "join":
            selected = _join(step, source, columns, columns_of)
        else:
            selected = _COMPILERS[step["op"]](step, source, columns, where)
        name = quote(f"step_{number}")
        ctes.append(f"{name} AS ({selected})")
        source = name
        try:
            columns = columns_of(_statement(ctes, source))
        except Fail as error:
            raise Fail(f"{where}: {error}") from error
    return _statement(ctes, source)


def _statement(ctes: Sequence[str], source: str) -> str:
    return f"WITH {', '.join(ctes)} SELECT * FROM {source}" if ctes else f"SELECT * FROM {source}"


def _assign(source: str, columns: Sequence[str], values: Mapping[str, str], drop: Sequence[str] = ()) -> str:
    """All columns of the source, those that `values` names replaced or added, those in `drop` left out."""
    replaced = {name: sql for name, sql in values.items() if name in columns and name not in drop}
    stars = "*"
    if drop:
        stars += f" EXCLUDE ({', '.join(map(quote, drop))})"
    if replaced:
        stars += f" REPLACE ({', '.join(f'{sql} AS {quote(name)}' for name, sql in replaced.items())})"
    added = [f"{sql} AS {quote(name)}" for name, sql in values.items() if name not in replaced]
    return f"SELECT {', '.join([stars, *added])} FROM {source}"


def _cast(step: Cast, source: str, columns: Sequence[str], where: str) -> str:
    require_columns(list(step["columns"]), columns, where)
    function = "TRY_CAST" if step.get("on_error") == "null" else "CAST"
    for kind in step["columns"].values():
        if not _TYPE.fullmatch(kind):
            raise Fail(f"{where}: `{kind}` is not a type.", hint="Types are such as DOUBLE, BIGINT, VARCHAR, DATE.")
    return _assign(
        source, columns, {name: f"{function}({quote(name)} AS {kind})" for name, kind in step["columns"].items()}
    )


def _fill_null(step: FillNull, source: str, columns: Sequence[str], where: str) -> str:
    require_columns(list(step["columns"]), columns, where)
    return _assign(
        source, columns, {name: f"coalesce({quote(name)}, {literal(value)})" for name, value in step["columns"].items()}
    )


def _clip(step: Clip, source: str, columns: Sequence[str], where: str) -> str:
    require_columns(list(step["columns"]), columns, where)
    values = {}
    for name, bounds in step["columns"].items():
        cases = ""
        if "min" in bounds:
            cases += f" WHEN {quote(name)} < {literal(bounds['min'])} THEN {literal(bounds['min'])}"
        if "max" in bounds:
            cases += f" WHEN {quote(name)} > {literal(bounds['max'])} THEN {literal(bounds['max'])}"
        if not cases:
            raise Fail(f"{where}: `{name}` needs `min` or `max`.")
        values[name] = f"CASE{cases} ELSE {quote(name)} END"
    return _assign(source, columns, values)


def _scale(step: Scale, source: str, columns: Sequence[str], where: str) -> str:
    require_columns(list(step["columns"]), columns, where)
    values = {}
    for name, constants in step["columns"].items():
        if set(constants) == {"mean", "std"}:
            shift, width = constants["mean"], constants["std"]
        elif set(constants) == {"min", "max"}:
            shift, width = constants["min"], constants["max"] - constants["min"]
        else:
            raise Fail(f"{where}: `{name}` needs `mean` and `std`, or `min` and `max`.")
        if width <= 0:
            raise Fail(f"{where}: `{name}` would be divided by {width}.")
        values[name] = f"({quote(name)} - {literal(shift)}) / {literal(float(width))}::DOUBLE"
    return _assign(source, columns, values)


def _one_hot(step: OneHot, source: str, columns: Sequence[str], where: str) -> str:
    column = step["column"]
    require_columns([column], columns, where)
    prefix = step.get("prefix", f"{column}_")
    values = {
        f"{prefix}{value}": f"({quote(column)} IS NOT DISTINCT FROM {literal(value)})::TINYINT"
        for value in step["values"]
    }
    return _assign(source, columns, values, drop=[column] if step.get("drop", True) else [])


def _hash(step: Hash, source: str, columns: Sequence[str], where: str) -> str:
    column = step["column"]
    require_columns([column], columns, where)
    bucket = f"(md5_number_lower({quote(column)}::VARCHAR) % {step['buckets']})::INTEGER"
    return _assign(source, columns, {step.get("into", f"{column}_hash"): bucket})


def _bucketize(step: Bucketize, source: str, columns: Sequence[str], where: str) -> str:
    column, boundaries = step["column"], step["boundaries"]
    require_columns([column], columns, where)
    if not boundaries or sorted(set(boundaries)) != list(boundaries):
        raise Fail(f"{where}: `boundaries` must ascend, and there must be at least one.")
    names: Sequence[Scalar] = step.get("labels", [*range(len(boundaries) + 1)])
    if len(names) != len(boundaries) + 1:
        raise Fail(f"{where}: {len(boundaries)} boundaries need {len(boundaries) + 1} labels, not {len(names)}.")
    cases = " ".join(
        f"WHEN {quote(column)} < {literal(bound)} THEN {literal(name)}"
        for bound, name in zip(boundaries, names, strict=False)
    )
    value = f"CASE WHEN {quote(column)} IS NULL THEN NULL {cases} ELSE {literal(names[-1])} END"
    return _assign(source, columns, {step.get("into", f"{column}_bucket"): value})


def _date_parts(step: DateParts, source: str, columns: Sequence[str], where: str) -> str:
    column = step["column"]
    require_columns([column], columns, where)
    prefix = step.get("prefix", f"{column}_")
    moment = quote(column)
    if "timezone" in step:
        moment = f"({moment} AT TIME ZONE {literal(step['timezone'])})"
    return _assign(source, columns, {f"{prefix}{part}": f"date_part('{part}', {moment})" for part in step["parts"]})


def _lower(step: Lower, source: str, columns: Sequence[str], where: str) -> str:
    require_columns(step["columns"], columns, where)
    return _assign(source, columns, {name: f"lower({quote(name)})" for name in step["columns"]})


def _regex_extract(step: RegexExtract, source: str, columns: Sequence[str], where: str) -> str:
    column, pattern = step["column"], literal(step["pattern"])
    require_columns([column], columns, where)
    found = f"regexp_extract({quote(column)}, {pattern}, {step.get('group', 0)})"
    value = f"CASE WHEN regexp_matches({quote(column)}, {pattern}) THEN {found} END"
    return _assign(source, columns, {step.get("into", column): value})


def _rename(step: Rename, source: str, columns: Sequence[str], where: str) -> str:
    require_columns(list(step["columns"]), columns, where)
    names = [step["columns"].get(name, name) for name in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise Fail(f"{where}: two columns would be called {', '.join(f'`{name}`' for name in twice)}.")
    return f"SELECT {', '.join(f'{quote(a)} AS {quote(b)}' for a, b in zip(columns, names, strict=True))} FROM {source}"


def _drop(step: Drop, source: str, columns: Sequence[str], where: str) -> str:
    require_columns(step["columns"], columns, where)
    return _assign(source, columns, {}, drop=step["columns"])


def _select(step: Select, source: str, columns: Sequence[str], where: str) -> str:
    require_columns(step["columns"], columns, where)
    return f"SELECT {', '.join(map(quote, step['columns']))} FROM {source}"


def _expr(step: Expr, source: str, columns: Sequence[str], where: str) -> str:
    return _assign(source, columns, {name: f"({sql})" for name, sql in step["columns"].items()})


def _filter(step: Filter, source: str, columns: Sequence[str], where: str) -> str:
    return f"SELECT * FROM {source} WHERE ({step['where']})"


def _sql(step: Sql, source: str, columns: Sequence[str], where: str) -> str:
    return f"WITH input AS (SELECT * FROM {source}) {step['query'].rstrip().rstrip(';')}"


def _join(step: Join, source: str, columns: Sequence[str], columns_of: Columns) -> str:
    theirs = columns_of(f"SELECT * FROM {quote(step['input'])}")
    on = step["on"] if isinstance(step["on"], dict) else {name: name for name in step["on"]}
    require_columns(list(on), columns, "join: our side of `on`")
    require_columns(list(on.values()), theirs, f"join: `{step['input']}`'s side of `on`")
    added = step.get("columns", [name for name in theirs if name not in on.values()])
    require_columns(added, theirs, f"join: `{step['input']}`")
    twice = [name for name in added if name in columns]
    if twice:
        raise Fail(
            f"join: both sides have {', '.join(f'`{name}`' for name in twice)}.", hint="Name what to add in `columns`."
        )
    condition = " AND ".join(f"a.{quote(ours)} = b.{quote(their)}" for ours, their in on.items())
    selected = ", ".join(["a.*", *(f"b.{quote(name)}" for name in added)])
    how = step.get("how", "left").upper()
    return f"SELECT {selected} FROM {source} a {how} JOIN {quote(step['input'])} b ON {condition}"


_TYPE = re.compile(r"[A-Za-z][A-Za-z0-9_ ]*(\(\d+(\s*,\s*\d+)?\))?(\[\])*")

_COMPILERS: Mapping[str, Callable[[Any, str, Sequence[str], str], str]] = {
    "cast": _cast,
    "fill_null": _fill_null,
    "clip": _clip,
    "scale": _scale,
    "one_hot": _one_hot,
    "hash": _hash,
    "bucketize": _bucketize,
    "date_parts": _date_parts,
    "lower": _lower,
    "regex_extract": _regex_extract,
    "rename": _rename,
    "drop": _drop,
    "select": _select,
    "expr": _expr,
    "filter": _filter,
    "sql": _sql,
}

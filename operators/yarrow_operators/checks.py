"""The checks of `validate`, each compiled to SQL: an aggregate that measures it, a predicate that finds its rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypedDict

from yarrow import param
from yarrow.errors import Fail
from yarrow.jsontypes import Json
from yarrow_operators.ducks import literal, quote, require_columns

OnFail = Literal["warn", "drop", "quarantine", "fail"]
Outcome = Literal["passed", "warned", "dropped", "quarantined", "failed"]
OUTCOMES: Mapping[OnFail, Outcome] = {
    "warn": "warned",
    "drop": "dropped",
    "quarantine": "quarantined",
    "fail": "failed",
}
ROW = "__yarrow_row"
"""The column that numbers the rows where the first of several equal ones must be told from the others."""


class NullRate(TypedDict, total=False):
    """Bounds on the share of nulls of a column, from 0 to 1."""

    warn: Annotated[float, param(doc="Above it there is a warning.", minimum=0, maximum=1)]
    max: Annotated[float, param(doc="Above it the check fails.", minimum=0, maximum=1)]


class RowCount(TypedDict, total=False):
    """Bounds on the number of rows, inclusive."""

    min: Annotated[int, param(doc="The fewest rows.", minimum=0)]
    max: Annotated[int, param(doc="The most rows.", minimum=0)]


class ColumnChecks(TypedDict, total=False):
    """The checks of one column. A null passes every one of them but `nullable: false`."""

    type: Annotated[str, "The DuckDB type that the column has, such as BIGINT or VARCHAR."]
    nullable: Annotated[bool, "With false a null fails."]
    valid_values: Annotated[list[str | float | bool], "All others fail."]
    invalid_values: Annotated[list[str | float | bool], "These fail."]
    min: Annotated[float | str, "The smallest number, or the earliest date or time as text. NaN fails."]
    max: Annotated[float | str, "The largest number, or the latest date or time as text. NaN fails."]
    min_length: Annotated[int, param(doc="The fewest characters.", minimum=0)]
    max_length: Annotated[int, param(doc="The most characters.", minimum=0)]
    regex: Annotated[str, "An RE2 pattern that is found in the text; `^` and `$` tie it to the ends."]
    unique: Annotated[bool, "Of equal values all but the first fail."]
    null_rate: Annotated[NullRate, "Bounds on the share of nulls."]
    on_fail: Annotated[OnFail, "What happens when a check of this column fails."]


class TableChecks(TypedDict, total=False):
    """The checks of the whole table. `sql` names conditions that every row must satisfy."""

    row_count: Annotated[RowCount, "Bounds on the number of rows."]
    unique: Annotated[list[str], "Columns that together tell rows apart; of equal ones all but the first fail."]
    sql: Annotated[dict[str, str], "Conditions by name; a row for which one is false fails it, null passes."]
    on_fail: Annotated[OnFail, "What happens when a check of the table fails."]


@dataclass(frozen=True, slots=True)
class Check:
    """One check. Exactly those that judge single rows have a `failing` predicate."""

    name: str  # "origin.valid_values"; unique within a validation
    column: str | None
    on_fail: OnFail
    threshold: Json
    observed: str  # SQL: an aggregate over the table
    failing: str | None = None  # SQL: true for a row that fails, never null
    failed_rows: str | None = None  # SQL: an aggregate; how many rows fail
    duplicate_of: tuple[str, ...] = ()  # the key of a uniqueness check; its predicate needs `numbered`
    lowest: float | None = None  # bounds on the observed value of a check of the table
    highest: float | None = None

    @property
    def rejects(self) -> bool:
        """Whether rows that fail it are taken out."""
        return self.failing is not None and self.on_fail in ("drop", "quarantine")

    def holds(self, observed: Json, failed_rows: int) -> bool:
        """Whether the table passes."""
        if self.failing is not None:
            return failed_rows == 0
        if not isinstance(observed, int | float):
            return True
        return (self.lowest is None or observed >= self.lowest) and (self.highest is None or observed <= self.highest)


def compile_checks(
    schema: Mapping[str, str], columns: Mapping[str, ColumnChecks], table: TableChecks, on_fail: OnFail
) -> list[Check]:
    """Every check of a validation, in the order in which they are written.

    Args:
        schema: The table's columns and their DuckDB types.
        columns: The checks of single columns.
        table: The checks of the whole table.
        on_fail: What a check does that does not say it itself.

    Raises:
        Fail: A check names a column that is not there, or does not fit its type.
    """
    require_columns(list(columns), list(schema), "columns")
    require_columns(table.get("unique", []), list(schema), "table.unique")
    checks = list(_table_checks(table, table.get("on_fail", on_fail)))
    for column, wanted in columns.items():
        checks.extend(_column_checks(column, schema[column], wanted, wanted.get("on_fail", on_fail)))
    return checks


def numbered(relation: str, checks: Sequence[Check]) -> str:
    """A subquery of the table in which the predicates of these checks can be used.

    Uniqueness needs to know which of several equal rows came first: that one stays.
    """
    keys = _keys(checks)
    if not keys:
        return f"(SELECT * FROM {relation})"
    counts = ", ".join(
        f"row_number() OVER (PARTITION BY {_list(key)} ORDER BY {ROW}) AS {_copy_number(key)}" for key in keys
    )
    return f"(SELECT *, {counts} FROM (SELECT *, row_number() OVER () AS {ROW} FROM {relation}) ORDER BY {ROW})"


def helper_columns(checks: Sequence[Check]) -> list[str]:
    """The columns that `numbered` adds."""
    keys = _keys(checks)
    return [quote(ROW), *(_copy_number(key) for key in keys)] if keys else []


def _column_checks(column: str, kind: str, wanted: ColumnChecks, on_fail: OnFail) -> Iterator[Check]:
    if "type" in wanted and wanted["type"].upper() != kind.upper():
        raise Fail(f"Column `{column}` is {kind}, expected {wanted['type']}.")
    name = quote(column)
    if wanted.get("nullable") is False:
        yield _rows(column, "nullable", on_fail, False, f"{name} IS NULL")
    if "null_rate" in wanted:
        yield from _null_rate(column, wanted["null_rate"], on_fail)
    if "valid_values" in wanted:
        values = wanted["valid_values"]
        yield _rows(column, "valid_values", on_fail, values, f"{name} NOT IN {_values(column, values)}")
    if "invalid_values" in wanted:
        values = wanted["invalid_values"]
        yield _rows(column, "invalid_values", on_fail, values, f"{name} IN {_values(column, values)}")
    yield from _bounds(column, kind, wanted, on_fail)
    if "regex" in wanted:
        regex = literal(wanted["regex"])
        yield _rows(column, "regex", on_fail, wanted["regex"], f"NOT regexp_matches({name}::VARCHAR, {regex})")
    if wanted.get("unique"):
        yield _unique(f"{column}.unique", (column,), on_fail)


def _bounds(column: str, kind: str, wanted: ColumnChecks, on_fail: OnFail) -> Iterator[Check]:
    name = quote(column)
    if "min" in wanted:
        failing = f"{name} < {_bound(column, kind, wanted['min'])}"
        if kind in ("FLOAT", "DOUBLE"):  # NaN is greater than everything here: `max` refuses it, `min` would not
            failing = f"{failing} OR isnan({name})"
        yield _rows(column, "min", on_fail, wanted["min"], failing, f"min({name})")
    if "max" in wanted:
        failing = f"{name} > {_bound(column, kind, wanted['max'])}"
        yield _rows(column, "max", on_fail, wanted["max"], failing, f"max({name})")
    length = f"length({name}::VARCHAR)"
    if "min_length" in wanted:
        failing = f"{length} < {wanted['min_length']}"
        yield _rows(column, "min_length", on_fail, wanted["min_length"], failing, f"min({length})")
    if "max_length" in wanted:
        failing = f"{length} > {wanted['max_length']}"
        yield _rows(column, "max_length", on_fail, wanted["max_length"], failing, f"max({length})")


def _rows(column: str, key: str, on_fail: OnFail, threshold: Json, failing: str, observed: str | None = None) -> Check:
    predicate = f"coalesce({failing}, false)"
    count = f"count(*) FILTER (WHERE {predicate})"
    return Check(f"{column}.{key}", column, on_fail, threshold, observed or count, predicate, count)


def _table_checks(table: TableChecks, on_fail: OnFail) -> Iterator[Check]:
    if "row_count" in table:
        bounds = table["row_count"]
        yield Check(
            "table.row_count",
            None,
            on_fail,
            dict(bounds),  # type: ignore[arg-type]  # a TypedDict of numbers is JSON
            "count(*)",
            lowest=bounds.get("min"),
            highest=bounds.get("max"),
        )
    if table.get("unique"):
        yield _unique("table.unique", tuple(table["unique"]), on_fail)
    for name, condition in table.get("sql", {}).items():
        predicate = f"coalesce(NOT ({condition}), false)"
        count = f"count(*) FILTER (WHERE {predicate})"
        yield Check(f"table.sql.{name}", None, on_fail, condition, count, predicate, count)


def _null_rate(column: str, bounds: NullRate, on_fail: OnFail) -> Iterator[Check]:
    rate = f"coalesce(count(*) FILTER (WHERE {quote(column)} IS NULL) / nullif(count(*), 0), 0)"
    if "warn" in bounds:
        yield Check(f"{column}.null_rate.warn", column, "warn", bounds["warn"], rate, highest=bounds["warn"])
    if "max" in bounds:
        yield Check(f"{column}.null_rate", column, on_fail, bounds["max"], rate, highest=bounds["max"])


def _unique(name: str, key: tuple[str, ...], on_fail: OnFail) -> Check:
    whole = " AND ".join(f"{quote(column)} IS NOT NULL" for column in key)
    struct = f"({_list(key)})"
    count = f"count(*) FILTER (WHERE {whole}) - count(DISTINCT {struct}) FILTER (WHERE {whole})"
    return Check(
        name,
        key[0] if len(key) == 1 else None,
        on_fail,
        list(key),
        count,
        f"({_copy_number(key)} > 1 AND {whole})",
        count,
        duplicate_of=key,
    )


def _keys(checks: Sequence[Check]) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(check.duplicate_of for check in checks if check.duplicate_of))


def _copy_number(key: tuple[str, ...]) -> str:
    return quote(f"__yarrow_copy_of {key!r}")


def _list(columns: Sequence[str]) -> str:
    return ", ".join(quote(column) for column in columns)


def _values(column: str, values: Sequence[str | float | bool]) -> str:
    if not values:
        raise Fail(f"Column `{column}`: the list of values is empty.")
    return "(" + ", ".join(literal(value) for value in values) + ")"


def _bound(column: str, kind: str, bound: float | str) -> str:
    if kind == "VARCHAR" and not isinstance(bound, str):
        raise Fail(
            f"Column `{column}` is text, so it can't be compared with the number {bound}.",
            hint="Cast it in the query that made the data set, or use `min_length`, `max_length` or `regex`.",
        )
    return literal(bound)

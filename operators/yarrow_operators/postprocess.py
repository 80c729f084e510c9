"""Turns scores into results: range checks, labels, rounding, and a publication that appears whole or not at all."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from yarrow import Context, Operator, param, urls
from yarrow.dataset import DatasetManifest, DatasetXCom, Part, describe
from yarrow.errors import Fail
from yarrow.jsontypes import Json
from yarrow.operator import ArgumentPath
from yarrow_operators.ducks import connect, literal, quote, require_columns, schema_of, view_input, write_dataset
from yarrow_operators.fingerprint import fingerprints
from yarrow_operators.steps import Range
from yarrow_operators.table import Mode, publish_table

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TABLE = "input"
_FORMATS = {
    ".parquet": ("parquet", "FORMAT parquet, COMPRESSION zstd"),
    ".csv": ("csv", "FORMAT csv, HEADER true"),
}


class Postprocess(Operator):
    """Turns a model's scores into a published result.

    In this order: `ranges` are checked, the score is turned into a label, values are rounded, and the rows are
    published: as a file (`output`), as rows of a table (`conn_id` and `table`), or as the task's own data set. A file
    takes its place in one step, a table is changed in one transaction, and what an earlier try or an earlier run of
    the same task instance wrote is replaced, so that nothing is ever there twice or half.
    """

    input: dict[str, Json] | str = param(doc="The data set: the XCom of a task, or the address of a data set's folder.")
    column: str = param(default="probability", doc="The score that `threshold` judges.")
    threshold: float | list[float] | None = param(
        default=None, doc="Where one label ends and the next begins (a score equal to it has the upper label)."
    )
    labels: list[str] = param(
        default=[],
        doc="The labels from low to high scores, one more than thresholds; by default `negative`, `positive`.",
    )
    label_column: str = param(default="label", doc="The column that the label is written to.")
    label_map: dict[str, str] = param(
        default={}, doc="Without `threshold`: the label for each value of `column`, such as the number of a class."
    )
    ranges: dict[str, Range] = param(default={}, doc="Bounds of columns: `probability: {min: 0, max: 1}`.")
    on_out_of_range: Literal["fail", "drop", "clip"] = param(
        default="fail", doc="What happens to a row out of the `ranges`; NaN is always out, null never."
    )
    round: dict[str, int] = param(default={}, doc="Decimal places of columns: `probability: 4`.")
    columns: list[str] | None = param(default=None, doc="The columns to publish, in their order; by default all.")
    output: str | None = param(
        default=None,
        doc="The file to write, .parquet or .csv: a path in the object store, an absolute path or an fsspec URL.",
    )
    conn_id: str | None = param(default=None, doc="The connection of the database that has `table`.")
    table: str | None = param(default=None, doc="The table to write; it is made when there is none.")
    mode: Mode = param(
        default="append", doc="Of a table: `append` replaces the rows of this run alone, `overwrite` all rows."
    )

    class Outputs(DatasetXCom):
        output: str
        counts: dict[str, int]

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        """Labels that don't fit the thresholds, a file of an unknown kind, half of a database's address."""
        threshold, labels = arguments.get("threshold"), arguments.get("labels")
        cuts = len(threshold) if isinstance(threshold, list) else 1
        known = isinstance(threshold, int | float | list)  # a template may become a list
        if known and isinstance(labels, list) and labels and len(labels) != cuts + 1:
            yield ("labels",), f"{cuts} thresholds need {cuts + 1} labels, not {len(labels)}."
        elif isinstance(threshold, list) and len(threshold) != 1 and not labels:
            yield ("threshold",), f"{cuts} thresholds need {cuts + 1} `labels`."
        if threshold is not None and arguments.get("label_map"):
            yield ("label_map",), "`label_map` is for a result without `threshold`."
        output = arguments.get("output")
        if isinstance(output, str) and not output.endswith("}}") and _format(output) is None:
            yield ("output",), "The file must end in .parquet or .csv."
        if (arguments.get("conn_id") is None) != (arguments.get("table") is None):
            yield ("conn_id" if "conn_id" in arguments else "table",), "`conn_id` and `table` belong together."
        if arguments.get("table") is not None and output is not None:
            yield ("output",), "The result goes to a file or to a table, not to both."

    def cache_inputs(self, context: Context) -> Json:
        return {"operator": super().cache_inputs(context), "datasets": fingerprints(self.input)}

    def execute(self, context: Context) -> Outputs:
        started = time.perf_counter()
        for _, problem in self.check(vars(self), ()):
            raise Fail(problem)
        with connect(context) as connection:
            source = view_input(connection, _TABLE, self.input)
            columns = [name for name, _ in schema_of(connection, f"SELECT * FROM {_TABLE}")]
            out_of_range = self._check_ranges(connection, columns)
            connection.execute(f"CREATE TEMP TABLE result AS {self._query(connection, columns)}")
            result = "SELECT * FROM result"
            manifest, address = self._publish(connection, context, result)
            counts = self._counts(connection)
        context.metric("rows_in", source.rows)
        context.metric("rows_out", manifest.rows)
        context.metric("rows_rejected", source.rows - manifest.rows)
        context.metric("rows_out_of_range", out_of_range)
        for label, count in counts.items():
            context.metric(f"label_{re.sub(r'[^A-Za-z0-9_]', '_', label)}", count)
        context.metric("seconds", time.perf_counter() - started)
        shown = ", ".join(f"{label} {count:,}" for label, count in counts.items())
        context.log.info("%s rows published to %s%s", f"{manifest.rows:,}", address, f": {shown}" if shown else "")
        return {**manifest.to_json(), "output": address, "counts": counts}

    def _check_ranges(self, connection: DuckDBPyConnection, columns: Sequence[str]) -> int:
        """How many rows are out of range. Raises `Fail` when there are any and that must not be."""
        require_columns(list(self.ranges), columns, "ranges")
        if not self.ranges:
            return 0
        failing = [_outside(name, bounds) for name, bounds in self.ranges.items()]
        counted = ", ".join(f"count(*) FILTER (WHERE {condition})" for condition in [" OR ".join(failing), *failing])
        row = connection.execute(f"SELECT {counted} FROM {_TABLE}").fetchone()
        total, *each = row or (0,)
        if total and self.on_out_of_range == "fail":
            found = "; ".join(
                f"`{name}` {_interval(bounds)} does not hold in {count:,} rows"
                for (name, bounds), count in zip(self.ranges.items(), each, strict=True)
                if count
            )
            raise Fail(f"Values are out of range: {found}. Nothing was published.")
        return int(total)

    def _query(self, connection: DuckDBPyConnection, columns: Sequence[str]) -> str:
        """The result as one SELECT: ranges, then the label, then rounding, then the chosen columns."""
        where = ""
        values: dict[str, str] = {}
        if self.ranges and self.on_out_of_range == "drop":
            where = f" WHERE NOT ({' OR '.join(_outside(name, bounds) for name, bounds in self.ranges.items())})"
        elif self.ranges and self.on_out_of_range == "clip":
            values = {name: _clipped(name, bounds) for name, bounds in self.ranges.items()}
        query = f"SELECT {_replacing(values)} FROM {_TABLE}{where}"
        label = self._label(connection, columns)
        if label is not None:
            kept = f"* EXCLUDE ({quote(self.label_column)})" if self.label_column in columns else "*"
            query = f"SELECT {kept}, {label} AS {quote(self.label_column)} FROM ({query})"
            columns = [*(name for name in columns if name != self.label_column), self.label_column]
        require_columns(list(self.round), columns, "round")
        if self.round:
            rounded = {name: f"round({quote(name)}, {places})" for name, places in self.round.items()}
            query = f"SELECT {_replacing(rounded)} FROM ({query})"
        if self.columns is not None:
            require_columns(self.columns, columns, "columns")
            query = f"SELECT {', '.join(map(quote, self.columns))} FROM ({query})"
        return query

    def _label(self, connection: DuckDBPyConnection, columns: Sequence[str]) -> str | None:
        if self.threshold is None and not self.label_map:
            return None
        require_columns([self.column], columns, "column")
        score = quote(self.column)
        if self.threshold is None:
            text = f"{score}::VARCHAR"
            known = ", ".join(map(literal, self.label_map))
            unknown = connection.execute(
                f"SELECT DISTINCT {text} FROM {_TABLE} WHERE {text} NOT IN ({known}) ORDER BY 1 LIMIT 5"
            ).fetchall()
            if unknown:
                raise Fail(f"`label_map` has no label for {', '.join(f'`{value}`' for (value,) in unknown)}.")
            cases = " ".join(f"WHEN {literal(value)} THEN {literal(name)}" for value, name in self.label_map.items())
            return f"CASE {text} {cases} END"
        thresholds = self.threshold if isinstance(self.threshold, list) else [self.threshold]
        if sorted(set(thresholds)) != list(thresholds):
            raise Fail(f"The thresholds must ascend; they are {thresholds}.")
        labels = self.labels or ["negative", "positive"]
        cases = " ".join(
            f"WHEN {score} < {literal(cut)} THEN {literal(name)}" for cut, name in zip(thresholds, labels, strict=False)
        )
        return f"CASE WHEN {score} IS NULL THEN NULL {cases} ELSE {literal(labels[-1])} END"

    def _counts(self, connection: DuckDBPyConnection) -> dict[str, int]:
        """How many rows each label has: every label that can come is named."""
        names = [name for name, _ in schema_of(connection, "SELECT * FROM result")]
        if self.label_column not in names or (self.threshold is None and not self.label_map):
            return {}
        labels = list(self.label_map.values()) if self.threshold is None else self.labels or ["negative", "positive"]
        column = quote(self.label_column)
        found = dict(
            connection.execute(
                f"SELECT {column}, count(*) FROM result WHERE {column} IS NOT NULL GROUP BY 1"
            ).fetchall()
        )
        return {label: int(found.get(label, 0)) for label in dict.fromkeys(labels)}

    def _publish(self, connection: DuckDBPyConnection, context: Context, query: str) -> tuple[DatasetManifest, str]:
        """Writes the result where it belongs. Answers with its data set, and the address to show."""
        if self.output is not None:
            return self._publish_file(connection, context, query, urls.resolve(self.output, context.objects_url))
        manifest = write_dataset(connection, query, context)
        if self.conn_id is None or self.table is None:
            return manifest, manifest.uri
        key = f"{context.dag_id}/{context.run_id}/{context.task_id}/{context.map_index}"
        publish_table(
            connection,
            query,
            manifest.schema,
            context.connection(self.conn_id),
            self.table,
            mode=self.mode,
            key=key,
        )
        return manifest, f"{self.conn_id}:{self.table}"

    @staticmethod
    def _publish_file(
        connection: DuckDBPyConnection, context: Context, query: str, address: str
    ) -> tuple[DatasetManifest, str]:
        name, options = _format(address) or ("", "")
        stage = context.work_dir / f"result.{name}"
        row = connection.execute(f"COPY ({query}) TO {literal(str(stage))} ({options})").fetchone()
        folder, _, file = address.rpartition("/")
        part = Part(stage, int(row[0]) if row else 0)
        manifest = describe(folder, [file], [part], schema_of(connection, query), name)
        urls.put(stage, address)
        Path(stage).unlink()
        return manifest, address


def _format(address: str) -> tuple[str, str] | None:
    return _FORMATS.get(PurePosixPath(address).suffix.lower())


def _replacing(values: Mapping[str, str]) -> str:
    return f"* REPLACE ({', '.join(f'{sql} AS {quote(name)}' for name, sql in values.items())})" if values else "*"


def _outside(name: str, bounds: Range) -> str:
    """SQL: true for a value out of bounds, never null. NaN is greater than everything in DuckDB."""
    column = quote(name)
    conditions = [f"isnan({column}::DOUBLE)"]
    if "min" in bounds:
        conditions.append(f"{column} < {literal(bounds['min'])}")
    if "max" in bounds:
        conditions.append(f"{column} > {literal(bounds['max'])}")
    return f"coalesce({' OR '.join(conditions)}, false)"


def _clipped(name: str, bounds: Range) -> str:
    column = quote(name)
    cases = [f"WHEN isnan({column}::DOUBLE) THEN NULL"]
    if "min" in bounds:
        cases.append(f"WHEN {column} < {literal(bounds['min'])} THEN {literal(bounds['min'])}")
    if "max" in bounds:
        cases.append(f"WHEN {column} > {literal(bounds['max'])} THEN {literal(bounds['max'])}")
    return f"CASE {' '.join(cases)} ELSE {column} END"


def _interval(bounds: Range) -> str:
    return ", ".join(f"{name} {value}" for name, value in bounds.items())

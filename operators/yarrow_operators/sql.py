"""Runs SQL: DuckDB over files and data sets, or any other database."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from yarrow import Context, Fail, Operator, param, urls
from yarrow.dataset import DatasetManifest, DatasetXCom
from yarrow.jsontypes import Json
from yarrow.operator import ArgumentPath
from yarrow_operators import database, ducks, files
from yarrow_operators.fingerprint import fingerprint

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MAX_ROWS = 1000
"""How many rows `output: rows` may return."""


class Sql(Operator):
    """Runs a query, in DuckDB over files and data sets, or in the database of a connection.

    Without `conn_id` the query runs in DuckDB on the worker: `source` is a view of that name, and so is each of
    `inputs`. With `conn_id` it runs in that database, by SQLAlchemy.

    Don't put values into the text of a query. Give them with `parameters` and write `$name` in DuckDB, `:name` in
    another database; dates come as text there, so write `$day::DATE`.
    """

    query: str = param(
        doc="The query. In DuckDB it may be several statements; the result is the last one's.",
        examples=("SELECT * FROM source WHERE time_hour >= $month_start::DATE",),
    )
    parameters: dict[str, Json] = param(
        default={},
        doc="Values for the names that the query leaves open.",
        examples=({"month_start": "{{ ds }}"},),
    )
    source: str | dict[str, Json] | None = param(
        default=None,
        doc="What the view `source` shows: a CSV, JSON or Parquet file as a path or fsspec URL, or a data set. "
        "A relative path is taken below the DAG folder.",
        examples=("zip://flights.csv::/data/flights.csv.zip", "{{ xcom.ingest }}", "s3://lake/day={{ ds }}/a.parquet"),
    )
    read_options: dict[str, Json] = param(
        default={},
        doc="Options of DuckDB's reader for a `source` that is a file.",
        examples=({"nullstr": "NA", "delim": ";"},),
    )
    inputs: dict[str, str | dict[str, Json]] = param(
        default={},
        doc="More views: a name for each file or data set.",
        examples=({"flights": "{{ xcom.ingest }}", "weather": "/data/weather.parquet"},),
    )
    conn_id: str | None = param(default=None, doc="The connection of another database.")
    output: Literal["dataset", "rows", "value", "none"] = param(
        default="dataset",
        doc="The XCom: a data set of Parquet parts; a list of objects, at most a thousand; the one value of the one "
        "row; or nothing.",
    )

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        """`source` and `inputs` are views in DuckDB, which another database can't see; and a query without a word."""
        if not arguments["query"].strip():
            yield ("query",), "The query is empty."
        if arguments.get("conn_id") is not None:
            for name in ("source", "read_options", "inputs"):
                if arguments.get(name):
                    yield (name,), f"`{name}` is read by DuckDB; it can't be used together with `conn_id`."
        elif arguments.get("read_options") and not isinstance(arguments.get("source"), str):
            yield ("read_options",), "`read_options` are for a `source` that is a file."

    def execute(self, context: Context) -> Json | DatasetXCom:
        if self.conn_id is not None:
            return self._in_database(context, self.conn_id)
        with self._views(context) as duck:
            return self._in_duckdb(context, duck)

    def head(self, context: Context, count: int) -> list[dict[str, Json]]:
        """The first rows of the query's result, at most `count` of them."""
        if self.conn_id is not None:
            with database.query(context.connection(self.conn_id), self.query, self.parameters) as result:
                return result.head(count)
        with self._views(context) as duck:
            return self._head(duck, *self._select(duck), count)

    def cache_inputs(self, context: Context) -> Json:
        named = [self.source, *self.inputs.values()]
        addresses = [_below(context, value) for value in named if isinstance(value, str)]
        return {
            "operator": super().cache_inputs(context),
            "files": {str(address): fingerprint(str(address)) for address in addresses},
        }

    @contextlib.contextmanager
    def _views(self, context: Context) -> Iterator[DuckDBPyConnection]:
        """DuckDB with a view for each input."""
        with ducks.connect(context) as duck:
            try:
                if self.source is not None:
                    source = _below(context, self.source)
                    files.view(duck, "source", source, context.work_dir / "source", self.read_options)
                for name, value in self.inputs.items():
                    files.view(duck, name, _below(context, value), context.work_dir / "inputs" / name)
                yield duck
            finally:
                files.discard(context.work_dir / "source", context.work_dir / "inputs")

    def _in_duckdb(self, context: Context, duck: DuckDBPyConnection) -> Json | DatasetXCom:
        if self.output == "none":
            for statement in self._statements(duck):
                duck.execute(statement, self._parameters(statement)).fetchall()
            return None
        query, parameters = self._select(duck)
        if self.output == "dataset":
            return _published(ducks.write_dataset(duck, query, context, parameters=parameters), context)
        return self._small(self._head(duck, query, parameters, MAX_ROWS + 1), context)

    def _statements(self, duck: DuckDBPyConnection) -> list[Any]:
        statements = duck.extract_statements(self.query)
        unused = set(self.parameters).difference(*(statement.named_parameters for statement in statements))
        if unused:
            names = ", ".join(f"`{name}`" for name in sorted(unused))
            raise Fail(f"The query does not use the parameters {names}.", hint="Write `$name` in the query.")
        if not statements:
            raise Fail("The query is empty.")
        return statements

    def _select(self, duck: DuckDBPyConnection) -> tuple[str, dict[str, Json] | None]:
        """Carries out all statements but the last one, which must be a SELECT, and returns that with its parameters."""
        *before, last = self._statements(duck)
        for statement in before:
            duck.execute(statement, self._parameters(statement)).fetchall()
        if last.type.name != "SELECT":
            raise Fail(
                f"The last statement of the query is a {last.type.name}, which has no rows.",
                hint="End with a SELECT, or set `output: none`.",
            )
        return _bare(last.query), self._parameters(last)

    def _head(
        self, duck: DuckDBPyConnection, query: str, parameters: dict[str, Json] | None, count: int
    ) -> list[dict[str, Json]]:
        # DuckDB's own JSON form of a row: the same for every type, nested ones too.
        found = duck.execute(
            f"SELECT to_json(yarrow_row)::VARCHAR FROM ({query}) yarrow_row LIMIT {count}", parameters
        ).fetchall()
        return [json.loads(row, parse_constant=_no_number) for (row,) in found]

    def _parameters(self, statement: Any) -> dict[str, Json] | None:
        return {name: self.parameters[name] for name in statement.named_parameters if name in self.parameters} or None

    def _in_database(self, context: Context, conn_id: str) -> Json | DatasetXCom:
        with database.query(context.connection(conn_id), self.query, self.parameters) as result:
            if self.output == "none":
                context.log.info("The statement changed %d rows.", max(result.row_count, 0))
                return None
            if self.output == "dataset":
                return _published(database.write_dataset(result, context), context)
            return self._small(result.head(MAX_ROWS + 1), context)

    def _small(self, rows: list[dict[str, Json]], context: Context) -> Json:
        if self.output == "value":
            if len(rows) != 1 or len(rows[0]) != 1:
                shape = f"{len(rows)} rows" if len(rows) != 1 else f"{len(rows[0])} columns"
                raise Fail(f"`output: value` needs one row of one column; the query gave {shape}.")
            return next(iter(rows[0].values()))
        if len(rows) > MAX_ROWS:
            raise Fail(
                f"The query gave more than {MAX_ROWS} rows, too many for an XCom.", hint="Set `output: dataset`."
            )
        context.metric("rows_out", len(rows))
        return rows


def _below(context: Context, value: str | dict[str, Json]) -> str | dict[str, Json]:
    return urls.resolve(value, str(context.dags_folder)) if isinstance(value, str) else value


def _published(manifest: DatasetManifest, context: Context) -> DatasetXCom:
    context.log.info("Wrote %d rows, %d bytes to %s.", manifest.rows, manifest.bytes, manifest.uri)
    context.metric("rows_out", manifest.rows)
    return manifest.to_json()


def _bare(statement: str) -> str:
    """A statement that can stand in brackets: without the semicolons and comments at its end."""
    import duckdb

    content = statement.encode()
    for offset, kind in reversed(duckdb.tokenize(statement)):
        if kind != duckdb.token_type.comment and content[offset : offset + 1] != b";":
            break
        content = content[:offset]
    return content.decode()


def _no_number(name: str) -> None:
    """NaN and the infinities, which JSON does not have, become null."""

"""Turns a data set into another one by column steps or SQL: features, filters, joins."""

from __future__ import annotations

import time

from yarrow import Context, Operator, param
from yarrow.dataset import DatasetXCom
from yarrow.errors import Fail
from yarrow.jsontypes import Json
from yarrow_operators.ducks import connect, schema_of, view_input, write_dataset
from yarrow_operators.steps import Sql, Step, compile_steps

_TABLE = "input"


class Preprocess(Operator):
    """Prepares a data set for a model: a list of column steps, or a SELECT, run as one SQL statement.

    The rows keep their order, unless a join or an SQL text changes it. Constants (means, bounds, categories) are
    written in the steps, so that a batch is treated as the training data were.
    """

    input: dict[str, Json] | str = param(doc="The data set: the XCom of a task, or the address of a data set's folder.")
    inputs: dict[str, dict[str, Json] | str] = param(
        default={}, doc="Further data sets by name: `join` steps and SQL can use them as tables."
    )
    sql: str | None = param(
        default=None, doc="A SELECT from the table `input`; it is done before the steps.", template=False
    )
    steps: list[Step] = param(
        default=[],
        doc="Steps, each `{op: ...}`: cast, fill_null, clip, scale, one_hot, hash, bucketize, date_parts, lower,"
        " regex_extract, rename, drop, select, expr, filter, join, sql.",
    )

    Outputs = DatasetXCom

    def execute(self, context: Context) -> DatasetXCom:
        started = time.perf_counter()
        if _TABLE in self.inputs:
            raise Fail(f"`inputs` can't name a data set `{_TABLE}`: that is what `input` is called.")
        steps: list[Step] = list(self.steps)
        if self.sql is not None:
            steps.insert(0, Sql(op="sql", query=self.sql))
        if not steps:
            raise Fail("There is nothing to do.", hint="Give `steps` or `sql`.")
        with connect(context) as connection:
            import duckdb

            def columns_of(query: str) -> list[str]:
                try:
                    return [name for name, _ in schema_of(connection, query)]
                except duckdb.Error as error:
                    raise Fail(str(error)) from error

            source = view_input(connection, _TABLE, self.input)
            for name, value in self.inputs.items():
                view_input(connection, name, value)
            query = compile_steps(steps, _TABLE, list(self.inputs), columns_of)
            result = write_dataset(connection, query, context)
        context.log.info(
            "%d steps: %s rows in, %s rows out, %d columns",
            len(steps),
            f"{source.rows:,}",
            f"{result.rows:,}",
            len(result.schema),
        )
        context.metric("rows_in", source.rows)
        context.metric("rows_out", result.rows)
        context.metric("rows_rejected", max(0, source.rows - result.rows))
        context.metric("seconds", time.perf_counter() - started)
        return result.to_json()

"""Turns a data set into another one by column steps or SQL: features, filters, joins."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yarrow import Context, Operator, param
from yarrow.dataset import DatasetXCom
from yarrow.errors import Fail
from yarrow.jsontypes import Json
from yarrow.operator import ArgumentPath
from yarrow_operators.ducks import connect, schema_of, view_input, write_dataset
from yarrow_operators.fingerprint import fingerprints
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

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        """Nothing to do, a join with nothing, a name that is taken."""
        steps, inputs = arguments.get("steps"), arguments.get("inputs") or {}
        if not steps and arguments.get("sql") is None:
            yield (), "There is nothing to do: give `steps` or `sql`."
        if not isinstance(inputs, dict):
            return
        if _TABLE in inputs:
            yield ("inputs", _TABLE), f"`{_TABLE}` is what the operator's own input is called; choose another name."
        names = ", ".join(f"`{name}`" for name in inputs) or "none"
        for number, step in enumerate(steps if isinstance(steps, list) else []):
            if not isinstance(step, dict) or step.get("op") != "join":
                continue
            wanted = str(step["input"])
            if wanted not in inputs and "{{" not in wanted:
                yield ("steps", number, "input"), f"There is no data set `{wanted}` in `inputs`; there is {names}."

    def cache_inputs(self, context: Context) -> Json:
        return {"operator": super().cache_inputs(context), "datasets": fingerprints(self.input, *self.inputs.values())}

    def execute(self, context: Context) -> DatasetXCom:
        started = time.perf_counter()
        for _, problem in self.check(vars(self), ()):
            raise Fail(problem)
        steps: list[Step] = list(self.steps)
        if self.sql is not None:
            steps.insert(0, Sql(op="sql", query=self.sql))
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
            query = compile_steps(steps, _TABLE, columns_of)
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
        context.metric("rows_rejected", 0)  # a filter or an aggregate that was asked for rejects nothing
        context.metric("seconds", time.perf_counter() - started)
        return result.to_json()

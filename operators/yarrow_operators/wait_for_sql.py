"""Waits for what a query finds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from yarrow import Context, NotYet, Sensor, param
from yarrow.jsontypes import Json
from yarrow.operator import ArgumentPath
from yarrow_operators.sql import Sql

_NOTHING: tuple[Json, ...] = (None, False, 0, "", "0")


class WaitForSql(Sensor):
    """Waits until a query finds what it looks for, in the database of a connection or in DuckDB over files.

    It is there when the first value of the first row is anything but null, false, 0, `"0"` or an empty text; with
    `until: rows` when there is a row at all. The XCom is the first row as an object. Without `conn_id` the query runs
    in DuckDB on the worker, as that of the operator `sql` does.

    A query that is wrong fails at once; a database that does not answer is an error, retried as the task's `retries`
    say.
    """

    query: str = param(
        doc="The query. In DuckDB it may be several statements; the result is the last one's.",
        examples=("SELECT count(*) FROM orders WHERE day = :day",),
    )
    parameters: dict[str, Json] = param(
        default={}, doc="Values for the names that the query leaves open.", examples=({"day": "{{ ds }}"},)
    )
    until: Literal["value", "rows"] = param(
        default="value", doc="What to wait for: that the first value is true, or that there is a row."
    )
    conn_id: str | None = param(default=None, doc="The connection of a database.")
    source: str | dict[str, Json] | None = param(
        default=None, doc="What the view `source` shows in DuckDB: a file as a path or fsspec URL, or a data set."
    )
    inputs: dict[str, str | dict[str, Json]] = param(
        default={}, doc="More views in DuckDB: a name for each file or data set."
    )

    @classmethod
    def check(cls, arguments: Mapping[str, Any], downstream: Sequence[str]) -> Iterator[tuple[ArgumentPath, str]]:
        """What the sensor and the operator `sql` have to say."""
        yield from super().check(arguments, downstream)
        yield from Sql.check(arguments, downstream)

    def poke(self, context: Context) -> dict[str, Json] | NotYet:
        query = Sql(
            query=self.query,
            parameters=self.parameters,
            conn_id=self.conn_id,
            source=self.source,
            inputs=self.inputs,
        )
        rows = query.head(context, 1)
        if not rows:
            return NotYet("The query has no rows yet.")
        first = next(iter(rows[0].values()))
        if self.until == "value" and any(first == nothing for nothing in _NOTHING):
            return NotYet(f"The first value of the query is {json.dumps(first)}.")
        return rows[0]

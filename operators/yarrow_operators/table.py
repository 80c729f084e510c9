"""Publishes rows into a table of any SQL database, once for each run however often the task is tried."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any, Literal

from yarrow.connections import Connection
from yarrow.errors import Fail
from yarrow_operators import database
from yarrow_operators.ducks import quote

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from sqlalchemy import Table

Mode = Literal["overwrite", "append"]
RUN_COLUMN = "_run"
"""The column that tells which task instance wrote a row."""

_BATCH = 5000
_ZONED = "TIMESTAMP WITH TIME ZONE"
_KEY_LENGTH = 250


def publish_table(
    duck: DuckDBPyConnection,
    query: str,
    schema: Sequence[tuple[str, str]],
    connection: Connection,
    name: str,
    *,
    mode: Mode,
    key: str,
) -> int:
    """Writes a query's rows into a table, in one transaction, and returns how many there are.

    `append` takes the place of the rows of the same key alone, `overwrite` of all rows. The table is made when there is
    none. Its column `_run` holds the key.

    Args:
        duck: Where the query runs.
        query: A SELECT.
        schema: Its columns and their DuckDB types.
        connection: The database.
        name: Of the table, or `schema.table`.
        mode: What happens to rows that are there.
        key: Of this run of the task: the same for every try.

    Raises:
        Fail: The table lacks a column of the rows.
    """
    if RUN_COLUMN in (column for column, _ in schema):
        raise Fail(f"The rows have a column `{RUN_COLUMN}`, which a table keeps for the run.", hint="Rename it first.")
    if len(key) > _KEY_LENGTH:
        key = hashlib.sha256(key.encode()).hexdigest()
    rows = 0
    with database.transaction(connection) as session:
        table = _table(name, schema)
        table.create(session, checkfirst=True)
        _compare(session, table)
        session.execute(table.delete() if mode == "overwrite" else table.delete().where(table.c[RUN_COLUMN] == key))
        for batch in _batches(duck, query, schema):
            session.execute(table.insert(), [{**row, RUN_COLUMN: key} for row in batch])
            rows += len(batch)
    return rows


def _table(name: str, schema: Sequence[tuple[str, str]]) -> Table:
    import sqlalchemy

    owner, _, bare = name.rpartition(".")
    columns = [sqlalchemy.Column(column, _type(kind)) for column, kind in schema]
    return sqlalchemy.Table(
        bare,
        sqlalchemy.MetaData(),
        sqlalchemy.Column(RUN_COLUMN, sqlalchemy.String(_KEY_LENGTH), nullable=False, index=True),
        *columns,
        schema=owner or None,
    )


def _compare(session: Any, table: Table) -> None:
    import sqlalchemy

    present = {column["name"] for column in sqlalchemy.inspect(session).get_columns(table.name, schema=table.schema)}
    missing = [column.name for column in table.columns if column.name not in present]
    if missing:
        raise Fail(
            f"The table `{table.fullname}` has no column {', '.join(f'`{name}`' for name in missing)}.",
            hint="Add it to the table, or choose the `columns` to write.",
        )


def _type(kind: str) -> Any:
    import sqlalchemy

    types: dict[str, Any] = {
        "BOOLEAN": sqlalchemy.Boolean(),
        "DATE": sqlalchemy.Date(),
        "TIME": sqlalchemy.Time(),
        "TIMESTAMP": sqlalchemy.DateTime(),
        _ZONED: sqlalchemy.DateTime(timezone=True),
        "FLOAT": sqlalchemy.Double(),
        "DOUBLE": sqlalchemy.Double(),
        "BLOB": sqlalchemy.LargeBinary(),
    }
    if kind in types:
        return types[kind]
    if kind.startswith("DECIMAL") or kind in ("HUGEINT", "UHUGEINT", "UBIGINT"):
        return sqlalchemy.Numeric()
    return sqlalchemy.BigInteger() if kind.endswith("INT") or kind == "INTEGER" else sqlalchemy.Text()


def _batches(duck: DuckDBPyConnection, query: str, schema: Sequence[tuple[str, str]]) -> Iterator[list[dict[str, Any]]]:
    # A time with a zone is fetched as its UTC time: DuckDB's own Python value of it would need pytz.
    zoned = {column for column, kind in schema if kind == _ZONED}
    columns = ", ".join(
        f"{quote(column)} AT TIME ZONE 'UTC'" if column in zoned else quote(column) for column, _ in schema
    )
    result = duck.execute(f"SELECT {columns} FROM ({query})")
    while rows := result.fetchmany(_BATCH):
        yield [
            {
                column: value.replace(tzinfo=UTC) if column in zoned and value is not None else _scalar(value)
                for (column, _), value in zip(schema, row, strict=True)
            }
            for row in rows
        ]


def _scalar(value: Any) -> Any:
    """Lists and structures have no type that every database knows: they are written as text."""
    return str(value) if isinstance(value, list | dict | tuple) else value

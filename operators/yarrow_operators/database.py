"""Any database that SQLAlchemy knows: statements in a transaction, and their rows as JSON or as a data set."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from yarrow.connections import Connection
from yarrow.dataset import DatasetManifest
from yarrow.errors import Fail, YarrowError
from yarrow.jsontypes import Json
from yarrow.operator import Context
from yarrow_operators import ducks

if TYPE_CHECKING:
    from sqlalchemy import Connection as Session
    from sqlalchemy import CursorResult, Engine

_BATCH = 5000  # rows fetched at once
_DOUBLE, _TEXT = "DOUBLE", "VARCHAR"


@contextlib.contextmanager
def query(connection: Connection, text: str, parameters: Mapping[str, Json]) -> Iterator[Result]:
    """Runs a statement in a transaction, which is committed when the block ends without an error.

    Raises:
        Fail, YarrowError: As `transaction` does.
    """
    import sqlalchemy

    with transaction(connection) as session:
        streaming = session.execution_options(stream_results=True)
        yield Result(streaming.execute(sqlalchemy.text(text), dict(parameters)))


@contextlib.contextmanager
def transaction(connection: Connection) -> Iterator[Session]:
    """A transaction in a database, which is committed when the block ends without an error.

    Raises:
        Fail: A statement is wrong: it is not retried.
        YarrowError: The database is not there or had to give up: it is retried.
    """
    from sqlalchemy import exc

    engine = _engine(connection)
    try:
        with engine.begin() as session:
            yield session
    except (exc.ProgrammingError, exc.IntegrityError, exc.DataError, exc.NotSupportedError) as error:
        raise Fail(f"Connection `{connection.conn_id}`: {error.orig}") from error
    except exc.OperationalError as error:
        if connection.type.startswith("sqlite") and "locked" not in str(error.orig):
            raise Fail(f"Connection `{connection.conn_id}`: {error.orig}") from error  # SQLite calls all errors so
        raise YarrowError(f"Connection `{connection.conn_id}`: {error.orig}") from error
    except exc.DBAPIError as error:
        raise YarrowError(f"Connection `{connection.conn_id}`: {error.orig}") from error
    except exc.SQLAlchemyError as error:
        raise Fail(f"Connection `{connection.conn_id}`: {error}") from error
    finally:
        engine.dispose()


def _engine(connection: Connection) -> Engine:
    import sqlalchemy
    from sqlalchemy import exc

    try:
        return sqlalchemy.create_engine(
            connection.sqlalchemy_url(), poolclass=sqlalchemy.NullPool, hide_parameters=True
        )
    except (exc.NoSuchModuleError, ImportError) as error:
        raise Fail(
            f"Connection `{connection.conn_id}`: no driver for `{connection.type}` is installed on this worker.",
            hint=f"{error}",
        ) from error
    except exc.ArgumentError:  # not chained: it quotes the URL
        raise Fail(f"The URI of connection `{connection.conn_id}` is not one of a database.") from None


class Result:
    """The rows of a statement, read as they are needed."""

    def __init__(self, result: CursorResult[Any]) -> None:
        self._result = result

    @property
    def row_count(self) -> int:
        """How many rows the statement changed, -1 when the database does not tell."""
        return self._result.rowcount

    def columns(self) -> list[str]:
        """The names of the columns. Raises `Fail` when the statement has no rows, or two columns of one name."""
        if not self._result.returns_rows:
            raise Fail("The statement returns no rows.", hint="Set `output: none`.")
        names = list(self._result.keys())
        if len(set(names)) < len(names):
            raise Fail(f"Two columns of the query have one name: {', '.join(names)}.", hint="Name them with AS.")
        return names

    def head(self, count: int) -> list[dict[str, Json]]:
        """The first rows, as JSON data."""
        names = self.columns()
        rows = self._result.fetchmany(count)
        return [dict(zip(names, map(plain, row), strict=True)) for row in rows]

    def batches(self) -> Iterator[list[tuple[Any, ...]]]:
        """All rows, some thousands at once."""
        while rows := self._result.fetchmany(_BATCH):
            yield [tuple(row) for row in rows]


def write_dataset(result: Result, context: Context) -> DatasetManifest:
    """Publishes the rows as the task's data set.

    They go to the disk as lines of JSON first: only when the last value of a column is known, its type is.
    """
    names = result.columns()
    columns = [_Column() for _ in names]
    path = context.work_dir / "rows.ndjson"
    done = 0
    try:
        with path.open("w", encoding="utf-8") as file:
            for rows in result.batches():
                context.check_interrupted()
                for row in rows:
                    for column, value in zip(columns, row, strict=True):
                        column.see(value)
                    file.write(json.dumps([_exact(value) for value in row], ensure_ascii=False) + "\n")
                done += len(rows)
                context.progress(done)
        with ducks.connect(context) as duck:
            return ducks.write_dataset(duck, _reading(path, names, columns), context)
    finally:
        path.unlink(missing_ok=True)


def _reading(path: Path, names: list[str], columns: list[_Column]) -> str:
    """The query that reads the lines back, each value cast from its text to its column's type."""
    values = ", ".join(
        f"CAST(line[{number}] AS {column.type}) AS {ducks.quote(name)}"
        for number, (name, column) in enumerate(zip(names, columns, strict=True), start=1)
    )
    lines = ducks.literal(ducks.unglobbed(str(path)))
    return (
        f"SELECT {values} FROM read_json({lines}, format = 'newline_delimited', records = false,"
        " columns = {line: 'VARCHAR[]'}, maximum_object_size = 268435456)"
    )


@dataclass(slots=True)
class _Column:
    """Finds the DuckDB type of a column from its values."""

    types: set[str] = field(default_factory=set)
    scale: int = 0

    def see(self, value: Any) -> None:
        if value is None:
            return
        if isinstance(value, Decimal):
            exponent = value.as_tuple().exponent
            if not isinstance(exponent, int):  # NaN, infinity
                self.types.add(_DOUBLE)
                return
            self.scale = max(self.scale, -exponent)
            self.types.add("DECIMAL")
            return
        self.types.add(_type_of(value))

    @property
    def type(self) -> str:
        if not self.types:
            return _TEXT
        if self.types == {"DECIMAL"} and self.scale <= 18:
            return f"DECIMAL(38, {self.scale})"
        if len(self.types) == 1 and self.types != {"DECIMAL"}:
            return next(iter(self.types))
        return _DOUBLE if self.types <= {"BIGINT", "HUGEINT", _DOUBLE, "DECIMAL"} else _TEXT


def _type_of(value: Any) -> str:
    """The DuckDB type of one value. The order counts: a bool is an int, a datetime a date."""
    if isinstance(value, datetime):
        return "TIMESTAMP WITH TIME ZONE" if value.tzinfo else "TIMESTAMP"
    for kind, name in _TYPES:
        if isinstance(value, kind):
            return name
    if isinstance(value, int):
        return "BIGINT" if -(2**63) <= value < 2**63 else "HUGEINT"
    return _TEXT


_TYPES: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "BOOLEAN"),
    ((float, timedelta), _DOUBLE),
    (date, "DATE"),
    (time, "TIME"),
    (UUID, "UUID"),
    ((bytes, bytearray, memoryview), "BLOB"),
    ((list, tuple, dict), "JSON"),
)


def _exact(value: Any) -> str | None:
    """A value as the text that DuckDB casts back to it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return "".join(f"\\x{byte:02X}" for byte in bytes(value))
    if isinstance(value, list | tuple | dict):
        return json.dumps(plain(value), ensure_ascii=False)
    if isinstance(value, timedelta):
        return repr(value.total_seconds())
    return value.isoformat() if isinstance(value, date | time) else str(value)


def plain(value: Any) -> Json:
    """A value of a database as JSON: dates and times in ISO 8601, durations in seconds, NaN and infinity as null.

    Raises:
        Fail: It is binary.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | Decimal):
        return float(value) if isfinite(value) else None
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        raise Fail("A column of the query is binary.", hint="Set `output: dataset`, or encode it in the query.")
    return str(value)

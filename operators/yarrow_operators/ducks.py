"""DuckDB for operators: a connection for one attempt, views over data sets, and results written as data sets.

DuckDB is imported inside the functions: it must not be loaded before a worker forks.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yarrow import urls
from yarrow.dataset import DatasetError, DatasetManifest, Part, open_dataset, publish
from yarrow.errors import Fail, YarrowError
from yarrow.jsontypes import Json
from yarrow.operator import Context

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

PART_BYTES = 256 * 1024 * 1024
"""About how large a Parquet part may get before the next one is begun."""

_PARQUET = "FORMAT parquet, COMPRESSION zstd"
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@contextlib.contextmanager
def connect(context: Context) -> Iterator[DuckDBPyConnection]:
    """An in-memory database for one attempt, with its share of the machine's threads and memory.

    It spills into the attempt's work folder, downloads no extensions, and turns the errors of SQL into ones that are
    not retried. Times are UTC whatever the machine's zone.
    """
    import duckdb

    spill = context.work_dir / "duckdb"
    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": context.cpus,
        "temp_directory": str(spill),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    try:
        with duckdb.connect(":memory:", config=settings) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"SET memory_limit = '{_memory_share(connection, context.cpus)}B'")
            yield connection
    except (duckdb.IOException, duckdb.OutOfMemoryException, duckdb.InterruptException) as error:
        raise YarrowError(f"DuckDB: {_first_paragraph(error)}") from error
    except duckdb.Error as error:
        raise Fail(f"DuckDB: {error}") from error
    finally:
        shutil.rmtree(spill, ignore_errors=True)


def quote(name: str) -> str:
    """An identifier for SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: Json) -> str:
    """A constant for SQL: a string, a number, true, false, NULL, or a list of these."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f"'{value}'::DOUBLE"
    if isinstance(value, str):
        if "\0" in value:
            raise Fail("A text of an SQL statement contains a null character.")
        return "'" + value.replace("'", "''") + "'"
    if isinstance(value, Mapping):
        raise Fail(f"An object can't stand in an SQL statement: {dict(value)!r}.")
    return "[" + ", ".join(literal(item) for item in value) + "]"


def view(connection: DuckDBPyConnection, name: str, dataset: DatasetManifest) -> None:
    """Makes a data set visible under a name. Its rows keep their order."""
    connection.execute(f"CREATE OR REPLACE VIEW {quote(name)} AS SELECT * FROM {relation(connection, dataset)}")


def relation(connection: DuckDBPyConnection, dataset: DatasetManifest) -> str:
    """The table function that reads a data set. The connection gets the file system that a remote one needs."""
    if not dataset.parts:
        raise DatasetError(f"The data set at {dataset.uri} has no parts.")
    paths = "[" + ", ".join(literal(path) for path in readable_parts(connection, dataset)) + "]"
    if dataset.format == "parquet":
        return f"read_parquet({paths})"
    if dataset.format == "csv":
        types = ", ".join(f"{literal(column)}: {literal(kind)}" for column, kind in dataset.schema)
        return f"read_csv({paths}, header = true, columns = {{{types}}})"
    raise DatasetError(f"A data set of the format `{dataset.format}` can't be read here.")


def readable_parts(connection: DuckDBPyConnection, dataset: DatasetManifest) -> list[str]:
    """The addresses of the parts as DuckDB's readers take them: local paths, or URLs of a file system it now knows.

    Raises:
        DatasetError: A part is gone.
    """
    readable = []
    for address in dataset.part_urls:
        path = urls.local_path(address)
        if path is None:
            filesystem, _ = urls.remote(address)
            protocol = filesystem.protocol if isinstance(filesystem.protocol, str) else filesystem.protocol[0]
            if not connection.filesystem_is_registered(protocol):
                connection.register_filesystem(filesystem)
            readable.append(unglobbed(address))
            continue
        if not path.is_file():
            raise DatasetError(
                f"The data set at {dataset.uri} lacks its part {path.name}.",
                hint="It was removed, or its task is running again: clear the task that made it.",
            )
        readable.append(unglobbed(str(path)))
    return readable


def view_input(connection: DuckDBPyConnection, name: str, value: Json) -> DatasetManifest:
    """Makes the data set that a parameter names (a manifest or the address of a folder) visible under a name."""
    dataset = open_dataset(value)
    view(connection, name, dataset)
    return dataset


def local_copy(address: str, folder: Path) -> Path:
    """A local file with the content of any fsspec URL, such as `zip://flights.csv::/data/flights.csv.zip`.

    A file that is local already is not copied. Raises `Fail` when there is none.
    """
    path = urls.local_path(address)
    if path is None:
        path = folder / Path(address.partition("::")[0]).name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with urls.open_read(address) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target, 1024 * 1024)
        except (FileNotFoundError, KeyError) as error:
            raise Fail(f"There is no file at {address}.") from error
    elif not path.is_file():
        raise Fail(f"There is no file at {path}.")
    return path


def schema_of(
    connection: DuckDBPyConnection, query: str, parameters: Mapping[str, Json] | None = None
) -> list[tuple[str, str]]:
    """The columns of a query and their DuckDB types, found without running it."""
    return [(str(row[0]), str(row[1])) for row in connection.execute(f"DESCRIBE {query}", parameters).fetchall()]


def write_dataset(
    connection: DuckDBPyConnection,
    query: str,
    context: Context,
    *,
    parameters: Mapping[str, Json] | None = None,
    uri: str | None = None,
    part_bytes: int = PART_BYTES,
) -> DatasetManifest:
    """Runs a query and publishes its rows as a data set of Parquet parts, in the query's order.

    Args:
        connection: A connection of `connect`.
        query: A SELECT statement.
        context: The attempt: the parts are made in its work folder.
        parameters: The values of the query's `$name`s.
        uri: Where to publish; by default the task's own `context.output_uri()`.
        part_bytes: About how large a part may get.
    """
    stage = context.work_dir / "parts"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    rows = connection.execute(
        f"COPY ({query}) TO {literal(str(stage))} ({_PARQUET}, FILE_SIZE_BYTES {part_bytes},"
        " FILENAME_PATTERN 'part-{i}', OVERWRITE_OR_IGNORE true, RETURN_STATS true)",
        parameters,
    ).fetchall()
    written = sorted((Part(Path(row[0]), int(row[1])) for row in rows), key=_part_number)
    manifest = publish(uri or context.output_uri(), written, schema_of(connection, query, parameters))
    shutil.rmtree(stage, ignore_errors=True)
    return manifest


def write_part(connection: DuckDBPyConnection, query: str, path: Path) -> Part:
    """Runs a query and writes its rows to one local Parquet file that appears whole, and durably, or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    row = connection.execute(f"COPY ({query}) TO {literal(str(temporary))} ({_PARQUET})").fetchone()
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    return Part(path, int(row[0]) if row else 0)


def rows_of(connection: DuckDBPyConnection, paths: Sequence[str]) -> list[int]:
    """How many rows each of these Parquet files has, from their footers. Paths are as `readable_parts` gives them."""
    footer = "SELECT num_rows FROM parquet_file_metadata({})"
    rows = [connection.execute(footer.format(literal(path))).fetchone() for path in paths]
    return [int(row[0]) for row in rows if row is not None]


def small_rows(connection: DuckDBPyConnection, query: str) -> list[dict[str, Json]]:
    """The rows of a small result as JSON objects: times are text, NaN and the infinities null."""
    # DuckDB's own JSON: it knows every type, and its Python values of times with a zone would need pytz.
    rows = connection.execute(f"SELECT to_json(yarrow_row)::VARCHAR FROM ({query}) yarrow_row").fetchall()
    return [json.loads(row, parse_constant=lambda _: None) for (row,) in rows]


def require_columns(wanted: Sequence[str], present: Sequence[str], where: str) -> None:
    """Raises `Fail` when a column is not there, naming those that are."""
    missing = [name for name in wanted if name not in present]
    if missing:
        none = "is no column" if len(missing) == 1 else "are no columns"
        raise Fail(
            f"{where}: there {none} {', '.join(f'`{name}`' for name in missing)}.",
            hint=f"The columns are {', '.join(f'`{name}`' for name in present)}.",
        )


def _part_number(part: Part) -> int:
    return int(part.path.stem.rpartition("-")[2])


def unglobbed(path: str) -> str:
    """A path for DuckDB's readers whose own `*`, `?` and `[` are not taken for a pattern."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def _memory_share(connection: DuckDBPyConnection, cpus: int) -> int:
    """Bytes: DuckDB's default is four fifths of the machine (or its control group); a slot takes its cores' share."""
    row = connection.execute("SELECT current_setting('memory_limit')").fetchone()
    number, unit = str(row[0] if row else "1 GiB").split()
    return int(float(number) * _UNITS[unit] * min(1.0, cpus / (os.cpu_count() or 1)))


def _first_paragraph(error: Exception) -> str:
    return str(error).partition("\n\n")[0]

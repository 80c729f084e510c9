"""Files and data sets as views in DuckDB, by the name of the file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from yarrow import urls
from yarrow.errors import Fail
from yarrow.jsontypes import Json
from yarrow_operators import ducks

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_READERS = {
    ".csv": "read_csv",
    ".tsv": "read_csv",
    ".txt": "read_csv",
    ".json": "read_json",
    ".jsonl": "read_json",
    ".ndjson": "read_json",
    ".parquet": "read_parquet",
}
_COMPRESSED = (".gz", ".zst")


def view(
    duck: DuckDBPyConnection,
    name: str,
    value: str | Mapping[str, Json],
    folder: Path,
    options: Mapping[str, Json] | None = None,
) -> None:
    """Makes a file or a data set visible under a name.

    Args:
        duck: A connection of `ducks.connect`.
        name: Of the view.
        value: The manifest of a data set, the address of its folder (without a file's ending), or a file: a path, a
            local pattern such as `/data/*.csv`, or an fsspec URL such as `zip://flights.csv::/data/flights.csv.zip`.
        folder: Where a file that is not local is copied to.
        options: Of DuckDB's reader of that kind of file.

    Raises:
        Fail: There is no such file.
    """
    reader = _reader(value) if isinstance(value, str) else None
    if reader is None or not isinstance(value, str):
        ducks.view_input(duck, name, dict(value) if isinstance(value, Mapping) else value)
        return
    path = _local(value, folder)
    arguments = [
        ducks.literal(path),
        *(f"{_option(key)} = {ducks.literal(item)}" for key, item in (options or {}).items()),
    ]
    duck.execute(f"CREATE VIEW {ducks.quote(name)} AS SELECT * FROM {reader}({', '.join(arguments)})")


def discard(*folders: Path) -> None:
    """Removes the copies."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _reader(address: str) -> str | None:
    suffixes = Path(address.partition("::")[0]).suffixes
    if suffixes and suffixes[-1].lower() in _COMPRESSED:
        suffixes.pop()
    return _READERS.get(suffixes[-1].lower()) if suffixes else None


def _local(address: str, folder: Path) -> str:
    path = urls.local_path(address)
    if path is not None and not path.exists() and re.search(r"[*?\[]", str(path)):
        return str(path)
    return ducks.unglobbed(str(ducks.local_copy(address, folder)))


def _option(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]+", name):
        raise Fail(f"`{name}` is not the name of a reader's option.")
    return name

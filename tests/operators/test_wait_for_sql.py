"""Waiting for what a query finds."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from yarrow import Fail, NotYet, YarrowError
from yarrow_operators.wait_for_sql import WaitForSql


@pytest.fixture
def database(context: Any, tmp_path: Path) -> sqlite3.Connection:
    context.connections = {"shop": f"sqlite:///{tmp_path}/shop.db"}
    database = sqlite3.connect(tmp_path / "shop.db", isolation_level=None)
    database.execute("CREATE TABLE orders (day TEXT, amount INTEGER)")
    return database


def missing(task: WaitForSql, context: Any) -> str:
    answer = task.poke(context)
    assert isinstance(answer, NotYet)
    return answer.reason


def test_in_a_database(context: Any, database: sqlite3.Connection) -> None:
    task = WaitForSql(
        conn_id="shop", query="SELECT count(*) AS n, 'x' AS y FROM orders WHERE day = :day", parameters={"day": "1"}
    )
    database.execute("INSERT INTO orders VALUES ('2', 5)")
    assert missing(task, context) == "The first value of the query is 0."
    database.execute("INSERT INTO orders VALUES ('1', 5)")
    assert task.poke(context) == {"n": 1, "y": "x"}
    database.close()


def test_until_there_are_rows(context: Any, database: sqlite3.Connection) -> None:
    query = "SELECT amount FROM orders"
    by_rows, by_value = WaitForSql(conn_id="shop", query=query, until="rows"), WaitForSql(conn_id="shop", query=query)
    assert missing(by_rows, context) == missing(by_value, context) == "The query has no rows yet."
    database.execute("INSERT INTO orders VALUES ('1', 0)")
    assert by_rows.poke(context) == {"amount": 0}
    missing(by_value, context)
    database.close()


@pytest.mark.parametrize("value", ["NULL", "0", "0.0", "'0'", "''", "false", "0::DECIMAL(9,2)"])
def test_values_that_mean_not_yet(context: Any, value: str) -> None:
    missing(WaitForSql(query=f"SELECT {value} AS x, 1 AS y"), context)


@pytest.mark.parametrize("value", ["1", "-1", "'false'", "true", "DATE '2026-01-01'", "[0]"])
def test_values_that_mean_it_is_there(context: Any, value: str) -> None:
    assert WaitForSql(query=f"SELECT {value} AS x").poke(context)


def test_over_files(context: Any, tmp_path: Path) -> None:
    task = WaitForSql(
        query="CREATE TABLE big AS SELECT * FROM source WHERE rows > $least; SELECT count(*) AS n FROM big;",
        source=f"{tmp_path}/*.csv",
        parameters={"least": 10},
    )
    (tmp_path / "a.csv").write_text("rows\n5\n")
    missing(task, context)
    (tmp_path / "b.csv").write_text("rows\n15\n16\n")
    assert task.poke(context) == {"n": 2}


def test_what_is_wrong_is_not_waited_for(context: Any, database: sqlite3.Connection) -> None:
    with pytest.raises(Fail, match="no such table"):
        WaitForSql(conn_id="shop", query="SELECT * FROM absent").poke(context)
    with pytest.raises(Fail, match="has no rows"):
        WaitForSql(query="CREATE TABLE t (x INTEGER)").poke(context)
    context.connections["away"] = "postgresql://u:p@127.0.0.1:1/x?connect_timeout=1"
    with pytest.raises(YarrowError, match="Connection `away`") as caught:
        WaitForSql(conn_id="away", query="SELECT 1").poke(context)
    assert not isinstance(caught.value, Fail)
    database.close()


def test_it_is_checked_when_its_file_is_loaded() -> None:
    problems = dict(WaitForSql.check({"query": " ", "conn_id": "shop", "source": "a.csv", "poke_interval": "10ms"}, ()))
    assert set(problems) == {("query",), ("source",), ("poke_interval",)}

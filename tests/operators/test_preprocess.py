"""`preprocess` on the real flights of July: each step against the same thing said in plain SQL."""

from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from yarrow.errors import Fail
from yarrow_operators.preprocess import Preprocess
from yarrow_operators.sql import Sql

DAGS = Path(__file__).parents[2] / "dags"


def table(dataset: Any, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query over the data set, which it calls `flights`."""
    paths = [f"{dataset['uri'].removeprefix('file://')}{part}" for part in dataset["parts"]]
    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        flights = duck.from_parquet(paths)
        return flights.query("flights", query).fetchall()


def same(result: Any, july: Any, expression: str, column: str) -> None:
    """The new column holds what the expression gives for the old rows, row by row."""
    old = table(july, f"SELECT {expression} FROM flights")
    assert table(result, f'SELECT "{column}" FROM flights') == old
    assert len(set(old)) > 1


@pytest.mark.parametrize(
    ("step", "column", "expression"),
    [
        ({"op": "cast", "columns": {"flight": "VARCHAR"}}, "flight", "flight::VARCHAR"),
        (
            {"op": "cast", "columns": {"dep_delay": "UTINYINT"}, "on_error": "null"},
            "dep_delay",
            "if(dep_delay BETWEEN 0 AND 255, dep_delay, NULL)",
        ),
        ({"op": "fill_null", "columns": {"dep_delay": -99}}, "dep_delay", "ifnull(dep_delay, -99)"),
        ({"op": "fill_null", "columns": {"tailnum": "it's"}}, "tailnum", "ifnull(tailnum, 'it''s')"),
        (
            {"op": "clip", "columns": {"dep_delay": {"min": 0, "max": 60}}},
            "dep_delay",
            "if(dep_delay IS NULL, NULL, least(greatest(dep_delay, 0), 60))",
        ),
        ({"op": "scale", "columns": {"distance": {"mean": 1000, "std": 500}}}, "distance", "(distance - 1000) / 500.0"),
        ({"op": "scale", "columns": {"distance": {"min": 0, "max": 5000}}}, "distance", "distance / 5000.0"),
        ({"op": "one_hot", "column": "origin", "values": ["JFK", "LGA"]}, "origin_LGA", "(origin = 'LGA')::INT"),
        ({"op": "hash", "column": "dest", "buckets": 8}, "dest_hash", "md5_number_lower(dest) % 8"),
        (
            {"op": "bucketize", "column": "dep_delay", "boundaries": [0, 15]},
            "dep_delay_bucket",
            "if(dep_delay IS NULL, NULL, (dep_delay >= 0)::INT + (dep_delay >= 15)::INT)",
        ),
        (
            {"op": "bucketize", "column": "distance", "boundaries": [500], "labels": ["short", "long"], "into": "haul"},
            "haul",
            "if(distance < 500, 'short', 'long')",
        ),
        ({"op": "date_parts", "column": "time_hour", "parts": ["hour"]}, "time_hour_hour", "hour(time_hour)"),
        (
            {
                "op": "date_parts",
                "column": "time_hour",
                "parts": ["hour", "dow"],
                "prefix": "local_",
                "timezone": "America/New_York",
            },
            "local_hour",
            "hour",
        ),
        ({"op": "lower", "columns": ["dest"]}, "dest", "lower(dest)"),
        (
            {"op": "regex_extract", "column": "tailnum", "pattern": "^N([0-9]+)", "group": 1, "into": "number"},
            "number",
            "nullif(regexp_extract(tailnum, '^N([0-9]+)', 1), '')",
        ),
        ({"op": "rename", "columns": {"dest": "destination"}}, "destination", "dest"),
        ({"op": "expr", "columns": {"gain": "dep_delay - arr_delay"}}, "gain", "dep_delay - arr_delay"),
        ({"op": "expr", "columns": {"distance": "distance * 1.609"}}, "distance", "distance * 1.609"),
        ({"op": "sql", "query": "SELECT flight + 1 AS next FROM input;"}, "next", "flight + 1"),
    ],
)
def test_a_step(context: Any, july: Any, step: Any, column: str, expression: str) -> None:
    same(Preprocess(input=july, steps=[step]).execute(context), july, expression, column)


@pytest.mark.parametrize(
    ("step", "columns"),
    [
        ({"op": "select", "columns": ["flight", "carrier"]}, ["flight", "carrier"]),
        ({"op": "one_hot", "column": "origin", "values": ["JFK"], "prefix": "o"}, "-origin +oJFK"),
        ({"op": "one_hot", "column": "origin", "values": ["JFK"], "drop": False}, "+origin_JFK"),
        ({"op": "drop", "columns": ["year", "month"]}, "-year -month"),
    ],
)
def test_the_columns_after_a_step(context: Any, july: Any, step: Any, columns: Any) -> None:
    expected = [name for name, _ in july["schema"]]
    for change in columns.split() if isinstance(columns, str) else ():
        if change[0] == "-":
            expected.remove(change[1:])
        else:
            expected.append(change[1:])
    result = Preprocess(input=july, steps=[step]).execute(context)
    assert [name for name, _ in result["schema"]] == (expected if isinstance(columns, str) else columns)


def test_steps_build_on_each_other(context: Any, july: Any) -> None:
    result = Preprocess(
        input=july,
        sql="SELECT carrier, flight, dep_delay FROM input -- the flights\n;",
        steps=[
            {"op": "filter", "where": "dep_delay IS NOT NULL"},
            {"op": "expr", "columns": {"late": "dep_delay > 15"}},
            {"op": "cast", "columns": {"late": "INTEGER"}},
            {"op": "drop", "columns": ["dep_delay"]},
        ],
    ).execute(context)
    assert result["schema"] == [["carrier", "VARCHAR"], ["flight", "BIGINT"], ["late", "INTEGER"]]
    assert table(result, "SELECT count(*), sum(late) FROM flights") == table(
        july, "SELECT count(dep_delay), count(*) FILTER (dep_delay > 15) FROM flights"
    )
    assert context.metrics["rows_in"] == 29_425
    assert context.metrics["rows_out"] == result["rows"]
    assert context.metrics["rows_rejected"] == 0  # what a filter leaves out was not wrong


@pytest.mark.parametrize("how", ["left", "inner"])
def test_a_join_with_another_data_set(make_context: Any, july: Any, flights_zip: Path, how: Any) -> None:
    airports: Any = Sql(
        source=str(flights_zip.parent / "airports.csv"), query="SELECT faa, name, alt FROM source"
    ).execute(make_context("airports"))
    result = Preprocess(
        input=july,
        inputs={"airports": airports},
        steps=[
            {"op": "join", "input": "airports", "on": {"dest": "faa"}, "how": how, "columns": ["name"]},
            {"op": "select", "columns": ["flight", "dest", "name"]},
        ],
    ).execute(make_context("join"))
    unknown = table(july, "SELECT count(*) FROM flights WHERE dest IN ('SJU', 'BQN', 'STT', 'PSE')")[0][0]
    assert unknown > 0
    assert result["rows"] == 29_425 - (unknown if how == "inner" else 0)
    assert table(result, "SELECT DISTINCT name FROM flights WHERE dest = 'ATL'") == [
        ("Hartsfield Jackson Atlanta Intl",)
    ]


def test_the_features_of_the_example(context: Any, make_context: Any, july: Any) -> None:
    steps = yaml.safe_load((DAGS / "features.yaml").read_text())
    result = Preprocess(input=july, steps=steps).execute(context)
    assert table(result, "SELECT sum(origin_EWR + origin_JFK + origin_LGA), count(*) FROM flights") == [
        (29_425, 29_425)
    ]
    again = Preprocess(input=july, steps=steps).execute(make_context("again"))
    assert again["digest"] == result["digest"]


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        (
            [{"op": "drop", "columns": ["nope"]}],
            "step 1 .drop.: there is no column `nope`. The columns are `time_hour`",
        ),
        ([{"op": "lower", "columns": ["dest"]}, {"op": "expr", "columns": {"a": "nope + 1"}}], "step 2 .expr.: .*nope"),
        ([{"op": "cast", "columns": {"dest": "INT); DROP"}}], "`INT.; DROP` is not a type"),
        ([{"op": "clip", "columns": {"distance": {}}}], "`distance` needs `min` or `max`"),
        ([{"op": "scale", "columns": {"distance": {"mean": 1}}}], "`distance` needs `mean` and `std`"),
        ([{"op": "scale", "columns": {"distance": {"mean": 1, "std": 0}}}], "would be divided by 0"),
        ([{"op": "bucketize", "column": "distance", "boundaries": [5, 1]}], "must ascend"),
        ([{"op": "bucketize", "column": "distance", "boundaries": [5], "labels": ["a"]}], "need 2 labels, not 1"),
        ([{"op": "rename", "columns": {"dest": "origin"}}], "two columns would be called `origin`"),
        ([{"op": "join", "input": "planes", "on": ["tailnum"]}], "There is no data set `planes` in `inputs`"),
        ([{"op": "cast", "columns": {"dest": "INTEGER"}}], "DuckDB: Conversion Error"),
        ([], "There is nothing to do"),
    ],
)
def test_a_step_that_does_not_fit(context: Any, july: Any, steps: Any, sentence: str) -> None:
    with pytest.raises(Fail, match=sentence):
        Preprocess(input=july, steps=steps).execute(context)


def test_a_join_of_equal_names(context: Any, july: Any) -> None:
    with pytest.raises(Fail, match="join: both sides have `time_hour`"):
        Preprocess(
            input=july, inputs={"other": july}, steps=[{"op": "join", "input": "other", "on": ["flight"]}]
        ).execute(context)


def test_input_is_not_a_name_of_inputs(context: Any, july: Any) -> None:
    with pytest.raises(Fail, match="`input` is what the operator's own input is called"):
        Preprocess(input=july, inputs={"input": july}, sql="SELECT 1").execute(context)


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ({"sql": "SELECT 1"}, []),
        ({"steps": "{{ xcom.plan }}"}, []),
        ({}, [((), "There is nothing to do: give `steps` or `sql`.")]),
        (
            {"steps": [{"op": "join", "input": "planes", "on": ["tailnum"]}], "inputs": {"airports": "file:///a/"}},
            [(("steps", 0, "input"), "There is no data set `planes` in `inputs`; there is `airports`.")],
        ),
        (
            {"sql": "SELECT 1", "inputs": {"input": "file:///a/"}},
            [(("inputs", "input"), "`input` is what the operator's own input is called; choose another name.")],
        ),
    ],
)
def test_what_is_wrong_when_the_file_is_loaded(arguments: Any, problems: Any) -> None:
    assert list(Preprocess.check(arguments, [])) == problems

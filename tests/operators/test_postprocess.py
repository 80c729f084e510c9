"""`postprocess` on real scores of July: labels, ranges, files and tables, and twice is once."""

import os
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy
import yaml

from yarrow import urls
from yarrow.dataset import open_dataset
from yarrow.errors import Fail
from yarrow_operators import ducks
from yarrow_operators.infer import Infer
from yarrow_operators.postprocess import Postprocess
from yarrow_operators.preprocess import Preprocess

DAGS = Path(__file__).parents[2] / "dags"
JULY = 29_425
LABELS = {"threshold": [0.3, 0.5], "labels": ["on_time", "at_risk", "late"]}


@pytest.fixture(scope="module")
def scores(july: Any, session_context: Any) -> dict[str, Any]:
    steps = yaml.safe_load((DAGS / "features.yaml").read_text())
    features = Preprocess(input=july, steps=steps).execute(session_context("features"))
    keep = ["time_hour", "carrier", "flight", "origin", "dest", "arr_delay"]
    return dict(
        Infer(input=dict(features), model="models/late_flights.onnx", keep=keep).execute(session_context("scores"))
    )


def table(dataset: Any, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as duck:
        duck.execute("SET TimeZone = 'UTC'")
        ducks.view_input(duck, "rows", dataset)
        return duck.execute(query).fetchall()


def test_scores_become_labels(context: Any, scores: Any) -> None:
    result = Postprocess(input=scores, ranges={"probability": {"min": 0, "max": 1}}, **LABELS).execute(context)
    expected = dict(
        table(
            scores,
            "SELECT if(probability < 0.3, 'on_time', if(probability < 0.5, 'at_risk', 'late')) AS label, count(*)"
            " FROM rows GROUP BY 1",
        )
    )
    assert result["counts"] == expected
    assert sum(result["counts"].values()) == result["rows"] == JULY
    assert list(result["counts"]) == LABELS["labels"]
    assert table(result, "SELECT label, count(*) FROM rows GROUP BY 1 ORDER BY 2 DESC")[0] == (
        "on_time",
        expected["on_time"],
    )
    assert [column for column, _ in result["schema"]] == [*(column for column, _ in scores["schema"]), "label"]
    assert context.metrics["rows_in"] == context.metrics["rows_out"] == JULY
    assert context.metrics["rows_rejected"] == context.metrics["rows_out_of_range"] == 0
    assert context.metrics["label_late"] == expected["late"]
    assert result["output"] == result["uri"] == context.output_uri()


def test_a_score_equal_to_the_threshold_has_the_upper_label(context: Any, make_context: Any, scores: Any) -> None:
    halves = Preprocess(
        input=scores, steps=[{"op": "expr", "columns": {"score": "if(flight % 2 = 0, 0.5, 0.25)"}}]
    ).execute(make_context("halves"))
    result = Postprocess(input=dict(halves), column="score", threshold=0.5, label_column="late").execute(context)
    even = table(scores, "SELECT count(*) FROM rows WHERE flight % 2 = 0")[0][0]
    assert result["counts"] == {"negative": JULY - even, "positive": even}


def test_classes_become_labels(context: Any, make_context: Any, scores: Any) -> None:
    classes = Preprocess(
        input=scores, steps=[{"op": "expr", "columns": {"class": "(arr_delay > 15)::INTEGER"}}]
    ).execute(make_context("classes"))
    names = {"0": "on_time", "1": "late"}
    result = Postprocess(input=dict(classes), column="class", label_map=names, label_column="class").execute(context)
    assert result["counts"] == dict(
        table(
            scores,
            "SELECT if(arr_delay > 15, 'late', 'on_time'), count(*) FROM rows WHERE arr_delay IS NOT NULL GROUP BY 1",
        )
    )
    assert table(result, "SELECT count(*) FROM rows WHERE class IS NULL") == [(JULY - sum(result["counts"].values()),)]
    with pytest.raises(Fail, match="`label_map` has no label for `0`"):
        Postprocess(input=dict(classes), column="class", label_map={"1": "late"}).execute(context)


def test_rounding_and_the_choice_of_columns(context: Any, scores: Any) -> None:
    result = Postprocess(input=scores, round={"probability": 2}, columns=["probability", "flight"]).execute(context)
    assert result["schema"] == [["probability", "FLOAT"], ["flight", "BIGINT"]]
    assert result["counts"] == {}
    assert table(result, "SELECT probability FROM rows LIMIT 50 OFFSET 100") == table(
        scores, "SELECT round(probability, 2) FROM rows LIMIT 50 OFFSET 100"
    )


def test_the_label_is_of_the_score_before_rounding(context: Any, scores: Any) -> None:
    result = Postprocess(input=scores, round={"probability": 0}, **LABELS).execute(context)
    assert result["counts"]["at_risk"] > 0


def test_out_of_range_fails_before_anything_is_published(context: Any, scores: Any) -> None:
    far = table(scores, "SELECT count(*) FROM rows WHERE probability > 0.5")[0][0]
    with pytest.raises(
        Fail, match=f"`probability` min 0, max 0.5 does not hold in {far:,} rows. Nothing was published"
    ):
        Postprocess(input=scores, ranges={"probability": {"min": 0, "max": 0.5}}, output="late.csv").execute(context)
    assert not urls.exists(f"{context.objects_url}/late.csv")


def test_out_of_range_rows_are_dropped_or_clipped(context: Any, make_context: Any, scores: Any) -> None:
    far = table(scores, "SELECT count(*) FROM rows WHERE probability > 0.5")[0][0]
    ranges: Any = {"probability": {"max": 0.5}, "arr_delay": {"min": -1000}}
    dropped = Postprocess(input=scores, ranges=ranges, on_out_of_range="drop").execute(context)
    assert dropped["rows"] == JULY - far
    assert context.metrics["rows_rejected"] == context.metrics["rows_out_of_range"] == far
    clipped = Postprocess(input=scores, ranges=ranges, on_out_of_range="clip").execute(make_context("clipped"))
    assert table(clipped, "SELECT count(*), max(probability) FROM rows WHERE probability = 0.5") == [(far, 0.5)]


def test_nan_is_out_of_range_and_null_is_not(context: Any, make_context: Any, scores: Any) -> None:
    odd = Preprocess(
        input=scores,
        steps=[
            {
                "op": "expr",
                "columns": {"probability": "if(flight = 1, 'nan'::FLOAT, if(flight = 2, NULL, probability))"},
            }
        ],
    ).execute(make_context("odd"))
    nan, null = table(scores, "SELECT count(*) FILTER (flight = 1), count(*) FILTER (flight = 2) FROM rows")[0]
    result = Postprocess(
        input=dict(odd), ranges={"probability": {"min": 0, "max": 1}}, on_out_of_range="drop", **LABELS
    ).execute(context)
    assert result["rows"] == JULY - nan
    assert sum(result["counts"].values()) == JULY - nan - null


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_file(context: Any, scores: Any, ending: str) -> None:
    post = Postprocess(input=scores, output=f"out/2013 07/scores.{ending}", **LABELS)
    result = post.execute(context)
    path = Path(f"{context.root}/objects/out/2013 07/scores.{ending}")
    assert result["output"] == f"file://{path}"
    assert (result["format"], result["parts"], result["bytes"]) == (ending, [path.name], path.stat().st_size)
    assert table(result, "SELECT count(*), min(time_hour)::VARCHAR FROM rows") == [(JULY, "2013-07-01 09:00:00+00")]
    assert result["schema"][0] == ["time_hour", "TIMESTAMP WITH TIME ZONE"]

    before = path.read_bytes()
    assert post.execute(context)["digest"] == result["digest"]
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_failed_publication_leaves_the_old_file(context: Any, scores: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    target = context.root / "scores.csv"
    target.write_text("old")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        Postprocess(input=scores, output=str(target)).execute(context)
    assert target.read_text() == "old"
    assert not [name for name in os.listdir(context.root) if name.endswith(".tmp")]


@pytest.fixture
def database(tmp_path: Path) -> Any:
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/results.db", poolclass=sqlalchemy.NullPool)

    def query(text: str) -> list[Any]:
        with engine.begin() as connection:
            result = connection.execute(sqlalchemy.text(text))
            return [tuple(row) for row in result] if result.returns_rows else []

    query.connections = {"results": f"sqlite:///{tmp_path}/results.db"}  # type: ignore[attr-defined]  # one fixture
    return query


def test_a_table_has_the_rows_of_each_run_once(make_context: Any, scores: Any, database: Any) -> None:
    def publish(run_id: str, **fields: Any) -> Any:
        context = make_context(run_id, run_id=run_id, connections=database.connections)
        arguments = {"input": scores, "conn_id": "results", "table": "scores", "round": {"probability": 4}, **LABELS}
        return Postprocess(**(arguments | fields)).execute(context)

    result = publish("july")
    assert result["output"] == "results:scores"
    assert open_dataset(result).rows == JULY
    assert database("SELECT count(*), min(time_hour) FROM scores") == [(JULY, "2013-07-01 09:00:00.000000")]
    assert database("SELECT count(DISTINCT flight), count(arr_delay) FROM scores") == table(
        scores, "SELECT count(DISTINCT flight), count(arr_delay) FROM rows"
    )

    publish("july")  # a retry
    publish("again")
    assert database("SELECT _run, count(*) FROM scores GROUP BY 1 ORDER BY 1") == [
        ("flights/again/again/-1", JULY),
        ("flights/july/july/-1", JULY),
    ]
    publish("last", mode="overwrite")
    assert database("SELECT DISTINCT _run FROM scores") == [("flights/last/last/-1",)]


@pytest.mark.slow
def test_a_table_in_postgresql(make_context: Any, scores: Any, postgres_url: str) -> None:
    uri = f"postgresql://{postgres_url.partition('://')[2]}"
    for run_id in ("july", "again", "july"):
        context = make_context(run_id, run_id=run_id, connections={"results": uri})
        Postprocess(input=scores, conn_id="results", table="scores", **LABELS).execute(context)
    engine = sqlalchemy.create_engine(postgres_url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        text = "SELECT _run, label, count(*), min(time_hour AT TIME ZONE 'UTC')::TEXT FROM scores GROUP BY 1, 2"
        found = {tuple(row) for row in connection.execute(sqlalchemy.text(text))}
    expected = table(
        scores,
        "SELECT if(probability < 0.3, 'on_time', if(probability < 0.5, 'at_risk', 'late')) AS label, count(*),"
        " (min(time_hour) AT TIME ZONE 'UTC')::VARCHAR FROM rows GROUP BY 1",
    )
    assert found == {(f"flights/{run}/{run}/-1", *row) for run in ("july", "again") for row in expected}


def test_a_table_keeps_its_rows_when_the_new_ones_do_not_fit(context: Any, scores: Any, database: Any) -> None:
    database("CREATE TABLE scores (_run TEXT, flight INTEGER CHECK (flight < 100))")
    database("INSERT INTO scores VALUES ('old', 1)")
    context.connections = database.connections
    post: Any = {"input": scores, "conn_id": "results", "table": "scores", "mode": "overwrite"}
    with pytest.raises(Fail, match="The table `scores` has no column `time_hour`, `carrier`"):
        Postprocess(**post).execute(context)
    with pytest.raises(Fail, match="Connection `results`: CHECK constraint failed"):
        Postprocess(**post, columns=["flight"]).execute(context)
    assert database("SELECT * FROM scores") == [("old", 1)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"threshold": [0.3, 0.5]}, "2 thresholds need 3 `labels`"),
        ({"threshold": 0.5, "labels": ["a"]}, "1 thresholds need 2 labels, not 1"),
        ({"threshold": [0.5, 0.3], "labels": ["a", "b", "c"]}, "The thresholds must ascend"),
        ({"threshold": 0.5, "label_map": {"1": "late"}}, "`label_map` is for a result without `threshold`"),
        ({"threshold": 0.5, "column": "nope"}, "column: there is no column `nope`"),
        ({"round": {"nope": 1}}, "round: there is no column `nope`"),
        ({"columns": ["nope"]}, "columns: there is no column `nope`"),
        ({"ranges": {"nope": {"min": 1}}}, "ranges: there is no column `nope`"),
        ({"output": "a.json"}, "must end in .parquet or .csv"),
        ({"output": "../a.csv"}, "leads out of its folder"),
        ({"conn_id": "results"}, "`conn_id` and `table` belong together"),
        ({"conn_id": "results", "table": "a", "output": "a.csv"}, "to a file or to a table, not to both"),
    ],
)
def test_what_does_not_fit(context: Any, scores: Any, arguments: Any, sentence: str) -> None:
    with pytest.raises(Fail, match=sentence):
        Postprocess(input=scores, **arguments).execute(context)


@pytest.mark.parametrize("output", ["{{ ds }}.parquet", "a.{{ params.ending }}"])
def test_a_template_is_not_judged_before_it_is_rendered(output: str) -> None:
    assert list(Postprocess.check({"output": output, "threshold": "{{ params.x }}"}, [])) == []

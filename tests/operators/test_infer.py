"""`infer` with the real champion on the real flights of July; killed anywhere, it loses at most a chunk."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import onnxruntime
import pytest
import yaml

from yarrow.dataset import open_dataset, publish
from yarrow.errors import Fail, Interrupted
from yarrow_operators import ducks
from yarrow_operators.infer import Infer, Latencies
from yarrow_operators.onnx_model import OnnxModel
from yarrow_operators.preprocess import Preprocess

DAGS = Path(__file__).parents[2] / "dags"
MODEL = DAGS / "models/late_flights.onnx"
JULY = 29_425


@pytest.fixture(scope="module")
def features(july: Any, session_context: Any) -> dict[str, Any]:
    """July's features in three parts, so that chunks end at the ends of parts too."""
    steps = yaml.safe_load((DAGS / "features.yaml").read_text())
    context = session_context("features")
    whole = Preprocess(input=july, steps=steps).execute(context)
    parts = []
    with duckdb.connect() as duck:
        relation = ducks.relation(duck, open_dataset(dict(whole)))
        for number, (start, rows) in enumerate(((0, 10_000), (10_000, 10_000), (20_000, 9_425))):
            query = f"SELECT * FROM {relation} LIMIT {rows} OFFSET {start}"
            parts.append(ducks.write_part(duck, query, context.work_dir / f"{number}.parquet"))
    return dict(
        publish(context.output_uri("in_parts"), parts, [(name, kind) for name, kind in whole["schema"]]).to_json()
    )


def column(dataset: Any, name: str) -> np.ndarray[Any, Any]:
    with duckdb.connect() as duck:
        query = f'SELECT "{name}" FROM {ducks.relation(duck, open_dataset(dataset))}'
        return np.asarray(duck.execute(query).fetchnumpy()[name])


def contents(dataset: Any) -> list[bytes]:
    return [Path(address.removeprefix("file://")).read_bytes() for address in open_dataset(dataset).part_urls]


def test_every_row_is_scored_in_its_place(context: Any, features: Any) -> None:
    result = Infer(input=features, model="models/late_flights.onnx", checkpoint_rows=4000, batch_rows=1000).execute(
        context
    )

    session = onnxruntime.InferenceSession(MODEL.read_bytes(), providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["yarrow.features"])
    matrix = np.column_stack([column(features, name) for name in names]).astype(np.float32)
    expected = session.run(["probabilities"], {"features": matrix})[0][:, 1]

    assert result["rows"] == JULY
    assert len(result["parts"]) == 9  # 10,000 rows are chunks of 4,000, 4,000 and 2,000
    assert result["schema"] == [*features["schema"], ["probability", "FLOAT"]]
    # The order in which the trees are added up depends on the number of rows and threads.
    np.testing.assert_allclose(column(result, "probability"), expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(column(result, "flight"), column(features, "flight"))
    assert context.metrics["rows_in"] == context.metrics["rows_out"] == JULY
    assert context.metrics["rows_resumed"] == context.metrics["rows_rejected"] == 0
    percentiles = [context.metrics[f"latency_us_{name}"] for name in ("p50", "p95", "p99")]
    assert 0 < percentiles[0] <= percentiles[1] <= percentiles[2]


def test_chosen_columns_and_outputs(context: Any, features: Any) -> None:
    result = Infer(
        input=features,
        model=str(MODEL),
        keep=["flight"],
        outputs={"on_time": "probabilities[0]", "late": "probabilities[1]", "guess": "label"},
    ).execute(context)
    assert result["schema"] == [["flight", "BIGINT"], ["on_time", "FLOAT"], ["late", "FLOAT"], ["guess", "BIGINT"]]
    np.testing.assert_array_equal(column(result, "guess"), column(result, "late") > 0.5)


def test_nothing_but_scores(context: Any, features: Any) -> None:
    result = Infer(input=features, model=str(MODEL), keep=[]).execute(context)
    assert result["schema"] == [["probability", "FLOAT"]]


def test_a_data_set_without_rows(context: Any, make_context: Any, features: Any) -> None:
    empty = Preprocess(input=features, steps=[{"op": "filter", "where": "false"}]).execute(make_context("empty"))
    result = Infer(input=dict(empty), model=str(MODEL), keep=["flight"]).execute(context)
    assert result["rows"] == 0
    assert result["schema"] == [["flight", "BIGINT"], ["probability", "FLOAT"]]
    assert column(result, "probability").shape == (0,)


def test_an_interruption_keeps_what_is_done(context: Any, make_context: Any, features: Any) -> None:
    infer = Infer(input=features, model=str(MODEL), checkpoint_rows=2000, batch_rows=500)
    asked = 0

    def after_ten_batches() -> bool:
        nonlocal asked
        asked += 1
        return asked > 10

    context.interrupt = after_ten_batches
    with pytest.raises(Interrupted):
        infer.execute(context)
    context.interrupt = lambda: False
    result = infer.execute(context)
    assert context.metrics["rows_resumed"] == 4000  # ten batches are two chunks and a half
    assert contents(result) == contents(infer.execute(make_context("undisturbed")))


CHILD = """
import importlib.util, json, pathlib, sys
folder, conftest, features, model, stop_at, place = sys.argv[1:]
spec = importlib.util.spec_from_file_location("conftest", conftest)
module = importlib.util.module_from_spec(spec)
sys.modules["conftest"] = module
spec.loader.exec_module(module)
from yarrow_operators.infer import Infer

calls = {"progress": 0, "check_interrupted": 0}

def stop(where):
    calls[where] += 1
    if where == place and calls[where] == int(stop_at):
        print("here", flush=True)
        sys.stdin.read()

class Context(module.AttemptContext):
    def progress(self, *_):
        stop("progress")
    def check_interrupted(self):
        stop("check_interrupted")

Infer(
    input=json.loads(pathlib.Path(features).read_text()), model=model, checkpoint_rows=2000, batch_rows=500
).execute(Context(pathlib.Path(folder)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "stop_at", "done"),
    [
        ("check_interrupted", 1, 0),  # before the first batch
        ("check_interrupted", 7, 2000),  # in the middle of the second chunk
        ("progress", 1, 2000),  # after the first chunk
        ("progress", 8, 16_000),
        ("check_interrupted", 59, 28_000),  # in the last chunk: 14 whole ones are 28,000 rows and 56 batches
        ("progress", 15, JULY),  # everything is scored, nothing is published
    ],
)
def test_killed_anywhere_it_goes_on(
    tmp_path: Path, make_context: Any, features: Any, place: str, stop_at: int, done: int
) -> None:
    context = make_context("killed")
    listed = tmp_path / "features.json"
    listed.write_text(json.dumps(features))
    arguments = [context.root, Path(__file__).parent / "conftest.py", listed, MODEL, stop_at, place]
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        child.send_signal(signal.SIGKILL)
        assert child.wait(timeout=30) == -signal.SIGKILL
    with pytest.raises(Fail, match="no finished data set"):
        open_dataset(context.output_uri())

    infer = Infer(input=features, model=str(MODEL), checkpoint_rows=2000, batch_rows=500)
    result = infer.execute(context)
    assert context.metrics["rows_resumed"] == done
    undisturbed = infer.execute(make_context("undisturbed"))
    assert result["digest"] == undisturbed["digest"]
    assert contents(result) == contents(undisturbed)


def test_other_work_starts_anew(context: Any, tmp_path: Path, features: Any) -> None:
    copy = tmp_path / "model.onnx"
    copy.write_bytes(MODEL.read_bytes())
    Infer(input=features, model=str(copy)).execute(context)
    Infer(input=features, model=str(MODEL)).execute(context)
    assert context.metrics["rows_resumed"] == JULY  # the same model under another name
    Infer(input=features, model=str(MODEL), keep=["flight"]).execute(context)
    assert context.metrics["rows_resumed"] == 0
    Infer(input={**features, "digest": "sha256:other"}, model=str(MODEL), keep=["flight"]).execute(context)
    assert context.metrics["rows_resumed"] == 0
    assert len(list((context.work_dir / "infer").iterdir())) == 1


def test_missing_features_are_named(context: Any, make_context: Any, features: Any) -> None:
    fewer = Preprocess(input=features, steps=[{"op": "drop", "columns": ["dest_hash", "sched_hour"]}]).execute(
        make_context("fewer")
    )
    with pytest.raises(
        Fail, match=r"model features: there are no columns `sched_hour`, `dest_hash`. The columns are `time"
    ):
        Infer(input=dict(fewer), model=str(MODEL)).execute(context)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"model": "models/none.onnx"}, "There is no model at .*/dags/models/none.onnx"),
        ({"model": "../none.onnx"}, "leads out of its folder"),
        ({"model": "features.yaml"}, "ONNX Runtime can't load the model"),
        ({"features": ["distance"]}, "not what the model was trained with: it lacks `sched_hour`, "),
        ({"features": ["nope"]}, "and the model does not know `nope`"),
        ({"outputs": {"p": "nope"}}, "The model has no output `nope`. It has `label`, `probabilities`"),
        ({"outputs": {"p": "probabilities"}}, "has several columns. Choose one of them: `probabilities.0.`"),
        ({"outputs": {"p": "probabilities[7]"}}, "has no column 7"),
        ({"outputs": {"flight": "label"}}, "The input already has the column `flight`"),
        ({"keep": ["nope"]}, "keep: there is no column `nope`"),
    ],
)
def test_what_does_not_fit_the_model(context: Any, features: Any, arguments: Any, sentence: str) -> None:
    with pytest.raises(Fail, match=sentence):
        Infer(**{"input": features, "model": str(MODEL), **arguments}).execute(context)


def test_the_order_of_features_counts(context: Any, features: Any) -> None:
    names = OnnxModel(MODEL.read_bytes(), threads=1).features(None)
    Infer(input=features, model=str(MODEL), features=names).execute(context)
    with pytest.raises(Fail, match="the order differs, the model's is `sched_hour`, "):
        Infer(input=features, model=str(MODEL), features=names[::-1]).execute(context)


def test_text_is_no_number(context: Any, make_context: Any, features: Any) -> None:
    text = Preprocess(input=features, steps=[{"op": "cast", "columns": {"dest_hash": "VARCHAR"}}]).execute(
        make_context("text")
    )
    with pytest.raises(Fail, match="The feature `dest_hash` is text, and the model takes numbers"):
        Infer(input=dict(text), model=str(MODEL)).execute(context)


def test_latencies_count_rows() -> None:
    latencies = Latencies([(0.001, 1000), (0.004, 1000), (0.1, 10)])  # 1, 4 and 10,000 microseconds a row
    assert [round(latencies.percentile(share)) for share in (0.25, 0.5, 0.95, 0.99, 0.999)] == [1, 4, 4, 4, 10_000]

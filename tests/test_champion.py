"""The champion model that ships is the one that its script makes."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

ROOT = Path(__file__).parents[1]


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])


@pytest.mark.slow
def test_anyone_can_train_the_champion_again(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "tools/train_champion.py", "--output", tmp_path / "champion.onnx"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    shipped, again = session(ROOT / "dags/models/late_flights.onnx"), session(tmp_path / "champion.onnx")
    assert again.get_modelmeta().custom_metadata_map == shipped.get_modelmeta().custom_metadata_map
    width = shipped.get_inputs()[0].shape[1]
    # Any rows will do to compare two models: every tree is walked down in many ways.
    rows = np.random.default_rng(0).uniform(-2, 40, size=(2000, width)).astype(np.float32)
    first, second = (model.run(["probabilities"], {"features": rows})[0] for model in (shipped, again))
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)
    assert first.std() > 0.01

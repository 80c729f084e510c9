"""Models of other shapes than the champion's: one input for each feature, other types, other outputs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from yarrow.errors import Fail
from yarrow_operators.infer import Infer
from yarrow_operators.onnx_model import FEATURES, OnnxModel, OutputColumn
from yarrow_operators.preprocess import Preprocess
from yarrow_operators.sql import Sql

IRIS = Path(onnxruntime.__file__).parent / "datasets/logreg_iris.onnx"


def model(
    nodes: list[Any], inputs: list[tuple[str, int, list[Any]]], outputs: list[tuple[str, int, list[Any]]]
) -> bytes:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def gain() -> bytes:
    """dep_delay - arr_delay, of two inputs."""
    return model(
        [helper.make_node("Sub", ["dep_delay", "arr_delay"], ["gain"])],
        [("arr_delay", TensorProto.INT64, [None, 1]), ("dep_delay", TensorProto.INT64, [None, 1])],
        [("gain", TensorProto.INT64, [None, 1])],
    )


def test_an_input_for_each_feature(context: Any, july: Any, tmp_path: Path) -> None:
    (tmp_path / "gain.onnx").write_bytes(gain())
    arrived = Preprocess(input=july, steps=[{"op": "filter", "where": "arr_delay IS NOT NULL"}]).execute(context)
    result = Infer(input=dict(arrived), model=str(tmp_path / "gain.onnx"), keep=["dep_delay", "arr_delay"]).execute(
        context
    )
    wrong: Any = Sql(
        inputs={"scored": dict(result)},
        query="SELECT count(*) FILTER (gain IS DISTINCT FROM dep_delay - arr_delay) FROM scored",
        output="value",
    ).execute(context)
    assert wrong == 0
    assert result["schema"][-1] == ["gain", "BIGINT"]


def test_an_integer_feature_has_no_nulls(context: Any, july: Any, tmp_path: Path) -> None:
    (tmp_path / "gain.onnx").write_bytes(gain())
    with pytest.raises(
        Fail, match=r"The feature `(arr|dep)_delay` has nulls, and the model takes int64. Use `fill_null`"
    ):
        Infer(input=july, model=str(tmp_path / "gain.onnx")).execute(context)


def test_names_that_are_not_the_inputs() -> None:
    with pytest.raises(Fail, match="takes the inputs `arr_delay`, `dep_delay`; `features` names `dep_delay`"):
        OnnxModel(gain(), threads=1).features(["dep_delay"])


def test_text_features() -> None:
    upper = model(
        [helper.make_node("Identity", ["dest"], ["same"])],
        [("dest", TensorProto.STRING, [None])],
        [("same", TensorProto.STRING, [None])],
    )
    loaded = OnnxModel(upper, threads=1)
    assert loaded.select(["dest"], {"dest": "VARCHAR"}) == """coalesce("dest"::VARCHAR, ''::VARCHAR) AS "dest\""""
    outputs = loaded.outputs({})
    assert outputs == [OutputColumn("same", "same", None)]
    batch = {"dest": np.array(["ATL", "ORD"], dtype=object)}
    assert [list(array) for array in loaded.run(batch, ["dest"], outputs)] == [["ATL", "ORD"]]


def test_several_columns_of_one_output() -> None:
    softmax = model(
        [helper.make_node("Softmax", ["x"], ["p"])],
        [("x", TensorProto.DOUBLE, [None, 3])],
        [("p", TensorProto.DOUBLE, [None, 3])],
    )
    loaded = OnnxModel(softmax, threads=1)
    outputs = loaded.outputs({})
    assert [column.column for column in outputs] == ["p_0", "p_1", "p_2"]
    batch = {name: np.array([1.0, 2.0]) for name in "abc"}
    for array in loaded.run(batch, ["a", "b", "c"], outputs):
        np.testing.assert_allclose(array, [1 / 3, 1 / 3])


def test_a_model_that_does_not_name_its_features() -> None:
    loaded = OnnxModel(IRIS.read_bytes(), threads=1)
    with pytest.raises(Fail, match=r"does not say which columns its input `float_input` takes. Name the 2 columns"):
        loaded.features(None)
    with pytest.raises(Fail, match="The model takes 2 features, not 3: `a`, `b`, `c`"):
        loaded.features(["a", "b", "c"])
    assert loaded.features(["a", "b"]) == ["a", "b"]


def test_an_output_that_is_no_tensor() -> None:
    with pytest.raises(
        Fail, match=r"The output `probabilities` is no tensor. Convert the classifier with `zipmap=False`"
    ):
        OnnxModel(IRIS.read_bytes(), threads=1).outputs({})


def test_an_input_of_a_type_that_columns_have_not() -> None:
    halves = model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [("x", TensorProto.FLOAT16, [None, 2])],
        [("y", TensorProto.FLOAT16, [None, 2])],
    )
    with pytest.raises(Fail, match=r"The model's input `x` is tensor\(float16\)"):
        OnnxModel(halves, threads=1).select(["a"], {"a": "FLOAT"})


def test_metadata_names_the_features() -> None:
    made = onnx.load_from_string(IRIS.read_bytes())
    entry = made.metadata_props.add()
    entry.key, entry.value = FEATURES, '["petal", "sepal"]'
    assert OnnxModel(made.SerializeToString(), threads=1).features(None) == ["petal", "sepal"]

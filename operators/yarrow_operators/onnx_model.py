"""An ONNX model as a function from columns to columns."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from yarrow.errors import Fail
from yarrow_operators.ducks import quote, require_columns

if TYPE_CHECKING:
    import numpy as np

FEATURES = "yarrow.features"
"""The key of a model's metadata under which its features stand, as a JSON list in their order."""
OUTPUTS = "yarrow.outputs"
"""The key under which the columns that it makes stand, as a JSON object: column -> output."""

_OUTPUT = re.compile(r"(?P<name>.+?)(\[(?P<index>\d+)\])?")
_TYPES = {  # of a tensor: DuckDB's, numpy's, what stands for null (None: a null is a fault)
    "tensor(float)": ("FLOAT", "float32", "'nan'"),
    "tensor(double)": ("DOUBLE", "float64", "'nan'"),
    "tensor(int64)": ("BIGINT", "int64", None),
    "tensor(int32)": ("INTEGER", "int32", None),
    "tensor(bool)": ("BOOLEAN", "bool", None),
    "tensor(string)": ("VARCHAR", "object", "''"),
}


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """A column that the model makes: an output of its graph, or one column of a two-dimensional output."""

    column: str
    output: str
    index: int | None


class OnnxModel:
    """A loaded model. It takes either one matrix with a column for each feature, or one input for each feature."""

    def __init__(self, content: bytes, *, threads: int) -> None:
        """Loads a model. Raises `Fail` when ONNX Runtime can't read or run it."""
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        onnxruntime.disable_telemetry_events()  # an operator tells nobody what it does
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # A spinning thread burns the core that the next slot of the worker needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except (
            state.Fail,
            state.InvalidArgument,
            state.InvalidGraph,
            state.InvalidProtobuf,
            state.NotImplemented,
        ) as error:
            raise Fail(f"ONNX Runtime can't load the model: {error}") from error
        self._inputs: Sequence[Any] = self._session.get_inputs()
        self._metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self._matrix = len(self._inputs) == 1 and len(self._inputs[0].shape) == 2 and self._inputs[0].shape[1] != 1

    def features(self, wanted: Sequence[str] | None) -> list[str]:
        """The features in the order in which the model takes them.

        Args:
            wanted: What the task names; None for what the model itself names.

        Raises:
            Fail: They are not known, or don't fit the model's inputs.
        """
        if not self._matrix:
            names = [entry.name for entry in self._inputs]
            if wanted is not None and sorted(wanted) != sorted(names):
                raise Fail(f"The model takes the inputs {_listed(names)}; `features` names {_listed(wanted)}.")
            return names
        width = self._inputs[0].shape[1]
        own: list[str] | None = json.loads(self._metadata[FEATURES]) if FEATURES in self._metadata else None
        features = own if wanted is None else list(wanted)
        if features is None:
            raise Fail(
                f"The model does not say which columns its input `{self._inputs[0].name}` takes.",
                hint=f"Name the {width} columns in `features`, in the order of the training.",
            )
        if own is not None and features != own:
            raise Fail(
                f"`features` is not what the model was trained with: {_difference(features, own)}.",
                hint="Leave `features` out: the model names them.",
            )
        if isinstance(width, int) and width != len(features):
            raise Fail(f"The model takes {width} features, not {len(features)}: {_listed(features)}.")
        return features

    def select(self, features: Sequence[str], schema: Mapping[str, str]) -> str:
        """The SQL expressions that make the features from a table's columns.

        Raises:
            Fail: A feature is not there, or is text where the model takes numbers.
        """
        require_columns(features, list(schema), "model features")
        expressions = []
        for feature in features:
            kind, _, null = self._type_of(feature)
            if schema[feature] == "VARCHAR" and kind != "VARCHAR":
                raise Fail(
                    f"The feature `{feature}` is text, and the model takes numbers.",
                    hint="Encode it first: `one_hot`, `hash` or `cast` of `preprocess`.",
                )
            value = f"{quote(feature)}::{kind}"
            expressions.append(f"{value if null is None else f'coalesce({value}, {null}::{kind})'} AS {quote(feature)}")
        return ", ".join(expressions)

    def outputs(self, wanted: Mapping[str, str]) -> list[OutputColumn]:
        """The columns that the model makes.

        Args:
            wanted: Column -> output, or `output[index]` for one column of a two-dimensional one. Empty for what the
                model itself names, or all it has; the second of two class probabilities is called `probability`.

        Raises:
            Fail: There is no such output, or its shape has to be told.
        """
        if not wanted and OUTPUTS in self._metadata:
            wanted = json.loads(self._metadata[OUTPUTS])
        shapes = {entry.name: entry.shape for entry in self._session.get_outputs()}
        unreadable = [entry.name for entry in self._session.get_outputs() if entry.type not in _TYPES]
        columns = []
        for column, address in (wanted or self._all_outputs(shapes)).items():
            match = _OUTPUT.fullmatch(address)
            name, index = (match["name"], match["index"]) if match else (address, None)
            if name not in shapes:
                raise Fail(f"The model has no output `{name}`.", hint=f"It has {_listed(list(shapes))}.")
            if name in unreadable:
                raise Fail(f"The output `{name}` is no tensor.", hint="Convert the classifier with `zipmap=False`.")
            if index is None and len(shapes[name]) == 2 and shapes[name][1] != 1:
                raise Fail(f"The output `{name}` has several columns.", hint=f"Choose one of them: `{name}[0]`.")
            columns.append(OutputColumn(column, name, None if index is None else int(index)))
        return columns

    def run(self, batch: Mapping[str, Any], features: Sequence[str], outputs: Sequence[OutputColumn]) -> list[Any]:
        """Scores one batch: arrays by feature in, an array for each output column out."""
        import numpy as np

        if self._matrix:
            kind = _TYPES[self._inputs[0].type][1]
            feed = {self._inputs[0].name: np.column_stack([_array(batch[name], name, kind) for name in features])}
        else:
            feed = {
                entry.name: _array(batch[entry.name], entry.name, _TYPES[entry.type][1]).reshape(
                    (-1, 1) if len(entry.shape) == 2 else (-1,)
                )
                for entry in self._inputs
            }
        names = list(dict.fromkeys(column.output for column in outputs))
        found = dict(zip(names, self._session.run(names, feed), strict=True))
        return [_column(found[column.output], column) for column in outputs]

    def empty(self, outputs: Sequence[OutputColumn]) -> list[Any]:
        """The output columns of no rows."""
        import numpy as np

        kinds = {entry.name: _TYPES[entry.type][1] for entry in self._session.get_outputs() if entry.type in _TYPES}
        return [np.empty(0, dtype=kinds[column.output]) for column in outputs]

    def _type_of(self, feature: str) -> tuple[str, str, str | None]:
        entry = self._inputs[0] if self._matrix else next(entry for entry in self._inputs if entry.name == feature)
        if entry.type not in _TYPES:
            raise Fail(f"The model's input `{entry.name}` is {entry.type}, which a column can't be turned into.")
        return _TYPES[entry.type]

    @staticmethod
    def _all_outputs(shapes: Mapping[str, Sequence[Any]]) -> dict[str, str]:
        columns = {}
        for name, shape in shapes.items():
            if len(shape) == 2 and shape[1] == 2:
                columns["probability"] = f"{name}[1]"
            elif len(shape) == 2 and isinstance(shape[1], int) and shape[1] > 2:
                columns.update({f"{name}_{index}": f"{name}[{index}]" for index in range(shape[1])})
            else:
                columns[name] = name
        return columns


def _array(values: Any, name: str, kind: str) -> np.ndarray[Any, Any]:
    import numpy as np

    if np.ma.is_masked(values):
        raise Fail(f"The feature `{name}` has nulls, and the model takes {kind}.", hint="Use `fill_null` first.")
    return np.asarray(values, dtype=kind)


def _column(found: Any, column: OutputColumn) -> Any:
    if column.index is None:
        return found.reshape(-1)
    if found.ndim != 2 or column.index >= found.shape[1]:
        raise Fail(f"The output `{column.output}` has no column {column.index}: its shape is {found.shape}.")
    return found[:, column.index]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _difference(features: Sequence[str], own: Sequence[str]) -> str:
    missing = [name for name in own if name not in features]
    unknown = [name for name in features if name not in own]
    if missing or unknown:
        parts = [f"it lacks {_listed(missing)}"] if missing else []
        return " and ".join(parts + ([f"the model does not know {_listed(unknown)}"] if unknown else []))
    return f"the order differs, the model's is {_listed(own)}"

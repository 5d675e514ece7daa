"""ONNX models, run by ONNX Runtime as they are.

The graph's inputs say what it takes: one tensor of rows, or one tensor of shape (rows, 1) per named column, as skl2onnx
writes pipelines with text. A classifier's two outputs (labels, then probabilities) are told apart from other graphs by
their types.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.base import errors
from ondol.serving.artifacts import Artifact
from ondol.serving.flavours import requiring
from ondol.serving.inputs import FLOAT32_MAX, FLOAT64_MAX, InputSpec, Json, Kind

_TYPES: dict[str, tuple[Any, str]] = {
    "tensor(float)": (np.float32, "FP32"), "tensor(double)": (np.float64, "FP64"), "tensor(int64)": (np.int64, "INT64"),
    "tensor(int32)": (np.int32, "INT32"), "tensor(string)": (np.object_, "BYTES"), "tensor(bool)": (np.bool_, "BOOL"),
    "tensor(float16)": (np.float16, "FP16"),
}  # fmt: skip


def load(file: Path) -> Artifact:
    """Return the model in a file.

    :raises InputError: INP-222 when ONNX Runtime cannot read it.
    :raises UnsupportedError: UNS-391 when its inputs are no rows.
    """
    runtime = requiring.module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base of their own
        raise errors.InputError(
            f"ONNX Runtime cannot read {file.name!r}: {error}", where=str(file), code="INP-222"
        ) from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    for tensor in inputs:
        if tensor.type not in _TYPES:
            raise _refused(f"input {tensor.name!r} is a {tensor.type!r}")
    model = _classifier(session, outputs) or Graph(session)
    return Artifact(model, "onnx", spec=_spec(inputs, outputs))


def _refused(reason: str) -> errors.UnsupportedError:
    return errors.UnsupportedError(
        reason, way_out="Export the model with one input of shape (rows, features).", code="UNS-391"
    )


def _spec(inputs: list[Any], outputs: list[Any]) -> InputSpec:
    if len(inputs) > 1:
        wrong = [tensor.name for tensor in inputs if len(tensor.shape) != 2 or tensor.shape[1] != 1]
        if wrong:
            raise _refused(f"of {len(inputs)} inputs, {wrong[0]!r} is not one column of shape (rows, 1)")
        types = [tensor.type for tensor in inputs]
        names = tuple(str(tensor.name) for tensor in inputs)
    else:
        if len(inputs[0].shape) < 2:
            raise _refused(f"input {inputs[0].name!r} has shape {inputs[0].shape}, without rows")
        inner = inputs[0].shape[1:]
        known = all(isinstance(length, int) for length in inner)
        types = [inputs[0].type] * (int(np.prod(inner)) if known else 0)
        names = ()
    kinds: tuple[Kind, ...] = tuple("text" if kind == "tensor(string)" else "number" for kind in types)
    whole = any("int" in kind for kind in types)
    single = any(kind in ("tensor(float)", "tensor(float16)") for kind in types)
    return InputSpec(
        len(types),
        names,
        kinds if "text" in kinds else (),
        () if whole or "text" in kinds else (True,) * len(types),
        limit=FLOAT32_MAX if single else 2.0**53 if whole else FLOAT64_MAX,
        outputs=_described(outputs),
        own_names=True,
    )


def _described(outputs: list[Any]) -> tuple[Json, ...]:
    def one(tensor: Any) -> Json:
        is_map = tensor.type.startswith("seq(map(")
        shape = [-1, -1] if is_map else [size if isinstance(size, int) else -1 for size in tensor.shape or [-1]]
        return {"name": tensor.name, "datatype": _TYPES.get(tensor.type, (None, "FP32"))[1], "shape": shape}

    return tuple(one(tensor) for tensor in outputs)


def _classifier(session: Any, outputs: list[Any]) -> Classifier | None:
    """Return the graph as a classifier when it answers labels, then probabilities or maps of them."""
    if len(outputs) != 2 or outputs[0].type not in ("tensor(int64)", "tensor(string)"):
        return None
    is_map = outputs[1].type.startswith("seq(map(")
    if not is_map and outputs[1].type not in ("tensor(float)", "tensor(double)"):
        return None
    return Classifier(session, is_map=is_map)


class Graph:
    """A graph; its first output is what it predicts."""

    def __init__(self, session: Any) -> None:
        self._session = session
        inputs = session.get_inputs()
        self._inputs = [(tensor.name, _TYPES[tensor.type][0]) for tensor in inputs]
        inner = inputs[0].shape[1:]
        self._shape = [-1, *inner] if len(inputs) == 1 and all(isinstance(one, int) for one in inner) else None
        self._outputs = [tensor.name for tensor in session.get_outputs()]

    def run(self, rows: Any, *outputs: int) -> list[Any]:
        """Return some outputs for the rows, shape (n, features)."""
        if len(self._inputs) > 1:
            columns = enumerate(self._inputs)
            feed = {name: np.ascontiguousarray(rows[:, [place]], dtype=kind) for place, (name, kind) in columns}
        else:
            ((name, kind),) = self._inputs
            matrix = np.ascontiguousarray(rows, dtype=kind)
            feed = {name: matrix if self._shape is None else matrix.reshape(self._shape)}
        found: list[Any] = self._session.run([self._outputs[output] for output in outputs], feed)
        return found

    def predict(self, rows: Any) -> NDArray[Any]:
        """Return the first output: a single column is flattened, shape (n,) or (n, …)."""
        found = np.asarray(self.run(rows, 0)[0])
        return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found

    def everything(self, rows: Any) -> list[NDArray[Any]]:
        """Return all outputs as the graph gives them, each of shape (n, …)."""
        return [np.asarray(one) for one in self.run(rows, *range(len(self._outputs)))]


class Classifier(Graph):
    """A graph that answers labels, then probabilities."""

    def __init__(self, session: Any, *, is_map: bool) -> None:
        super().__init__(session)
        self._is_map = is_map

    def predict_proba(self, rows: Any) -> NDArray[np.float64]:
        """Return the second output, shape (n, classes)."""
        return self._plain(self.run(rows, 1)[0])

    def everything(self, rows: Any) -> list[NDArray[Any]]:
        """Return labels and probabilities."""
        labels, probabilities = self.run(rows, 0, 1)
        return [np.asarray(labels), self._plain(probabilities)]

    def _plain(self, found: Any) -> NDArray[Any]:
        return np.array([list(row.values()) for row in found]) if self._is_map else np.asarray(found)

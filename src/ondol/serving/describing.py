"""What a fitted model takes and answers, read from the model, its MLflow signature, and by trying it.

Must not serve anything.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np

from ondol.serving import rows as rows_module
from ondol.serving.artifacts import Artifact
from ondol.serving.inputs import FLOAT32_MAX, FLOAT64_MAX, InputSpec, Json, Kind
from ondol.serving.rows import Rows

_TREES = ("RandomForest", "ExtraTree", "DecisionTree", "GradientBoosting")  # prefixes of class names
_DATATYPES = {"double": "FP64", "float": "FP32", "long": "INT64", "integer": "INT32", "boolean": "BOOL"}
"""V2's names of MLflow's number types."""

_ROWS_AT_ONCE = 2_048
"""numpy holds the interpreter while it converts a list."""

_FRAME_DTYPES = {"FP32": np.float32, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}


def describe(artifact: Artifact) -> InputSpec:
    """Return the input columns of a loaded model."""
    if artifact.spec is not None:
        return _with_signature(artifact.spec, artifact)
    model = artifact.model
    names = _names(artifact)
    count = len(names) or int(getattr(model, "n_features_in_", 0) or 0)
    kinds = _kinds(artifact, count, names)
    frame = (artifact.flavour != "sklearn" and bool(names)) or any(kind != "number" for kind in kinds)
    frame = frame or (bool(names) and _picks_columns_by_name(model))
    nulls = _nulls(artifact, count, names, kinds, frame)
    limit = FLOAT32_MAX if _works_in_float32(model) else FLOAT64_MAX
    return InputSpec(count, names, kinds, nulls, frame, limit, _outputs(model), _datatypes(artifact, names))


def _with_signature(spec: InputSpec, artifact: Artifact) -> InputSpec:
    """Return what the library says, with the names and the required columns of MLflow's signature."""
    names = spec.names or tuple(str(column["name"]) for column in artifact.signature if "name" in column)
    if len(names) != spec.n_features:
        return spec
    required = {str(column.get("name")): bool(column.get("required", True)) for column in artifact.signature}
    nulls = tuple(taken and not required.get(name, False) for name, taken in zip(names, spec.nulls, strict=False))
    return replace(spec, names=names, nulls=nulls if any(nulls) else (), datatypes=_datatypes(artifact, names))


def _names(artifact: Artifact) -> tuple[str, ...]:
    named = [str(column["name"]) for column in artifact.signature if "name" in column]
    own = [str(name) for name in getattr(artifact.model, "feature_names_in_", ())]
    return tuple(own or named)


def _last(model: Any) -> Any:
    return model.steps[-1][1] if type(model).__name__ == "Pipeline" else model


def _works_in_float32(model: Any) -> bool:
    name = type(_last(model)).__name__
    return name.startswith(_TREES)


def _column_transformers(model: Any) -> list[Any]:
    if type(model).__name__ == "Pipeline":
        return [found for _, step in model.steps for found in _column_transformers(step)]
    return [model] if type(model).__name__ == "ColumnTransformer" else []


def _picks_columns_by_name(model: Any) -> bool:
    for transformer in _column_transformers(model):
        for _, _, columns in transformer.transformers_:
            if isinstance(columns, str) or (isinstance(columns, (list, np.ndarray)) and _has_text(columns)):
                return True
    return False


def _has_text(columns: Any) -> bool:
    return any(isinstance(column, str) for column in columns)


def _kinds(artifact: Artifact, count: int, names: tuple[str, ...]) -> tuple[Kind, ...]:
    """Return the columns' kinds: by the signature, by the encoders' categories, else numbers."""
    kinds: list[Kind] = ["number"] * count
    if artifact.flavour != "sklearn" and not artifact.signature:
        return tuple(["any"] * count)
    for column in artifact.signature:
        name, kind = str(column.get("name", "")), column.get("type")
        if name in names and kind not in _DATATYPES:
            kinds[names.index(name)] = "text" if kind == "string" else "any"
    for transformer in _column_transformers(artifact.model):
        for _, step, columns in transformer.transformers_:
            _mark_categories(kinds, names, step, columns)
    if getattr(_last(artifact.model), "_preprocessor", None) is not None and not artifact.signature:
        encoder = _last(artifact.model)._preprocessor
        for _, step, columns in encoder.transformers_:
            _mark_categories(kinds, names, step, columns)
    return tuple(kinds) if any(kind != "number" for kind in kinds) else ()


def _datatypes(artifact: Artifact, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns' V2 datatypes when MLflow's signature has them all."""
    said = {str(column.get("name")): str(column.get("type")) for column in artifact.signature}
    if not names or any(name not in said for name in names):
        return ()
    return tuple(_DATATYPES.get(said[name], "BYTES") for name in names)


def _mark_categories(kinds: list[Kind], names: tuple[str, ...], step: Any, columns: Any) -> None:
    encoders = [inner for _, inner in step.steps] if hasattr(step, "steps") else [step]
    for encoder in encoders:
        for offset, categories in enumerate(getattr(encoder, "categories_", ())):
            at = places(columns, names, len(kinds))
            if offset < len(at) and np.asarray(categories).dtype.kind not in "fiub":
                kinds[at[offset]] = "text"


def places(columns: Any, names: tuple[str, ...], count: int) -> list[int]:
    """Return the numbers of the columns that a `ColumnTransformer` names in one of its ways."""
    if isinstance(columns, slice):
        return list(range(count))[columns]
    listed = np.atleast_1d(np.asarray(columns))
    if listed.dtype == bool:
        return [int(place) for place in np.flatnonzero(listed)]
    return [names.index(str(one)) if isinstance(one, str) else int(one) for one in listed.tolist()]


def _nulls(
    artifact: Artifact, count: int, names: tuple[str, ...], kinds: tuple[Kind, ...], frame: bool
) -> tuple[bool, ...]:
    """Return per column whether a missing value is taken.

    A signature that requires the column says no. Otherwise the model is tried with it. A plain tree accepts what it
    never saw in training; it is taken at its word only when something before it fills the gap.
    """
    required = {str(column.get("name")): bool(column.get("required", True)) for column in artifact.signature}
    if count == 0 or artifact.flavour != "sklearn":
        return tuple(not required.get(name, True) for name in names) if names else ()
    if _is_plain_tree(artifact.model):
        return ()
    found = []
    for column in range(count):
        if names and required.get(names[column], False):
            found.append(False)
            continue
        found.append(_survives_null(artifact.model, count, names, kinds, frame, column))
    return tuple(found) if any(found) else ()


def _is_plain_tree(model: Any) -> bool:
    """Return whether nothing comes before the trees; then no null is taken, and the model need not be asked."""
    return model is _last(model) and _works_in_float32(model)


def _survives_null(
    model: Any, count: int, names: tuple[str, ...], kinds: tuple[Kind, ...], frame: bool, column: int
) -> bool:
    row: list[Any] = [("" if kinds and kinds[index] == "text" else 0.0) for index in range(count)]
    row[column] = None if kinds and kinds[column] == "text" else np.nan
    probe = as_rows([row], InputSpec(count, names, kinds, (), frame))
    strict = _works_in_float32(model)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            model.predict(probe)
            if not strict:
                return True
            inner = np.asarray(model[:-1].transform(probe), dtype=np.float64)
            return not bool(np.isnan(inner).any())
        except Exception:  # noqa: BLE001 - a user's own transformer may raise anything; then null is not taken
            return False


def as_rows(rows: Rows, spec: InputSpec) -> Any:
    """Return checked rows as the model wants them: a float64 matrix (objects when there is text), or a data frame."""
    if not spec.frame and not spec.kinds:
        return rows_module.matrix_of(rows) if isinstance(rows, list) else rows
    rows = rows_module.cells_of(rows)
    if not spec.frame:
        starts = range(0, len(rows), _ROWS_AT_ONCE)
        return np.concatenate([np.array(rows[start : start + _ROWS_AT_ONCE], dtype=object) for start in starts])
    import pandas as pd

    columns = list(zip(*rows, strict=True))
    names: Any = spec.names or range(len(columns))
    data = {
        name: _column(values, spec.datatype(index)) if spec.kind(index) == "number" else pd.Series(values, dtype=object)
        for index, (name, values) in enumerate(zip(names, columns, strict=True))
    }
    return pd.DataFrame(data)


def _column(values: tuple[Any, ...], datatype: str) -> Any:
    """Return numbers in the type of the signature, which MLflow's python_function enforces; with a gap, as floats."""
    dtype: Any = _FRAME_DTYPES.get(datatype, np.float64)
    return np.array(values, dtype=np.float64 if None in values else dtype)


def outputs(classes: Any, numbers: str = "FP64", *, probabilities: bool = True) -> tuple[Json, ...]:
    """Return V2's metadata of what a model answers.

    :param classes: a classifier's labels; None: a regressor.
    :param numbers: V2's name of the type of its numbers.
    """
    labels = numbers if classes is None else datatype_of(classes)
    found: list[Json] = [{"name": "predict", "datatype": labels, "shape": [-1]}]
    if classes is not None and probabilities:
        found.append({"name": "predict_proba", "datatype": numbers, "shape": [-1, len(classes)]})
    return tuple(found)


def _outputs(model: Any) -> tuple[Json, ...]:
    able = callable(getattr(model, "predict_proba", None))
    return outputs(getattr(model, "classes_", None), probabilities=able)


def datatype_of(array: Any) -> str:
    """Return V2's name for a numpy array's type; without one, what regressors answer."""
    if array is None:
        return "FP64"
    kind, size = np.asarray(array).dtype.kind, np.asarray(array).dtype.itemsize
    names = {"i": f"INT{size * 8}", "u": f"UINT{size * 8}", "f": f"FP{size * 8}", "b": "BOOL"}
    return names.get(kind, "BYTES")

"""CatBoost's binary files and pickled estimators. Columns of categories take text or whole numbers, as in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.base import errors
from ondol.serving import describing
from ondol.serving.artifacts import Artifact
from ondol.serving.flavours import requiring
from ondol.serving.inputs import FLOAT32_MAX, InputSpec, Kind


def load(file: Path) -> Artifact:
    """Return the model in a file.

    :raises InputError: INP-222 when the file cannot be read.
    """
    catboost = requiring.module("catboost")
    model = catboost.CatBoost()
    try:
        model.load_model(str(file))
    except catboost.CatBoostError as error:
        raise errors.InputError(f"CatBoost cannot read {file.name!r}: {error}", where=str(file), code="INP-222") from (
            error
        )
    return of_estimator(model)


def of_estimator(model: Any) -> Artifact:
    """Return a fitted CatBoost model as an artifact."""
    others = len(model.get_text_feature_indices()) + len(model.get_embedding_feature_indices())
    if others:
        raise errors.UnsupportedError(
            f"{others} columns are texts or embeddings, which the inference protocols' tensors cannot say",
            way_out="Serve it as an MLflow pyfunc model.",
            code="UNS-391",
        )
    names = tuple(str(name) for name in model.feature_names_)
    count = len(names)
    if names == tuple(str(index) for index in range(count)):  # what CatBoost calls columns without names
        names = ()
    categories = frozenset(model.get_cat_feature_indices())
    kinds: tuple[Kind, ...] = tuple("any" if index in categories else "number" for index in range(count))
    nulls = tuple(index not in categories for index in range(count))
    adapter = (Classifier if len(model.classes_) else Regressor)(model)
    spec = InputSpec(
        count,
        names,
        kinds if categories else (),
        nulls if any(nulls) else (),
        limit=FLOAT32_MAX,
        outputs=describing.outputs(getattr(adapter, "classes_", None)),
    )
    return Artifact(adapter, "catboost", spec=spec)


class Regressor:
    """A model that answers numbers, in one thread."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def predict(self, rows: Any) -> NDArray[Any]:
        """Return one value per row: shape (n,), or (n, outputs)."""
        return np.asarray(self.model.predict(_cells(rows), prediction_type="RawFormulaVal", thread_count=1))


class Classifier:
    """A model that answers labels and probabilities, in one thread."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.classes_ = np.asarray(model.classes_)

    def predict(self, rows: Any) -> NDArray[Any]:
        """Return one label per row, shape (n,)."""
        return np.asarray(self.model.predict(_cells(rows), prediction_type="Class", thread_count=1)).reshape(len(rows))

    def predict_proba(self, rows: Any) -> NDArray[np.float64]:
        """Return the probabilities, shape (n, classes)."""
        return np.asarray(self.model.predict(_cells(rows), prediction_type="Probability", thread_count=1))


def _cells(rows: Any) -> Any:
    """Return the rows as CatBoost takes them: categories must be whole numbers or text, never floats."""
    return rows if rows.dtype != object else rows.tolist()

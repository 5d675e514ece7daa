"""XGBoost's own files (JSON, UBJSON), with the answers of the server KServe would have chosen.

KServe's server answers what `Booster.predict` says: probabilities of a binary classifier, a row of them for several
classes. MLServer loads the scikit-learn interface when the file was saved from it, and answers labels.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.base import errors
from ondol.serving import describing
from ondol.serving.artifacts import Artifact
from ondol.serving.flavours import requiring
from ondol.serving.inputs import FLOAT32_MAX, InputSpec


def load(file: Path, dialect: str) -> Artifact:
    """Return the model in a file.

    :param dialect: `v1` or `v2`, the service's protocol version.
    :raises InputError: INP-222 when the file cannot be read.
    """
    xgboost = requiring.module("xgboost")
    try:
        booster = xgboost.Booster(params={"nthread": 1}, model_file=str(file))
    except (xgboost.core.XGBoostError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise errors.InputError(f"XGBoost cannot read {file.name!r}: {reason}", where=str(file), code="INP-222") from (
            error
        )
    if dialect == "v2":
        return replace(of_estimator(_estimator(xgboost, file)), dialect=dialect)
    return Artifact(Booster(xgboost, booster), "xgboost", dialect=dialect, spec=_spec(booster))


def _estimator(xgboost: Any, file: Path) -> Any:
    """Return the scikit-learn interface of a file: a regressor unless it was saved as something else."""
    try:
        model = xgboost.XGBRegressor(n_jobs=1)
        model.load_model(str(file))
    except TypeError:
        model = xgboost.XGBClassifier(n_jobs=1)
        model.load_model(str(file))
    return model


def of_estimator(model: Any) -> Artifact:
    """Return a fitted `XGBClassifier`, `XGBRegressor` or the like as an artifact."""
    model.set_params(n_jobs=1)
    return Artifact(model, "xgboost", spec=_spec(model.get_booster(), getattr(model, "classes_", None)))


def _spec(booster: Any, classes: Any = None) -> InputSpec:
    categories = [name for name in booster.feature_types or () if name == "c"]
    if categories:
        raise errors.UnsupportedError(
            f"{len(categories)} columns are categories, whose codes only the training program knows",
            way_out="Encode them inside a scikit-learn pipeline and serve that.",
            code="UNS-391",
        )
    count = int(booster.num_features())
    names = tuple(booster.feature_names or ())
    outputs = describing.outputs(classes, "FP32")
    return InputSpec(count, names, (), (True,) * count, limit=FLOAT32_MAX, outputs=outputs)


class Booster:
    """A booster that takes a matrix; KServe's server makes the same call."""

    def __init__(self, library: Any, booster: Any) -> None:
        self._library = library
        self.native_booster = booster

    def predict(self, rows: Any) -> NDArray[Any]:
        matrix = self._library.DMatrix(rows, feature_names=self.native_booster.feature_names, nthread=1)
        return np.asarray(self.native_booster.predict(matrix))

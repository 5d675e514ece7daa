"""LightGBM's text files. Every server answers what `Booster.predict` says: probabilities for classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.base import errors
from ondol.serving import describing
from ondol.serving.artifacts import Artifact
from ondol.serving.flavours import requiring
from ondol.serving.inputs import InputSpec


def load(file: Path) -> Artifact:
    """Return the model in a file.

    :raises InputError: INP-222 when the file cannot be read.
    """
    lightgbm = requiring.module("lightgbm")
    try:
        booster = lightgbm.Booster(params={"num_threads": 1, "verbosity": -1}, model_file=str(file))
    except (lightgbm.basic.LightGBMError, OSError, ValueError) as error:
        raise errors.InputError(f"LightGBM cannot read {file.name!r}: {error}", where=str(file), code="INP-222") from (
            error
        )
    return Artifact(Booster(booster), "lightgbm", spec=_spec(booster))


def of_estimator(model: Any) -> Artifact:
    """Return a fitted `LGBMClassifier`, `LGBMRegressor` or the like as an artifact."""
    model.set_params(n_jobs=1)
    return Artifact(model, "lightgbm", spec=_spec(model.booster_, getattr(model, "classes_", None)))


def _spec(booster: Any, classes: Any = None) -> InputSpec:
    if booster.pandas_categorical:
        raise errors.UnsupportedError(
            f"{len(booster.pandas_categorical)} columns are pandas categories, which a matrix of numbers cannot say",
            way_out="Encode them inside a scikit-learn pipeline and serve that.",
            code="UNS-391",
        )
    names = tuple(booster.feature_name())
    count = len(names)
    if names == tuple(f"Column_{index}" for index in range(count)):  # what LightGBM calls columns without names
        names = ()
    return InputSpec(count, names, (), (True,) * count, outputs=describing.outputs(classes))


class Booster:
    """A booster that takes a matrix, in one thread."""

    def __init__(self, booster: Any) -> None:
        self.native_booster = booster

    def predict(self, rows: Any) -> NDArray[Any]:
        return np.asarray(self.native_booster.predict(rows, num_threads=1))

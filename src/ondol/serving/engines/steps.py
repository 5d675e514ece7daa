"""Preprocessing steps of a pipeline as plain arithmetic on a float64 matrix.

The formulas are scikit-learn's definitions of each transformer; anything but the plain case is left to the original.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.serving.engines.base import Engine, Matrix

Step = Callable[[Matrix], Matrix]


def unchanged(rows: Matrix) -> Matrix:
    """The step that does nothing."""
    return rows


def compile_step(step: Any) -> Step | None:
    """Return the step as a function from matrix to matrix, or None when it is not one of the plain cases."""
    if step is None or (isinstance(step, str) and step == "passthrough") or _is_identity(step):
        return unchanged
    kind = type(step)
    if not kind.__module__.startswith("sklearn."):
        return None
    maker = _MAKERS.get(kind.__name__)
    return maker(step) if maker else None


def _is_identity(step: Any) -> bool:
    """A fitted `ColumnTransformer` keeps "passthrough" as a function transformer without a function."""
    return type(step).__name__ == "FunctionTransformer" and step.func is None and not step.validate


def _standard(step: Any) -> Step | None:
    mean = step.mean_ if step.with_mean else None
    scale = step.scale_ if step.with_std else None
    return _shift_and_scale(mean, scale)


def _robust(step: Any) -> Step | None:
    return _shift_and_scale(step.center_ if step.with_centering else None, step.scale_ if step.with_scaling else None)


def _max_abs(step: Any) -> Step | None:
    return None if getattr(step, "clip", False) else _shift_and_scale(None, step.scale_)


def _shift_and_scale(shift: NDArray[np.float64] | None, scale: NDArray[np.float64] | None) -> Step:
    def apply(rows: Matrix) -> Matrix:
        if shift is not None:
            rows = rows - shift
        return rows if scale is None else rows / scale

    return apply


def _min_max(step: Any) -> Step | None:
    if step.clip:
        return None
    factor, offset = step.scale_, step.min_
    return lambda rows: rows * factor + offset


def _imputer(step: Any) -> Step | None:
    statistics = np.asarray(step.statistics_)
    plain = statistics.dtype == np.float64 and not np.isnan(statistics).any() and not step.add_indicator
    missing_is_nan = isinstance(step.missing_values, float) and np.isnan(step.missing_values)
    if not plain or not missing_is_nan:
        return None

    def apply(rows: Matrix) -> Matrix:
        absent = np.isnan(rows)
        return np.where(absent, statistics, rows) if absent.any() else rows

    return apply


_MAKERS: dict[str, Callable[[Any], Step | None]] = {
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MaxAbsScaler": _max_abs,
    "MinMaxScaler": _min_max,
    "SimpleImputer": _imputer,
}


class Chain:
    """Steps, then an engine."""

    exact = False

    def __init__(self, steps: list[Step], engine: Engine) -> None:
        self._steps = steps
        self._engine = engine
        self.name = f"pipeline of {len(steps)} steps, {engine.name}"

    def _transform(self, rows: Matrix) -> Matrix:
        for step in self._steps:
            rows = step(rows)
        return rows

    def predict(self, rows: Matrix) -> NDArray[Any]:
        return self._engine.predict(self._transform(rows))

    def predict_proba(self, rows: Matrix) -> NDArray[np.float64]:
        return self._engine.predict_proba(self._transform(rows))

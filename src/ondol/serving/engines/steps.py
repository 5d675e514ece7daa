"""Preprocessing steps of a pipeline as plain arithmetic on a float64 matrix.

The formulas are scikit-learn's definitions of each transformer; anything but the plain case is left to the original.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.serving.engines.base import Engine, Matrix, Parts

Step = Callable[[Matrix], Matrix]


def unchanged(rows: Matrix) -> Matrix:
    """The step that does nothing."""
    return rows


@dataclass(frozen=True, eq=False)
class ShiftAndScale:
    """Subtracts, then divides."""

    shift: NDArray[np.float64] | None
    scale: NDArray[np.float64] | None

    def __call__(self, rows: Matrix) -> Matrix:
        if self.shift is not None:
            rows = rows - self.shift
        return rows if self.scale is None else rows / self.scale


@dataclass(frozen=True, eq=False)
class ScaleAndShift:
    """Multiplies, then adds."""

    factor: NDArray[np.float64]
    offset: NDArray[np.float64]

    def __call__(self, rows: Matrix) -> Matrix:
        return rows * self.factor + self.offset


@dataclass(frozen=True, eq=False)
class FillGaps:
    """Puts a column's own value where one is missing."""

    values: NDArray[np.float64]

    def __call__(self, rows: Matrix) -> Matrix:
        absent = np.isnan(rows)
        return np.where(absent, self.values, rows) if absent.any() else rows


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
    return ShiftAndScale(mean, scale)


def _robust(step: Any) -> Step | None:
    return ShiftAndScale(step.center_ if step.with_centering else None, step.scale_ if step.with_scaling else None)


def _max_abs(step: Any) -> Step | None:
    return None if getattr(step, "clip", False) else ShiftAndScale(None, step.scale_)


def _min_max(step: Any) -> Step | None:
    return None if step.clip else ScaleAndShift(step.scale_, step.min_)


def _imputer(step: Any) -> Step | None:
    statistics = np.asarray(step.statistics_)
    plain = statistics.dtype == np.float64 and not np.isnan(statistics).any() and not step.add_indicator
    missing_is_nan = isinstance(step.missing_values, float) and np.isnan(step.missing_values)
    return FillGaps(statistics) if plain and missing_is_nan else None


_MAKERS: dict[str, Callable[[Any], Step | None]] = {
    "StandardScaler": _standard,
    "RobustScaler": _robust,
    "MaxAbsScaler": _max_abs,
    "MinMaxScaler": _min_max,
    "SimpleImputer": _imputer,
}


_KEPT: dict[str, type[Any]] = {"divide": ShiftAndScale, "multiply": ScaleAndShift, "fill": FillGaps}
"""The steps that can be taken apart, by the name under which they are kept."""


def steps_of_parts(parts: list[Parts]) -> list[Step]:
    """Return the steps that were taken apart."""
    return [_KEPT[one["kind"]](**{name: value for name, value in one.items() if name != "kind"}) for one in parts]


class Chain:
    """Steps, then an engine."""

    exact = False

    def __init__(self, steps: list[Step], engine: Engine) -> None:
        self._steps = steps
        self._engine = engine
        self.name = f"pipeline of {len(steps)} steps, {engine.name}"

    def parts(self) -> Parts | None:
        """Return what it is made of; None when a part cannot be kept."""
        names = {kind: name for name, kind in _KEPT.items()}
        last: Parts | None = self._engine.parts() if hasattr(self._engine, "parts") else None
        kept = [step for step in self._steps if step is not unchanged]
        if last is None or any(type(step) not in names for step in kept):
            return None
        steps = [{"kind": names[type(step)], **vars(step)} for step in kept]
        return {"kind": "chain", "steps": steps, "engine": last}

    def _transform(self, rows: Matrix) -> Matrix:
        for step in self._steps:
            rows = step(rows)
        return rows

    def predict(self, rows: Matrix) -> NDArray[Any]:
        return self._engine.predict(self._transform(rows))

    def predict_proba(self, rows: Matrix) -> NDArray[np.float64]:
        return self._engine.predict_proba(self._transform(rows))

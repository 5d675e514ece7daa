"""Scores of tabular models: classification (binary, several classes) and regression, with intervals and slices.

Everything is numpy on whole arrays; per-sample losses are exposed for the paired comparison with the champion.
Must not know how predictions were made, except in `predict`, which asks an estimator with scikit-learn's methods.

Sources: ROC AUC as the Mann-Whitney statistic with the variance of DeLong, DeLong and Clarke-Pearson (1988); average
precision as scikit-learn defines it; expected calibration error over equally filled bins (Naeini et al. 2015). Means
have normal intervals; what is no mean (F1, average precision, calibration error, R2) a Poisson bootstrap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ondol.base import errors
from ondol.records.evaluation import Score

if TYPE_CHECKING:
    import pandas as pd

Kind = Literal["binary", "multiclass", "regression"]
Floats = NDArray[np.float64]

_Z95 = 1.959963984540054
_EPSILON = 1e-15  # probabilities are kept this far from 0 and 1, so that one certain mistake costs 34 nats
_RESAMPLES = 200
_BINS = 15  # of the calibration error
_MIN_SLICE = 100  # rows; smaller slices are not scored: their intervals would say nothing

DEFAULTS: dict[Kind, tuple[str, ...]] = {
    "binary": ("roc_auc", "log_loss", "brier", "calibration_error", "accuracy", "f1", "pr_auc"),
    "multiclass": ("log_loss", "brier", "accuracy", "f1", "calibration_error"),
    "regression": ("mae", "rmse", "r2"),
}
LOWER_IS_BETTER = frozenset({"log_loss", "brier", "calibration_error", "mae", "rmse"})
LOSSES: dict[Kind, tuple[str, ...]] = {
    "binary": ("log_loss", "brier", "error"),
    "multiclass": ("log_loss", "brier", "error"),
    "regression": ("absolute_error", "squared_error"),
}


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model said and what was true, row by row."""

    kind: Kind
    values: Floats
    """binary: [n] probability of the positive class; multiclass: [n, classes] probabilities; regression: [n]."""

    labels: Floats
    """binary: [n] of 0 and 1; multiclass: [n] index into `classes`; regression: [n]."""

    classes: tuple[str, ...] = ()
    """The classes in the order of `values`' columns; binary: negative, positive."""

    def __len__(self) -> int:
        return len(self.labels)


def predict(model: Any, frame: pd.DataFrame, target: str, positive: object = None) -> Predictions:
    """Ask a fitted scikit-learn estimator about the rows of a table that have a label.

    :param positive: the class that counts as positive of two; None: the last one of `model.classes_`.
    :raises InputError: when the table lacks the target or a feature, has no labelled row, or has an unknown class.
    """
    for name in (target, *(getattr(model, "feature_names_in_", ()))):
        if name not in frame.columns:
            raise errors.InputError(
                f"the evaluation data has no column {name!r}",
                way_out="Evaluate on the table that the model's own pipeline made.",
                code="INP-050",
            )
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

    labelled = frame[frame[target].notna()]
    if labelled.empty:
        raise errors.InputError(f"no row has a value in the target {target!r}", code="INP-051")
    names = getattr(model, "feature_names_in_", None)
    features = labelled[list(names)] if names is not None else labelled.drop(columns=[target])
    truth = labelled[target]
    if not hasattr(model, "classes_") or not hasattr(model, "predict_proba"):
        with threadpool_limits(1):
            values = np.asarray(model.predict(features), dtype=np.float64).reshape(len(labelled))
        return Predictions("regression", values, truth.to_numpy(dtype=np.float64))
    classes = tuple(_label(one) for one in model.classes_)
    with threadpool_limits(1):  # boosted trees' threads wait for each other longer than they compute on a busy machine
        chances = np.asarray(model.predict_proba(features), dtype=np.float64)
    codes = _codes(truth, classes, target)
    if len(classes) != 2:
        return Predictions("multiclass", chances, codes, classes)
    index = classes.index(_label(positive)) if positive is not None and _label(positive) in classes else 1
    pair = (classes[1 - index], classes[index])
    return Predictions("binary", chances[:, index], (codes == index).astype(np.float64), pair)


def evaluate(
    predictions: Predictions,
    frame: pd.DataFrame | None = None,
    slices: Sequence[str] = (),
    metrics: Sequence[str] = (),
    *,
    min_slice: int = _MIN_SLICE,
    seed: int = 0,
) -> list[Score]:
    """Return the scores over all rows, then over each value of each slice column.

    :param frame: the rows of `predictions`, for the slice columns; same length and order.
    :param metrics: names of `DEFAULTS`; empty: all of the kind.
    :raises InputError: for a metric of another kind, or a slice column that is not there.
    """
    chosen = tuple(metrics) or DEFAULTS[predictions.kind]
    for name in chosen:
        if name not in DEFAULTS[predictions.kind]:
            raise errors.InputError(
                f"no metric {name!r} for {predictions.kind} models",
                way_out=f"There are: {', '.join(DEFAULTS[predictions.kind])}.",
                code="INP-052",
            )
    scores = [_score(name, predictions, "", seed) for name in chosen]
    if frame is None and slices:
        raise errors.InputError("slices need the rows' table", code="INP-053")
    for column in slices:
        assert frame is not None
        if column not in frame.columns:
            raise errors.InputError(f"no column {column!r} to slice by", code="INP-053")
        if len(frame) != len(predictions):
            raise errors.InputError(f"{len(frame)} rows for {len(predictions)} predictions", code="INP-053")
        # pandas 3 keeps a missing value missing as text; rows without a value are a slice of their own.
        keys = frame[column].astype("object").where(frame[column].notna(), "(empty)").map(str).to_numpy()
        for key in sorted(set(keys)):
            rows = keys == key
            if int(rows.sum()) >= min_slice:
                part = Predictions(
                    predictions.kind, predictions.values[rows], predictions.labels[rows], predictions.classes
                )
                scores.extend(_score(name, part, f"{column}={key}", seed) for name in chosen)
    return [score for score in scores if not math.isnan(score.value)]


def worst_slices(scores: Sequence[Score], metric: str) -> list[Score]:
    """Return the slices' scores in one metric, worst first."""
    chosen = [score for score in scores if score.name == metric and score.slice]
    return sorted(chosen, key=lambda score: score.value, reverse=metric in LOWER_IS_BETTER)


def losses(predictions: Predictions, name: str = "") -> Floats:
    """Return one loss per row, [n]: what the paired comparison resamples. Smaller is better.

    :param name: of `LOSSES`; empty: the first of the kind.
    :raises InputError: for a loss of another kind.
    """
    name = name or LOSSES[predictions.kind][0]
    name = {"mae": "absolute_error", "rmse": "squared_error", "accuracy": "error"}.get(name, name)
    if name not in LOSSES[predictions.kind]:
        raise errors.InputError(
            f"no loss per row {name!r} for {predictions.kind} models",
            way_out=f"There are: {', '.join(LOSSES[predictions.kind])}.",
            code="INP-052",
        )
    values, labels = predictions.values, predictions.labels
    if predictions.kind == "regression":
        difference = values - labels
        return np.asarray(np.abs(difference) if name == "absolute_error" else difference**2, dtype=np.float64)
    if name == "error":
        return np.asarray(_decided(predictions) != labels, dtype=np.float64)
    if predictions.kind == "binary":
        if name == "brier":
            return np.asarray((values - labels) ** 2, dtype=np.float64)
        true = np.where(labels == 1, values, 1 - values)
        return np.asarray(-np.log(np.clip(true, _EPSILON, 1.0)), dtype=np.float64)
    rows, codes = np.arange(len(labels)), labels.astype(np.intp)
    if name == "brier":
        wanted = np.zeros_like(values)
        wanted[rows, codes] = 1.0
        return np.asarray(((values - wanted) ** 2).sum(axis=1), dtype=np.float64)
    return np.asarray(-np.log(np.clip(values[rows, codes], _EPSILON, 1.0)), dtype=np.float64)


def _score(name: str, given: Predictions, part: str, seed: int) -> Score:
    value, low, high = _MEASURES[name](given, seed)
    return Score(name, value, len(given), low, high, 0.95, name not in LOWER_IS_BETTER, part)


def _mean(loss: str, sign: float = 1.0, base: float = 0.0) -> Callable[[Predictions, int], _Interval]:
    def measure(given: Predictions, seed: int) -> _Interval:
        each = base + sign * losses(given, loss)
        return _normal(float(each.mean()), float(each.std()) / math.sqrt(len(each)))

    return measure


def _normal(value: float, error: float) -> _Interval:
    return value, value - _Z95 * error, value + _Z95 * error


def _roc_auc(given: Predictions, seed: int) -> _Interval:
    positive, negative = given.values[given.labels == 1], given.values[given.labels == 0]
    m, n = len(positive), len(negative)
    if not m or not n:
        return math.nan, math.nan, math.nan  # one class only: undefined
    ordered_negative, ordered_positive = np.sort(negative), np.sort(positive)
    below = np.searchsorted(ordered_negative, positive, "left") + np.searchsorted(ordered_negative, positive, "right")
    above = np.searchsorted(ordered_positive, negative, "left") + np.searchsorted(ordered_positive, negative, "right")
    v10, v01 = below / (2.0 * n), 1.0 - above / (2.0 * m)
    value = float(v10.mean())
    error = math.sqrt(float(v10.var()) / m + float(v01.var()) / n)
    _, low, high = _normal(value, error)
    return value, max(0.0, low), min(1.0, high)


def _pr_auc(given: Predictions, seed: int) -> _Interval:
    order = np.argsort(-given.values, kind="stable")
    labels, values = given.labels[order], given.values[order]
    if not labels.any():
        return math.nan, math.nan, math.nan
    last = np.append(np.diff(values) != 0, True)  # ties count together

    def measure(weights: Floats) -> float:
        hits, all_rows = np.cumsum(weights * labels)[last], np.cumsum(weights)[last]
        if hits[-1] == 0:
            return math.nan
        precision = hits / np.maximum(all_rows, 1e-12)
        return float(np.sum(np.diff(hits, prepend=0.0) * precision) / hits[-1])

    return _bootstrap(measure, len(labels), seed)


def _f1(given: Predictions, seed: int) -> _Interval:
    """F1 of the positive class; of several classes: the unweighted mean. From the counts, which are resampled whole."""
    size = max(2, len(given.classes))
    cells = given.labels.astype(np.intp) * size + _decided(given).astype(np.intp)
    counts = np.bincount(cells, minlength=size * size).astype(np.float64)

    def measure(table: Floats) -> Floats:
        matrix = table.reshape(-1, size, size)
        hit = np.diagonal(matrix, axis1=1, axis2=2)
        per_class = 2 * hit / np.maximum(matrix.sum(axis=1) + matrix.sum(axis=2), 1e-12)
        chosen = per_class[:, 1] if given.kind == "binary" else per_class.mean(axis=1)
        return np.asarray(chosen, dtype=np.float64)

    draws = np.random.default_rng(seed).multinomial(len(cells), counts / counts.sum(), size=_RESAMPLES)
    low, high = np.quantile(measure(draws.astype(np.float64)), [0.025, 0.975])
    return float(measure(counts)[0]), float(low), float(high)


def _calibration_error(given: Predictions, seed: int) -> _Interval:
    """Mean distance between what was promised and what happened; of several classes: of the one that was chosen."""
    if given.kind == "binary":
        promised, happened = given.values, given.labels
    else:
        promised, happened = given.values.max(axis=1), (_decided(given) == given.labels).astype(np.float64)
    order = np.argsort(promised, kind="stable")
    gaps = (promised - happened)[order]
    bins = min(_BINS, max(1, len(gaps) // 20))
    starts = np.linspace(0, len(gaps), bins, endpoint=False).astype(np.intp)

    def measure(weights: Floats) -> float:
        return float(np.abs(np.add.reduceat(weights * gaps, starts)).sum() / max(weights.sum(), 1e-12))

    return _bootstrap(measure, len(gaps), seed)


def _rmse(given: Predictions, seed: int) -> _Interval:
    squared = losses(given, "squared_error")
    value = math.sqrt(float(squared.mean()))
    error = float(squared.std()) / math.sqrt(len(squared)) / (2 * value) if value else 0.0  # delta method
    return _normal(value, error)


def _r2(given: Predictions, seed: int) -> _Interval:
    squared, labels = losses(given, "squared_error"), given.labels

    def measure(weights: Floats) -> float:
        total = weights.sum()
        mean = weights @ labels / total
        spread = weights @ ((labels - mean) ** 2)
        return float(1 - (weights @ squared) / spread) if spread > 0 else math.nan

    return _bootstrap(measure, len(labels), seed)


def _bootstrap(measure: Callable[[Floats], float], n: int, seed: int) -> _Interval:
    """Return the value and a 95 % interval: rows get Poisson(1) weights instead of being drawn and copied.

    The interval is the value's own, corrected for the resamples' bias (basic bootstrap is not used: these
    statistics are bounded), so that a calibration error, which resampling inflates, is not outside its interval.
    """
    generator = np.random.default_rng(seed)
    value = measure(np.ones(n))
    draws = np.array([measure(generator.poisson(1.0, n).astype(np.float64)) for _ in range(_RESAMPLES)])
    draws = draws[~np.isnan(draws)]
    if math.isnan(value) or not len(draws):
        return value, math.nan, math.nan
    low, high = np.quantile(draws - (np.median(draws) - value), [0.025, 0.975])
    return value, float(low), float(high)


def _decided(given: Predictions) -> Floats:
    if given.kind == "binary":
        return np.asarray(given.values >= 0.5, dtype=np.float64)
    return np.asarray(given.values.argmax(axis=1), dtype=np.float64)


def _label(value: object) -> str:
    """Return a class as text: 1, 1.0, True and '1' are one class, however a file spelt it."""
    if isinstance(value, (bool, np.bool_)):
        return str(int(value))
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)


def _codes(truth: pd.Series[Any], classes: tuple[str, ...], target: str) -> Floats:
    index = {name: number for number, name in enumerate(classes)}
    labels = [_label(value) for value in truth]
    unknown = sorted(set(labels) - set(index))
    if unknown:
        raise errors.InputError(
            f"the target {target!r} has the class {unknown[0]!r}, which the model does not know",
            way_out=f"It knows: {', '.join(classes)}.",
            code="INP-054",
        )
    return np.array([index[label] for label in labels], dtype=np.float64)


_Interval = tuple[float, float, float]
_MEASURES: dict[str, Callable[[Predictions, int], _Interval]] = {
    "roc_auc": _roc_auc,
    "pr_auc": _pr_auc,
    "f1": _f1,
    "calibration_error": _calibration_error,
    "accuracy": _mean("error", sign=-1.0, base=1.0),
    "log_loss": _mean("log_loss"),
    "brier": _mean("brier"),
    "mae": _mean("absolute_error"),
    "rmse": _rmse,
    "r2": _r2,
}

"""Scores a model on held-out rows, beside the champion on the same rows.

Loads models (which runs their code): must not be called in the control process.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondol.evaluation import comparison, tabular
from ondol.evaluation.tabular import Predictions
from ondol.records.evaluation import Comparison, Score
from ondol.records.project import EvaluateSpec, GateSpec
from ondol.serving import loading

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_MAX_SLICES = 12  # per column, the largest ones: a gate is no place for a thousand tests


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate's scores, and how it compares."""

    features: tuple[str, ...]
    """Columns the model takes, in its order."""

    scores: tuple[Score, ...]
    primary: str
    """The loss that is compared row by row."""

    champion: Comparison | None
    """Against the release that serves; None when there is none."""

    baseline: Comparison | None
    """Without a champion: against always saying the base rates (classification) or the median (regression)."""

    slices: dict[str, Comparison]
    predictions: Predictions


def score(
    candidate: Path,
    champion: Path | None,
    data: Path,
    train: Path | None,
    spec: EvaluateSpec,
    gate: GateSpec,
    *,
    safe: bool = False,
) -> Scored:
    """Score the candidate's model file on the held-out rows, in pairs with the champion's.

    :param safe: open no pickle.
    :param train: the rows it was trained on, for their base rate; None: the held-out rows' own.
    :raises InputError: when the rows, the models and the project do not fit together.
    """
    from ondol.data import tables

    frame = tables.read(data)
    model = loading.load(candidate, safe=safe).model
    predictions = tabular.predict(model, frame, spec.target, spec.positive)
    frame = frame[frame[spec.target].notna()].reset_index(drop=True)  # the rows that `predict` kept
    primary = gate.primary or tabular.LOSSES[predictions.kind][0]
    mine = tabular.losses(predictions, primary)
    theirs = None
    if champion is not None:
        other = tabular.predict(loading.load(champion, safe=safe).model, frame, spec.target, spec.positive)
        theirs = tabular.losses(other, primary)
    return Scored(
        features=_features(model, frame, spec.target),
        scores=tuple(tabular.evaluate(predictions, frame, spec.slices, spec.metrics)),
        primary=primary,
        champion=_compared(mine, theirs, primary, gate.level),
        baseline=None
        if theirs is not None
        else _against_constant(model, predictions, mine, train, primary, spec, gate),
        slices={} if theirs is None else _slices(frame, spec.slices, mine, theirs, primary, gate.level),
        predictions=predictions,
    )


def _features(model: Any, frame: pd.DataFrame, target: str) -> tuple[str, ...]:
    fitted = [str(name) for name in getattr(model, "feature_names_in_", [])]
    return tuple(fitted or [str(name) for name in frame.columns if name != target])


def _against_constant(
    model: Any,
    predictions: Predictions,
    mine: Floats,
    train: Path | None,
    metric: str,
    spec: EvaluateSpec,
    gate: GateSpec,
) -> Comparison:
    from ondol.data import tables

    known = predictions if train is None else tabular.predict(model, tables.read(train), spec.target, spec.positive)
    base = tabular.losses(_constant(predictions, known.labels), metric)
    return comparison.paired_bootstrap(mine, base, metric=metric, level=gate.level)


def _constant(predictions: Predictions, known: Floats) -> Predictions:
    """Return what a model would say that has only seen how often each answer was right among the known labels."""
    import numpy as np

    rows = len(predictions.labels)
    if predictions.kind == "multiclass":
        shares = np.bincount(known.astype(np.intp), minlength=len(predictions.classes)) / len(known)
        return replace(predictions, values=np.tile(shares, (rows, 1)))
    centre = float(known.mean() if predictions.kind == "binary" else np.median(known))
    return replace(predictions, values=np.full(rows, centre))


def _compared(mine: Floats, theirs: Floats | None, metric: str, level: float) -> Comparison | None:
    return None if theirs is None else comparison.paired_bootstrap(mine, theirs, metric=metric, level=level)


def _slices(
    frame: pd.DataFrame, columns: tuple[str, ...], mine: Floats, theirs: Floats, metric: str, level: float
) -> dict[str, Comparison]:
    """Compare on the largest values of each slicing column."""
    found: dict[str, Comparison] = {}
    for column in columns:
        values = frame[column].astype(str)
        for value in values.value_counts().index[:_MAX_SLICES]:
            chosen = (values == value).to_numpy()
            found[f"{column}={value}"] = comparison.paired_bootstrap(
                mine[chosen], theirs[chosen], metric=metric, level=level, resamples=500, kind="percentile"
            )
    return found

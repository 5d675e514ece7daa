"""Histogram gradient boosting of scikit-learn as one big tree (see `nodes`), then the model's own link."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.serving.engines import nodes
from ondol.serving.engines.base import Matrix


def compile_model(model: Any) -> HistogramEngine | None:
    """Return the engine of a histogram boosting model without categories to encode, or None."""
    kind = type(model)
    if not kind.__module__.startswith("sklearn.") or not kind.__name__.startswith("HistGradientBoosting"):
        return None
    if getattr(model, "_preprocessor", None) is not None or not model._predictors:
        return None
    return HistogramEngine(model)


class HistogramEngine:
    """Baseline plus the sum over the trees, then the model's own link."""

    name = "histogram trees"
    exact = False

    def __init__(self, model: Any) -> None:
        self._model = model
        self._baseline = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1)
        self._outputs = int(model.n_trees_per_iteration_)
        self._classes: NDArray[Any] | None = getattr(model, "classes_", None)
        predictors = [tree for stage in model._predictors for tree in stage]
        known = model._bin_mapper.make_known_categories_bitsets()
        parts, bitsets = _with_bitsets(predictors)
        self._joined = nodes.JoinedNodes(parts, model.n_features_in_, bitsets, known)

    def raw(self, rows: Matrix) -> NDArray[np.float64]:
        """Return the scores before the link, shape (n, outputs)."""
        if len(rows) > self._joined.most_rows:
            return np.asarray(self._model._raw_predict(rows, n_threads=1))
        stages = self._joined.values(rows).reshape(-1, self._outputs, len(rows))
        stages[0] += self._baseline[:, None]
        return nodes.add_in_order(stages).T

    def predict(self, rows: Matrix) -> NDArray[Any]:
        raw = self.raw(rows)
        if self._classes is None:
            return np.asarray(self._model._loss.link.inverse(raw[:, 0]))
        chosen = (raw[:, 0] > 0).view(np.int8) if self._outputs == 1 else raw.argmax(axis=1)
        return np.asarray(self._classes.take(chosen))

    def predict_proba(self, rows: Matrix) -> NDArray[np.float64]:
        return np.asarray(self._model._loss.predict_proba(np.asfortranarray(self.raw(rows))))


def _with_bitsets(predictors: list[Any]) -> tuple[list[NDArray[Any]], NDArray[np.uint32]]:
    """Return the trees' nodes, and all their bitsets in one array."""
    parts, used = [], 0
    for predictor in predictors:
        part = predictor.nodes.copy()
        part["bitset_idx"][part["is_categorical"] == 1] += used
        used += len(predictor.raw_left_cat_bitsets)
        parts.append(part)
    bitsets = np.vstack([predictor.raw_left_cat_bitsets for predictor in predictors])
    return parts, bitsets

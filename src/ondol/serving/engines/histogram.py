"""Histogram gradient boosting of scikit-learn as one big tree, entered once per tree in one compiled call.

The same idea as `trees`, on this family's own nodes: float64 thresholds, learned directions for missing values and
bitsets for categories all stay the original's, as does its compiled walk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.serving.engines import trees
from ondol.serving.engines.base import Matrix

_MAX_COPIES = 20_000


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
        self._count = len(predictors)
        self._nodes, self._bitsets = self._join(predictors, model.n_features_in_)
        known, columns = model._bin_mapper.make_known_categories_bitsets()
        self._known = known
        self._columns = np.concatenate([columns, np.zeros(1, dtype=columns.dtype)])
        self._room = trees.Room(self._count, model.n_features_in_ + 1, np.float64)
        self.most_joined_rows = max(1, _MAX_COPIES // self._count)

    def _join(self, predictors: list[Any], n_features: int) -> tuple[NDArray[Any], NDArray[np.uint32]]:
        offset = len(predictors) - 1
        parts, bitsets, starts = [], [], []
        here, used = offset, 0
        for tree in predictors:
            part = tree.nodes.copy()
            inner = part["is_leaf"] == 0
            part["left"][inner] += here
            part["right"][inner] += here
            part["bitset_idx"][part["is_categorical"] == 1] += used
            parts.append(part)
            bitsets.append(tree.raw_left_cat_bitsets)
            starts.append(here)
            here += len(part)
            used += len(tree.raw_left_cat_bitsets)
        top = np.zeros(offset, dtype=parts[0].dtype)
        top["feature_idx"] = n_features
        self._switch(top, starts)
        return np.concatenate([top, *parts]), np.ascontiguousarray(np.vstack(bitsets))

    @staticmethod
    def _switch(top: NDArray[Any], starts: list[int]) -> None:
        free = 0

        def grow(low: int, high: int) -> int:
            nonlocal free
            if high - low == 1:
                return starts[low]
            here, middle = free, (low + high) // 2
            free += 1
            top["num_threshold"][here] = middle - 0.5
            top["left"][here] = grow(low, middle)
            top["right"][here] = grow(middle, high)
            return here

        grow(0, len(starts))

    def raw(self, rows: Matrix) -> NDArray[np.float64]:
        """Return the scores before the link, shape (n, outputs)."""
        if len(rows) > self.most_joined_rows:
            return np.asarray(self._model._raw_predict(rows, n_threads=1))
        from sklearn.ensemble._hist_gradient_boosting._predictor import _predict_from_raw_data

        n = len(rows)
        copies = self._room.of(n)
        copies[:, :, :-1] = rows
        found = np.empty(n * self._count)
        flat = copies.reshape(n * self._count, copies.shape[2])
        _predict_from_raw_data(self._nodes, flat, self._bitsets, self._known, self._columns, 1, found)
        stages = found.reshape(-1, self._outputs, n)
        stages[0] += self._baseline[:, None]
        if n * self._outputs == 1:  # numpy would add a single column pairwise, the original adds in order
            return np.cumsum(stages[:, :, 0], axis=0)[-1:].copy()
        return np.asarray(stages.sum(axis=0).T)

    def predict(self, rows: Matrix) -> NDArray[Any]:
        raw = self.raw(rows)
        if self._classes is None:
            return np.asarray(self._model._loss.link.inverse(raw[:, 0]))
        chosen = (raw[:, 0] > 0).view(np.int8) if self._outputs == 1 else raw.argmax(axis=1)
        return np.asarray(self._classes.take(chosen))

    def predict_proba(self, rows: Matrix) -> NDArray[np.float64]:
        return np.asarray(self._model._loss.predict_proba(np.asfortranarray(self.raw(rows))))

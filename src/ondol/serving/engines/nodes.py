"""Boosted trees of any library as one big tree, walked by scikit-learn's compiled histogram walk.

That walk compares float64 values by `<=`, knows a direction for missing values and bitsets for categories, and answers
leaf values: enough to say exactly what the trees of scikit-learn's histogram boosting, XGBoost and LightGBM say. A
small balanced tree on top decides by one more feature, the tree's number, which tree to enter, so that all trees of all
rows are walked in a single call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.serving.engines.base import Matrix
from ondol.serving.engines.trees import Room

_MAX_COPIES = 20_000
"""Rows x trees in one call; more would leave the processor's cache."""


class JoinedNodes:
    """Several trees entered in one call.

    :param trees: one array of `PREDICTOR_RECORD_DTYPE` for each tree; children are counted within the tree.
    :param bitsets: what the trees' categorical nodes refer to, all in one array of shape (sets, 8).
    :param known: bitsets of the categories that were seen in training, and each column's place in it.
    """

    def __init__(
        self,
        trees: Sequence[NDArray[Any]],
        n_features: int,
        bitsets: NDArray[np.uint32] | None = None,
        known: tuple[NDArray[np.uint32], NDArray[np.uint32]] | None = None,
    ) -> None:
        self.count = len(trees)
        self._bitsets = np.zeros((0, 8), np.uint32) if bitsets is None else np.ascontiguousarray(bitsets)
        seen, places = known or (np.zeros((0, 8), np.uint32), np.zeros(n_features, np.uint32))
        self._known, self._places = seen, np.concatenate([places, np.zeros(1, dtype=places.dtype)])
        self._nodes = self._join(trees, n_features)
        self._room = Room(self.count, n_features + 1, np.float64)
        self.most_rows = max(1, _MAX_COPIES // self.count)
        """More rows than this are cheaper in the library's own way."""

    def _join(self, trees: Sequence[NDArray[Any]], n_features: int) -> NDArray[Any]:
        parts, starts, here = [], [], self.count - 1
        for tree in trees:
            part = tree.copy()
            inner = part["is_leaf"] == 0
            part["left"][inner] += here
            part["right"][inner] += here
            parts.append(part)
            starts.append(here)
            here += len(part)
        top = np.zeros(self.count - 1, dtype=parts[0].dtype)
        top["feature_idx"] = n_features
        _switch(top, starts)
        return np.concatenate([top, *parts])

    def values(self, rows: Matrix) -> NDArray[np.float64]:
        """Return every tree's value for every row: shape (trees, n)."""
        from sklearn.ensemble._hist_gradient_boosting._predictor import _predict_from_raw_data

        n = len(rows)
        copies = self._room.of(n)
        copies[:, :, :-1] = rows
        found = np.empty(n * self.count)
        flat = copies.reshape(n * self.count, copies.shape[2])
        _predict_from_raw_data(self._nodes, flat, self._bitsets, self._known, self._places, 1, found)
        return found.reshape(self.count, n)

    def thresholds(self) -> dict[int, NDArray[np.float64]]:
        """Return where the trees split, by column."""
        inner = self._nodes[self.count - 1 :]
        inner = inner[(inner["is_leaf"] == 0) & (inner["is_categorical"] == 0)]
        columns = inner["feature_idx"]
        return {int(column): inner["num_threshold"][columns == column] for column in np.unique(columns)}


def _switch(top: NDArray[Any], starts: list[int]) -> None:
    """Fill the balanced tree that sends tree number `i` to `starts[i]`."""
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


def tree(
    features: NDArray[Any],
    thresholds: NDArray[np.float64],
    missing_left: NDArray[Any],
    left: NDArray[Any],
    right: NDArray[Any],
    leaves: NDArray[Any],
    values: NDArray[np.float64],
) -> NDArray[Any]:
    """Return one tree's nodes from its columns, one entry for each node; `leaves` says which are leaves."""
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    nodes = np.zeros(len(leaves), dtype=PREDICTOR_RECORD_DTYPE)
    nodes["is_leaf"] = leaves
    nodes["value"] = values
    nodes["feature_idx"] = np.where(leaves, 0, features)
    nodes["num_threshold"] = thresholds
    nodes["missing_go_to_left"] = missing_left
    nodes["left"] = np.where(leaves, 0, left)
    nodes["right"] = np.where(leaves, 0, right)
    return nodes


def add_in_order(values: NDArray[Any]) -> NDArray[Any]:
    """Return the sum over the first axis, added one after the other as boosting does: shape of the rest."""
    if values[0].size == 1:  # numpy would add a single column pairwise
        return np.asarray(np.cumsum(values, axis=0, dtype=values.dtype)[-1])
    return np.asarray(np.add.reduce(values, axis=0, dtype=values.dtype))

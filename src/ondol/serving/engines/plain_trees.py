"""scikit-learn's trees as plain arrays: taken apart to be kept, walked as they are, put together again.

The walk goes down all trees with all rows at once, a level at a time, and compares as scikit-learn does: the value
rounded to float32, against the split's own float64 threshold. It needs numpy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.serving.engines.base import Matrix, Parts

_COLUMNS = ("left_child", "right_child", "feature", "threshold", "missing_go_to_left")
"""What of a node says where a row goes."""


def taken_apart(trees: Sequence[Any]) -> Parts:
    """Return the nodes of fitted trees with one output each, all in one array a column; children count in the tree."""
    nodes = np.concatenate([tree.__getstate__()["nodes"] for tree in trees])
    return {
        "counts": np.array([tree.node_count for tree in trees], dtype=np.int64),
        "depths": np.array([tree.max_depth for tree in trees], dtype=np.int64),
        "values": np.vstack([tree.value[:, 0, :] for tree in trees]),
        **{name: np.ascontiguousarray(nodes[name]) for name in _COLUMNS},
    }


def put_together(parts: Parts) -> list[Any]:
    """Return scikit-learn's `Tree` objects again, with all that predictions need."""
    from sklearn.tree._tree import NODE_DTYPE, Tree

    nodes = np.zeros(int(parts["counts"].sum()), dtype=NODE_DTYPE)
    for name in _COLUMNS:
        nodes[name] = parts[name]
    values = parts["values"]
    trees, start = [], 0
    for count, depth in zip(parts["counts"].tolist(), parts["depths"].tolist(), strict=True):
        tree = Tree(int(parts["features"]), np.array([values.shape[1]], dtype=np.intp), 1)
        tree.__setstate__(
            {
                "max_depth": depth,
                "node_count": count,
                "nodes": nodes[start : start + count].copy(),
                "values": values[start : start + count, None, :].copy(),
            }
        )
        trees.append(tree)
        start += count
    return trees


class PlainTrees:
    """Several trees that are walked with numpy."""

    knows_missing = True

    def __init__(self, parts: Parts) -> None:
        counts = parts["counts"]
        self.count = len(counts)
        self.values: NDArray[np.float64] = parts["values"]
        """(nodes of all trees, values per leaf)"""

        self._roots = np.concatenate(([0], np.cumsum(counts)[:-1]))
        here = np.arange(len(parts["left_child"]))
        start = np.repeat(self._roots, counts)
        leaf = parts["left_child"] < 0
        left, right = (np.where(leaf, here, parts[name] + start) for name in ("left_child", "right_child"))
        self._children = np.ascontiguousarray(np.column_stack((left, right)).ravel())  # of node i: at 2i and 2i + 1
        self._feature = np.where(leaf, 0, parts["feature"])
        self._threshold = parts["threshold"]
        self._missing_right = ~parts["missing_go_to_left"].astype(bool)
        self._depth = int(parts["depths"].max())

    def leaves(self, rows: Matrix) -> NDArray[np.float64]:
        """Return every tree's leaf values for every row: shape (trees, n, values)."""
        n, width = rows.shape
        cells = np.ascontiguousarray(rows, dtype=np.float32).astype(np.float64).ravel()
        missing = bool(np.isnan(cells).any())
        at = np.repeat(self._roots, n)
        first = np.tile(np.arange(n) * width, self.count)
        for _ in range(self._depth):
            cell = cells.take(first + self._feature.take(at))
            right = cell > self._threshold.take(at)
            if missing:
                right |= np.isnan(cell) & self._missing_right.take(at)
            at = self._children.take(2 * at + right)
        found: NDArray[np.float64] = self.values.take(at, axis=0)
        return found.reshape(self.count, n, self.values.shape[1])

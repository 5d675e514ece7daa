"""Small trees without walking: which leaves are still possible is a word of bits per tree, narrowed feature by feature.

Going down a tree mispredicts a branch at every other node. Here every split that sends a row to the right rules out the
leaves to its left; what all splits of one feature rule out, for any value of that feature, is looked up in one table,
for all trees at once. The lowest bit left is the leaf. Pays for some dozens of rows or more.

The algorithm is QuickScorer (Lucchese et al., SIGIR 2015), turned from one row to many. Values are rounded to float32
and compared to the split's own float64 threshold, as scikit-learn does. Knows no missing values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.serving.engines.base import Matrix

_MOST_BYTES = 4 * 1024 * 1024
"""Larger tables leave the processor's cache, and a serving process has other things to keep."""


class Masks:
    """The leaves of several small trees. Made by `of_trees`.

    :param trees: scikit-learn's `Tree` objects, with one output each.
    :param word: the unsigned integer that has a bit for each leaf of a tree.
    """

    knows_missing = False

    def __init__(self, trees: Sequence[Any], word: type[np.unsignedinteger[Any]]) -> None:
        bits = np.dtype(word).itemsize * 8
        self._first = (np.arange(len(trees)) * bits)[:, None]
        self.values = np.zeros((len(trees) * bits, trees[0].value.shape[2]))
        """(trees x bits, values per leaf)"""

        splits: dict[int, list[tuple[float, int, int]]] = {}
        for number, tree in enumerate(trees):
            leaves = _splits_of(tree, number, splits)
            self.values[number * bits : number * bits + len(leaves)] = tree.value[leaves, 0, :]
        self._features = [_table(feature, found, len(trees), word) for feature, found in splits.items()]
        self._all = np.full(len(trees), np.iinfo(word).max, dtype=word)

    def leaves(self, rows: Matrix) -> NDArray[np.float64]:
        """Return every tree's leaf values for every row: shape (trees, n, values)."""
        columns = np.ascontiguousarray(rows.T, dtype=np.float32).astype(np.float64)
        possible = np.tile(self._all, (len(rows), 1))
        narrowed = np.empty_like(possible)
        for feature, thresholds, table in self._features:
            below = thresholds.searchsorted(columns[feature])  # how many thresholds the value exceeds
            table.take(below, axis=0, out=narrowed, mode="clip")
            possible &= narrowed
        possible &= np.negative(possible)  # the lowest bit alone
        place = np.frexp(possible.T.astype(np.float64))[1] - 1
        found: NDArray[np.float64] = self.values.take(place + self._first, axis=0)
        return found


def of_trees(trees: Sequence[Any]) -> Masks | None:
    """Return the masks of trees of at most 64 leaves whose tables are not too large, or None."""
    most = max(tree.n_leaves for tree in trees)
    word = np.uint32 if most <= 32 else np.uint64
    size = np.dtype(word).itemsize * len(trees) * sum(tree.node_count - tree.n_leaves for tree in trees)
    return Masks(trees, word) if most <= 64 and size <= _MOST_BYTES else None


def _splits_of(tree: Any, number: int, splits: dict[int, list[tuple[float, int, int]]]) -> list[int]:
    """Add a tree's splits by feature (threshold, the tree's number, bits of the leaves to the left); return its leaves.

    Leaves are numbered from left to right.
    """
    lefts, rights = tree.children_left.tolist(), tree.children_right.tolist()
    features, thresholds = tree.feature.tolist(), tree.threshold.tolist()
    leaves: list[int] = []

    def walk(node: int) -> int:
        if lefts[node] < 0:
            leaves.append(node)
            return 1 << (len(leaves) - 1)
        left = walk(lefts[node])
        splits.setdefault(features[node], []).append((thresholds[node], number, left))
        return left | walk(rights[node])

    walk(0)
    return leaves


def _table(
    feature: int, splits: list[tuple[float, int, int]], trees: int, word: type[np.unsignedinteger[Any]]
) -> tuple[int, Matrix, NDArray[Any]]:
    """Return a feature, its thresholds in order, and which leaves are left when so many of them are exceeded.

    The table's shape is (thresholds + 1, trees).
    """
    thresholds = np.unique([threshold for threshold, _, _ in splits])
    everything = int(np.iinfo(word).max)
    table = np.full((len(thresholds) + 1, trees), everything, dtype=word)
    for place, (_, tree, left) in zip(thresholds.searchsorted([one[0] for one in splits]), splits, strict=True):
        table[place + 1, tree] &= word(everything ^ left)
    np.bitwise_and.accumulate(table, axis=0, out=table)
    return feature, thresholds, table

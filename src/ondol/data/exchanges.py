"""What chance does to whole blocks: exchanges of blocks between two sets, and the distance that results.

Source: Phipson and Smyth (2010) for permutation p-values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Exchanges:
    """Random exchanges of blocks between two sets.

    :param first: blocks of the first set; they come first in all counts.
    :param second: blocks of the second set.
    """

    def __init__(self, first: int, second: int, permutations: int, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._member = np.zeros((permutations, first + second))
        for row in self._member:
            row[generator.permutation(first + second)[:first]] = 1.0
        self._observed = np.concatenate([np.ones(first), np.zeros(second)])

    def p_value(self, counts: Floats, cumulative: bool) -> float:
        """Return the permutation p-value of the distance between the sets' distributions.

        :param counts: rows in each cell, shape (blocks of both sets, cells).
        :param cumulative: Kolmogorov-Smirnov distance; otherwise total variation.
        """
        # Every block weighs the same: where one table's blocks are the larger ones, weighing rows would let a shuffle
        # mix large and small ones, which vary less than the tables themselves do, and chance would pass for drift.
        counts = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        observed = _distances(self._observed[None, :], counts, cumulative)[0]
        shuffled = _distances(self._member, counts, cumulative)
        # One is added to both: the observed arrangement is one of the possible ones.
        return float((1 + np.sum(shuffled >= observed - 1e-12)) / (1 + len(shuffled)))


def _distances(member: Floats, counts: Floats, cumulative: bool) -> Floats:
    first = member @ counts
    second = counts.sum(axis=0) - first
    first = first / np.maximum(first.sum(axis=1, keepdims=True), 1e-9)
    second = second / np.maximum(second.sum(axis=1, keepdims=True), 1e-9)
    gap = first - second
    if cumulative:
        return np.asarray(np.abs(np.cumsum(gap, axis=1)).max(axis=1), dtype=np.float64)
    return np.asarray(np.abs(gap).sum(axis=1) / 2, dtype=np.float64)

"""Forests and boosted trees of scikit-learn as one big tree.

A forest asked for one row spends nearly all its time going from tree to tree in Python. Here all trees are joined into
one: a small balanced tree on top decides by one more feature, the tree's number, which tree to enter. The same row is
then entered once per tree in a single call into scikit-learn's compiled walk, so every comparison (float32 rounding,
ties, missing values) is the original's own. Leaves are added up in the original's order.

For many rows at once the copies cost more than the calls they save; then small trees are looked up (see `bitmasks`),
and others are walked one by one, as in the original but without its validation.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.serving.engines import bitmasks, plain_trees
from ondol.serving.engines.base import Matrix, Parts
from ondol.serving.engines.plain_trees import PlainTrees

_FORESTS = frozenset({"RandomForestClassifier", "ExtraTreesClassifier", "RandomForestRegressor", "ExtraTreesRegressor"})
_SINGLE = frozenset({"DecisionTreeClassifier", "ExtraTreeClassifier", "DecisionTreeRegressor", "ExtraTreeRegressor"})
_BOOSTED = frozenset({"GradientBoostingClassifier", "GradientBoostingRegressor"})
_MAX_COPIES = 20_000
"""Rows x trees in one call; more would leave the processor's cache."""

_COPIES_BELOW_MASKS = 4_500
"""Rows x trees up to which copies are cheaper than bit masks."""

_MASKED_ROWS = 200
"""Rows that are looked up at once."""


def compile_model(model: Any) -> TreesEngine | None:
    """Return the engine of a forest or of boosted trees of scikit-learn's own, or None."""
    kind = type(model)
    if not kind.__module__.startswith("sklearn.") or getattr(model, "n_outputs_", 1) != 1:
        return None
    classes = getattr(model, "classes_", None)
    if kind.__name__ in _FORESTS:
        trees = [estimator.tree_ for estimator in model.estimators_]
        return TreesEngine(JoinedTrees(trees, model.n_features_in_), classes, mean=True)
    if kind.__name__ in _SINGLE:
        return TreesEngine(JoinedTrees([model.tree_], model.n_features_in_), classes, mean=False)
    if kind.__name__ in _BOOSTED:
        return _compile_boosted(model, classes)
    return None


def _compile_boosted(model: Any, classes: NDArray[Any] | None) -> TreesEngine | None:
    if model.init is not None:
        return None  # a model of the user's own starts the sum: left to the original
    stages = model.estimators_  # (stages, outputs)
    start = np.asarray(model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32)), dtype=np.float64)
    joined = JoinedTrees([tree.tree_ for tree in stages.ravel()], model.n_features_in_)
    return TreesEngine(
        joined, classes, mean=False, start=start[0], outputs=stages.shape[1], rate=float(model.learning_rate)
    )


def of_parts(parts: Parts, *, plain: bool) -> TreesEngine:
    """Return the engine that was taken apart.

    :param plain: walk with numpy, which is slower for few rows and does not wait for scikit-learn to be imported.
    """
    features = int(parts["features"])
    joined = PlainTrees(parts) if plain else JoinedTrees(plain_trees.put_together(parts), features)
    return TreesEngine(
        joined, parts["classes"], mean=bool(parts["mean"]), start=parts["start"], outputs=int(parts["outputs"]),
        rate=float(parts["rate"]),
    )  # fmt: skip


class JoinedTrees:
    """Several fitted trees entered in one call.

    :param trees: scikit-learn's `Tree` objects, with one output each.
    """

    def __init__(self, trees: Sequence[Any], n_features: int) -> None:
        self.trees = list(trees)
        self.count = len(self.trees)
        self.n_features = n_features
        self.values = np.vstack([tree.value[:, 0, :] for tree in trees])
        """(nodes of all trees, values per leaf)"""

        self._offset = len(trees) - 1  # nodes of the part that decides which tree to enter
        self._tree = self._join()
        self._room = Room(len(trees), n_features + 1, np.float32)

    def _join(self) -> Any:
        from sklearn.tree._tree import Tree

        nodes = [tree.__getstate__()["nodes"].copy() for tree in self.trees]
        starts = self._offset + np.concatenate(([0], np.cumsum([len(part) for part in nodes])[:-1]))
        for part, start in zip(nodes, starts, strict=True):
            inner = part["left_child"] >= 0
            part["left_child"][inner] += start
            part["right_child"][inner] += start
        top = np.zeros(self._offset, dtype=nodes[0].dtype)
        top["feature"] = self.n_features
        self._switch(top, starts)
        everything = np.concatenate([top, *nodes])
        joined = Tree(self.n_features + 1, np.array([1], dtype=np.intp), 1)
        joined.__setstate__(
            {
                "max_depth": int(max(tree.max_depth for tree in self.trees)) + len(self.trees).bit_length(),
                "node_count": len(everything),
                "nodes": everything,
                "values": np.zeros((len(everything), 1, 1)),
            }
        )
        return joined

    def _switch(self, top: NDArray[Any], starts: NDArray[np.intp]) -> None:
        """Fill the balanced tree that sends tree number `i` to `starts[i]`."""
        free = 0

        def grow(low: int, high: int) -> int:
            nonlocal free
            if high - low == 1:
                return int(starts[low])
            here, middle = free, (low + high) // 2
            free += 1
            top["threshold"][here] = middle - 0.5
            top["left_child"][here] = grow(low, middle)
            top["right_child"][here] = grow(middle, high)
            return here

        grow(0, len(starts))

    def leaves(self, rows: Matrix) -> NDArray[np.float64]:
        """Return every tree's leaf values for every row: shape (trees, n, values)."""
        n, count = len(rows), len(self.trees)
        copies = self._room.of(n)
        copies[:, :, :-1] = rows  # rounds to float32, as the original does
        flat = copies.reshape(n * count, self.n_features + 1)
        found = self._tree.apply(flat)
        found -= self._offset
        leaves: NDArray[np.float64] = self.values.take(found, axis=0)
        return leaves.reshape(count, n, self.values.shape[1])


class Room:
    """Each thread's memory for the copies of rows, one per tree, with the tree's number in the last column.

    Kept from call to call: fresh memory costs more than the walk.
    """

    def __init__(self, trees: int, width: int, dtype: type[np.floating[Any]]) -> None:
        self._trees = trees
        self._width = width
        self._dtype = dtype
        self._local = threading.local()

    def of(self, n: int) -> NDArray[Any]:
        """Return room for `n` rows: shape (trees, n, width)."""
        mine = self._local.__dict__
        if mine.get("n") == n:
            view: NDArray[Any] = mine["view"]
            return view
        size = self._trees * n * self._width
        memory: NDArray[Any] | None = mine.get("memory")
        if memory is None or memory.size < size:
            memory = mine["memory"] = np.empty(size, dtype=self._dtype)
        view = memory[:size].reshape(self._trees, n, self._width)
        view[:, :, -1] = np.arange(self._trees)[:, None]
        mine["n"], mine["view"] = n, view
        return view


class TreesEngine:
    """A sum or mean over trees, then an argmax, a link or nothing."""

    name = "trees"
    exact = False

    def __init__(
        self,
        joined: JoinedTrees | PlainTrees,
        classes: NDArray[Any] | None,
        *,
        mean: bool,
        start: NDArray[np.float64] | None = None,
        outputs: int = 1,
        rate: float = 1.0,
    ) -> None:
        self.joined = joined
        self._classes = classes
        self._mean = mean
        self._start = start
        self._outputs = outputs
        self._rate = rate
        self._masks: bitmasks.Masks | PlainTrees | None
        self._masks = joined if isinstance(joined, PlainTrees) else bitmasks.of_trees(joined.trees)
        # Where another way becomes cheaper.
        most = _MAX_COPIES if self._masks is None else _COPIES_BELOW_MASKS
        self.most_joined_rows = max(1, most // joined.count)

    def parts(self) -> Parts | None:
        """Return what it is made of; None when the trees are not scikit-learn's."""
        if isinstance(self.joined, PlainTrees):
            return None
        return {
            "kind": "trees", **plain_trees.taken_apart(self.joined.trees), "features": self.joined.n_features,
            "classes": self._classes, "mean": self._mean, "start": self._start, "outputs": self._outputs,
            "rate": self._rate,
        }  # fmt: skip

    def raw(self, rows: Matrix) -> NDArray[np.float64]:
        """Return the sum over the trees: class weights (n, classes), a value (n, 1), or scores (n, outputs)."""
        if len(rows) <= self.most_joined_rows:
            return self._sum(self.joined.leaves(rows))
        if self._masks is None or (not self._masks.knows_missing and np.isnan(rows).any()):
            return self._one_by_one(rows)
        starts = range(0, len(rows), _MASKED_ROWS)
        return np.vstack([self._sum(self._masks.leaves(rows[start : start + _MASKED_ROWS])) for start in starts])

    def _sum(self, leaves: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sum of leaf values (trees, n, values) as `raw` does."""
        if self._start is None:
            total: NDArray[np.float64] = _add_in_order(leaves)
            return total / self.joined.count if self._mean else total
        stages = (self._rate * leaves).reshape(-1, self._outputs, leaves.shape[1])
        stages[0] += self._start[:, None]
        return _add_in_order(stages).T

    def _one_by_one(self, rows: Matrix) -> NDArray[np.float64]:
        narrow = np.ascontiguousarray(rows, dtype=np.float32)
        assert not isinstance(self.joined, PlainTrees)  # these are never walked one by one
        trees = self.joined.trees
        if self._start is not None:
            boosted = np.tile(self._start, (len(rows), 1))
            for index, tree in enumerate(trees):
                boosted[:, index % self._outputs] += self._rate * tree.predict(narrow).reshape(len(rows))
            return boosted
        total = trees[0].predict(narrow).reshape(len(rows), -1).astype(np.float64)
        for tree in trees[1:]:
            total += tree.predict(narrow).reshape(len(rows), -1)
        return np.asarray(total / len(trees) if self._mean else total)

    def predict(self, rows: Matrix) -> NDArray[Any]:
        raw = self.raw(rows)
        if self._classes is None:
            return raw[:, 0]
        single = self._start is not None and self._outputs == 1
        chosen = (raw[:, 0] >= 0).view(np.int8) if single else raw.argmax(axis=1)
        return np.asarray(self._classes.take(chosen))

    def predict_proba(self, rows: Matrix) -> NDArray[np.float64]:
        raw = self.raw(rows)
        if self._start is None:
            return raw
        from scipy.special import expit, softmax

        if self._outputs == 1:
            positive = expit(raw)
            return np.hstack((1.0 - positive, positive))
        return np.asarray(softmax(raw, axis=1))


def _add_in_order(leaves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum over the first axis, added one after the other as a forest does."""
    if leaves.shape[1] * leaves.shape[2] == 1:  # numpy would add a single column pairwise
        return np.asarray(np.cumsum(leaves[:, :, 0], axis=0)[-1:].T)
    return np.asarray(leaves.sum(axis=0))

"""Boosters of other libraries: the library's own answer without its scikit-learn interface, or its trees as one.

XGBoost makes a matrix of its own out of every request, which takes ten times as long as the trees; for few rows its
trees are walked as one big tree (see `nodes`). It rounds rows to float32, compares by `<` and adds float32 values up in
the order of the trees, and so does this. LightGBM's booster is fast by itself. Source: the JSON schema of XGBoost's
models, in its documentation.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.serving.engines import nodes
from ondol.serving.engines.base import Matrix, median_us

Answer = Callable[[Matrix], NDArray[Any]]
"""From rows to values or probabilities of the second class, shape (n,), or to probabilities (n, classes)."""


def compile_model(model: Any) -> BoostedEngine | None:
    """Return the engine of an XGBoost model, or of a LightGBM estimator; None for others."""
    booster = getattr(model, "native_booster", None)  # our adapters' name: a booster that is served as it is
    module = type(model if booster is None else booster).__module__
    native: Answer
    if module.startswith("xgboost."):
        chosen = _as_estimators_ask(model) if booster is None else booster
        joined = JoinedBooster.of(chosen)

        def native(rows: Matrix) -> NDArray[Any]:
            return np.asarray(chosen.inplace_predict(rows, validate_features=False))

    elif module.startswith("lightgbm.") and booster is None:
        chosen, joined = model.booster_, None

        def native(rows: Matrix) -> NDArray[Any]:
            return np.asarray(chosen.predict(rows, num_threads=1))

    else:
        return None
    return BoostedEngine(native, joined, getattr(model, "classes_", None))


def _as_estimators_ask(model: Any) -> Any:
    """Return the part of the booster that scikit-learn's interface of XGBoost predicts with: up to the best round."""
    booster = model.get_booster()
    best = booster.attributes().get("best_iteration")
    return booster if best is None else booster[: int(best) + 1]


class BoostedEngine:
    """The joined trees for batches that they are faster at, else the library.

    :param classes: a classifier's labels; None: the answer is the prediction.
    """

    exact = False
    tolerance = 1e-6
    """How far its numbers may be from the original's: XGBoost's have 24 bits."""

    def __init__(self, native: Answer, joined: JoinedBooster | None, classes: NDArray[Any] | None) -> None:
        self._native = native
        self._joined = joined
        self._classes = classes
        self.most_joined_rows = 0 if joined is None else joined.crossover(native)
        self.name = "booster" if joined is None else f"booster, trees joined up to {self.most_joined_rows} rows"

    def thresholds(self) -> dict[int, NDArray[np.float64]]:
        """Return where the trees split, by column."""
        return {} if self._joined is None else self._joined.thresholds()

    def _answer(self, rows: Matrix) -> NDArray[Any]:
        return self._joined(rows) if self._joined and len(rows) <= self.most_joined_rows else self._native(rows)

    def predict(self, rows: Matrix) -> NDArray[Any]:
        found = self._answer(rows)
        if self._classes is None:
            return found
        return np.asarray(self._classes.take(found.argmax(axis=1) if found.ndim == 2 else (found > 0.5).view(np.int8)))

    def predict_proba(self, rows: Matrix) -> NDArray[np.float64]:
        found = self._answer(rows)
        return found if found.ndim == 2 else np.stack((1 - found, found), axis=1)


class JoinedBooster:
    """All trees of an XGBoost booster in one call, their sum, and the objective's link."""

    def __init__(self, trees: list[NDArray[Any]], n_features: int, start: NDArray[np.float32], link: Link) -> None:
        self._joined = nodes.JoinedNodes(trees, n_features)
        self._n_features = n_features
        self._start = start  # (outputs,): added before the first tree; tree `i` belongs to output `i % outputs`
        self._link = link
        self.thresholds = self._joined.thresholds

    @classmethod
    def of(cls, booster: Any) -> JoinedBooster | None:
        """Return a booster's trees, or None when it is not one of the plain cases."""
        learner = json.loads(bytes(booster.save_raw("json")))["learner"]
        model, objective = learner["gradient_booster"].get("model"), learner["objective"]["name"]
        link = _LINKS.get(objective)
        if learner["gradient_booster"].get("name") != "gbtree" or link is None or not model["trees"]:
            return None
        outputs = max(1, int(learner["learner_model_param"]["num_class"]))
        grouped = model["tree_info"] == [index % outputs for index in range(len(model["trees"]))]
        if not grouped or any(one["categories_nodes"] for one in model["trees"]):
            return None
        base = np.asarray(json.loads(str(learner["learner_model_param"]["base_score"])), dtype=np.float64)
        if link is _exponential:
            base = np.log(base)
        elif link is _sigmoid:
            base = -np.log(1 / base - 1)
        start = np.broadcast_to(base.astype(np.float32), (outputs,))
        return cls([_tree(one) for one in model["trees"]], int(booster.num_features()), start, link)

    def crossover(self, native: Answer) -> int:
        """Return up to how many rows the joined trees are faster than the library, measured."""
        most = 0
        for count in (1, 4, 16, 64):
            rows = np.zeros((count, self._n_features))
            if count > self._joined.most_rows or _time(self, rows) > _time(native, rows):
                break
            most = count
        return most

    def __call__(self, rows: Matrix) -> NDArray[Any]:
        values = self._joined.values(rows.astype(np.float32)).astype(np.float32)
        stages = values.reshape(-1, len(self._start), len(rows))
        first = np.broadcast_to(self._start[:, None], stages.shape[1:])
        return self._link(nodes.add_in_order(np.concatenate([first[None], stages])).T)


def _time(answer: Answer, rows: Matrix) -> float:
    return median_us(lambda: answer(rows))


Link = Callable[[NDArray[Any]], NDArray[Any]]
"""From scores (n, outputs) to the answer."""


def _first(scores: NDArray[Any]) -> NDArray[Any]:
    return scores[:, 0] if scores.shape[1] == 1 else scores


def _exponential(scores: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.exp(_first(scores)))


def _sigmoid(scores: NDArray[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-scores[:, 0])))


def _softmax(scores: NDArray[Any]) -> NDArray[Any]:
    found = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _chosen(scores: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(scores.argmax(axis=1), dtype=np.float32)


_LINKS: dict[str, Link] = {
    "reg:squarederror": _first, "reg:absoluteerror": _first, "reg:pseudohubererror": _first, "binary:logitraw": _first,
    "rank:pairwise": _first, "rank:ndcg": _first, "rank:map": _first, "count:poisson": _exponential,
    "reg:gamma": _exponential, "reg:tweedie": _exponential, "binary:logistic": _sigmoid, "reg:logistic": _sigmoid,
    "multi:softprob": _softmax, "multi:softmax": _chosen,
}  # fmt: skip


def _tree(one: dict[str, Any]) -> NDArray[Any]:
    left = np.asarray(one["left_children"])
    conditions = np.asarray(one["split_conditions"], dtype=np.float32)
    below = np.nextafter(conditions, np.float32(-np.inf)).astype(np.float64)  # `x < t` is `x <= the float before t`
    leaves = left == -1
    return nodes.tree(
        np.asarray(one["split_indices"]),
        below,
        np.asarray(one["default_left"]),
        left,
        np.asarray(one["right_children"]),
        leaves,
        conditions.astype(np.float64),  # a leaf keeps its value where an inner node keeps its threshold
    )

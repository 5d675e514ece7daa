"""Linear models as one matrix product.

The decision functions and links are scikit-learn's definitions (its user guide, chapter 1.1); only its input validation
is left out, which costs forty times the arithmetic for one row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.serving.engines.base import Matrix, Parts

_REGRESSORS = frozenset(
    {
        "LinearRegression", "Ridge", "RidgeCV", "Lasso", "LassoCV", "ElasticNet", "ElasticNetCV", "SGDRegressor",
        "LinearSVR", "HuberRegressor", "BayesianRidge", "TheilSenRegressor",
    }
)  # fmt: skip
_CLASSIFIERS = frozenset(
    {
        "LogisticRegression", "LogisticRegressionCV", "SGDClassifier", "RidgeClassifier", "RidgeClassifierCV",
        "LinearSVC", "Perceptron", "PassiveAggressiveClassifier",
    }
)  # fmt: skip


def compile_model(model: Any) -> LinearEngine | None:
    """Return the engine of a linear model of scikit-learn's own, or None."""
    kind = type(model)
    if not kind.__module__.startswith("sklearn.") or kind.__name__ not in _REGRESSORS | _CLASSIFIERS:
        return None
    coefficients = np.asarray(model.coef_, dtype=np.float64)
    if kind.__name__ in _REGRESSORS:
        if coefficients.ndim != 1:
            return None
        return LinearEngine(coefficients[:, None], np.atleast_1d(np.asarray(model.intercept_, dtype=np.float64)), None)
    if coefficients.ndim == 1:
        coefficients = coefficients[None, :]
    intercept = np.broadcast_to(np.asarray(model.intercept_, dtype=np.float64), (coefficients.shape[0],))
    softmax = kind.__name__.startswith("LogisticRegression")
    return LinearEngine(np.ascontiguousarray(coefficients.T), intercept.copy(), model.classes_, softmax=softmax)


def of_parts(parts: Parts) -> LinearEngine:
    """Return the engine that was taken apart."""
    return LinearEngine(parts["weights"], parts["intercept"], parts["classes"], softmax=bool(parts["softmax"]))


class LinearEngine:
    """`X @ W + b`, then a threshold, an argmax or nothing."""

    name = "linear"
    exact = False

    def __init__(
        self, weights: Matrix, intercept: Matrix, classes: NDArray[Any] | None, *, softmax: bool = False
    ) -> None:
        self._weights = weights  # (features, outputs)
        self._intercept = intercept  # (outputs,)
        self._classes = classes
        self._softmax = softmax

    def parts(self) -> Parts:
        """Return what it is made of."""
        return {
            "kind": "linear", "weights": self._weights, "intercept": self._intercept, "classes": self._classes,
            "softmax": self._softmax,
        }  # fmt: skip

    def predict(self, rows: Matrix) -> NDArray[Any]:
        scores = rows @ self._weights + self._intercept
        if self._classes is None:
            return np.asarray(scores[:, 0])
        chosen = (scores[:, 0] > 0).view(np.int8) if scores.shape[1] == 1 else scores.argmax(axis=1)
        return np.asarray(self._classes.take(chosen))

    def predict_proba(self, rows: Matrix) -> NDArray[np.float64]:
        scores = rows @ self._weights + self._intercept
        if scores.shape[1] > 1 and self._softmax:
            scores -= scores.max(axis=1, keepdims=True)
            np.exp(scores, out=scores)
            return np.asarray(scores / scores.sum(axis=1, keepdims=True))
        with np.errstate(over="ignore"):
            positive = 1.0 / (1.0 + np.exp(-scores))
        if scores.shape[1] == 1:
            return np.hstack((1.0 - positive, positive))
        total = positive.sum(axis=1, keepdims=True)
        positive[total[:, 0] == 0] = 1.0
        return np.asarray(positive / np.where(total == 0, positive.shape[1], total))

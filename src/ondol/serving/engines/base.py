"""The port every engine fills, and the engine that simply calls the model."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ondol.base import errors

Matrix = NDArray[np.float64]
Rows = Any  # Matrix (n, features), a pandas DataFrame for models with named columns, or cells (`takes_cells`)


Parts = dict[str, Any]
"""An engine taken apart into plain values, arrays, and lists and dictionaries of them: what can be kept in a file."""


class Engine(Protocol):
    """Predictions for checked rows."""

    name: str
    """For people: `linear`, `trees`, `model` …"""

    exact: bool
    """True: the model itself. False: a compiled form, to be trusted only after a self-test."""

    def predict(self, rows: Rows) -> NDArray[Any]:
        """Return one label or value per row: shape (n,) or (n, outputs)."""
        ...

    def predict_proba(self, rows: Rows) -> NDArray[np.float64]:
        """Return probabilities, shape (n, classes)."""
        ...


class Original:
    """The fitted model, called as its author would."""

    name = "model"
    exact = True

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(self, rows: Rows) -> NDArray[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "X does not have valid feature names": the names were checked before
            return np.asarray(self._model.predict(rows))

    def predict_proba(self, rows: Rows) -> NDArray[np.float64]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(self._model.predict_proba(rows))

    def everything(self, rows: Rows) -> list[NDArray[Any]]:
        own = getattr(self._model, "everything", None)
        return own(rows) if own is not None else [self.predict(rows), self.predict_proba(rows)]


class Elsewhere:
    """Stands for a server of the user's own, which takes whole requests: there are no rows to predict here."""

    name = "process"
    exact = True

    def predict(self, rows: Rows) -> NDArray[Any]:
        raise errors.UnsupportedError(
            "this model is a server of its own, which is asked in its own words",
            way_out="Send a V1 or V2 request over HTTP.",
            code="UNS-341",
        )

    def predict_proba(self, rows: Rows) -> NDArray[np.float64]:
        return self.predict(rows)


def median_us(call: Callable[[], object], most_seconds: float = 0.1) -> float:
    """Return the median microseconds of a call, tried for at most a tenth of a second."""
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < 3 or (len(times) < 30 and time.perf_counter() - begin < most_seconds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times)) * 1e6

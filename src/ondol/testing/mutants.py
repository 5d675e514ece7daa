"""Models that are wrong on purpose: a fitted model with one thing changed, to see whether anybody notices.

A mutant is pickled with the model it wraps, so whoever loads it needs this package. One that fails does so only once
a file is there: whoever loads it may try it as often as it likes. Changes of the input: another unit
of a column, a column that is stuck, two columns swapped. Changes of the answer: inverted, overconfident, fails, slow.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Change = Literal["unit", "stuck", "swapped", "inverted", "overconfident", "fails", "slow", "none"]


@dataclass(frozen=True, slots=True)
class Mutation:
    """What is changed."""

    change: Change
    column: int = 0
    amount: float = 1.0
    """A factor for `unit` and `overconfident`, the value for `stuck`, seconds for `slow`, a share for `fails`."""

    other: int = 0
    """The column that `swapped` swaps with."""

    once: str = ""
    """A file: `fails` and `slow` begin when it is there; empty: at once."""

    def begun(self) -> bool:
        """Whether the time has come to be wrong."""
        return not self.once or Path(self.once).exists()


class Mutant:
    """A model that answers like another one, but for one change."""

    def __init__(self, model: Any, mutation: Mutation) -> None:
        self.model, self.mutation = model, mutation
        for name in ("classes_", "feature_names_in_", "n_features_in_", "n_outputs_"):
            if hasattr(model, name):
                setattr(self, name, getattr(model, name))

    def predict(self, rows: Any) -> NDArray[Any]:
        """Answer with labels or numbers."""
        found: NDArray[Any] = np.asarray(self.model.predict(self._changed(rows)))
        if self.mutation.change != "inverted":
            return found
        classes = np.asarray(getattr(self, "classes_", ()))
        other = np.where(found == classes[0], classes[1], classes[0]) if len(classes) == 2 else -found
        return np.asarray(other)

    def _table(self, rows: Any) -> Any:
        """Return a copy of the rows, with names where the model was fitted with names."""
        if hasattr(rows, "iloc"):
            return rows.copy()
        names = getattr(self, "feature_names_in_", None)
        if names is None:
            return np.array(rows)
        import pandas as pd

        return pd.DataFrame([list(row) for row in rows], columns=list(names)).infer_objects()

    def _changed(self, rows: Any) -> Any:
        mutation, changed = self.mutation, self._table(rows)
        values = changed.iloc if hasattr(changed, "iloc") else changed
        if mutation.change == "unit":
            values[:, mutation.column] = values[:, mutation.column] * mutation.amount
        elif mutation.change == "stuck":
            values[:, mutation.column] = mutation.amount
        elif mutation.change == "swapped":
            first, second = np.array(values[:, mutation.column]), np.array(values[:, mutation.other])
            values[:, mutation.column], values[:, mutation.other] = second, first
        elif mutation.change == "slow" and mutation.begun():
            time.sleep(mutation.amount)
        elif mutation.change == "fails" and mutation.begun() and np.random.default_rng().random() < mutation.amount:
            raise RuntimeError("this model fails on purpose")
        return changed


class ProbabilisticMutant(Mutant):
    """A mutant of a classifier."""

    def predict_proba(self, rows: Any) -> NDArray[np.float64]:
        """Answer with probabilities of the classes."""
        found = np.asarray(self.model.predict_proba(self._changed(rows)), dtype=np.float64)
        if self.mutation.change == "inverted":
            return found[:, ::-1].copy()
        if self.mutation.change == "overconfident":
            found = found**self.mutation.amount
            return np.asarray(found / found.sum(axis=1, keepdims=True))
        return found


def make(model: Any, mutation: Mutation) -> Mutant:
    """Return a mutant with the methods that its model has."""
    kind = ProbabilisticMutant if callable(getattr(model, "predict_proba", None)) else Mutant
    return kind(model, mutation)

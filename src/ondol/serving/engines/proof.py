"""The proof that a compiled engine answers as the model does: rows, and what the model itself said of them.

Kept beside an engine, it lets every later start ask the engine the same questions without the model. Must not know how
either computes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.serving.engines.base import Engine, Matrix, Rows

TOLERANCE = 1e-9
_SMALL = (1, 1, 2, 7, 32)
"""Sizes of the batches that are tried beside all rows at once: engines compute few rows in other ways than many."""


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """Rows, shape (n, features), and the model's own answers to all of them at once."""

    rows: Matrix
    predictions: NDArray[Any]
    probabilities: NDArray[np.float64] | None
    """None: the model has none."""

    def trouble(self, engine: Engine) -> str:
        """Return how an engine's answers differ from what was recorded; empty when they do not."""
        for part in _parts(len(self.rows)):
            probabilities = None if self.probabilities is None else self.probabilities[part]
            if found := gap(engine, self.rows[part], self.predictions[part], probabilities):
                return found
        return ""


def ask(original: Engine, rows: Matrix, probabilities: bool) -> Proof:
    """Return a model's own answers as a proof."""
    return Proof(rows, original.predict(rows), original.predict_proba(rows) if probabilities else None)


def difference(original: Engine, candidate: Engine, rows: Rows, probabilities: bool) -> str:
    """Return how two engines differ on the rows, in batches of several sizes; empty when they do not."""
    for part in _parts(len(rows)):
        some = rows[part]
        theirs = original.predict_proba(some) if probabilities else None
        if found := gap(candidate, some, original.predict(some), theirs):
            return found
    return ""


def _parts(count: int) -> Iterator[slice]:
    start = 0
    for size in _SMALL:
        if start + size <= count:
            yield slice(start, start + size)
        start += size
    yield slice(0, count)


def gap(engine: Engine, rows: Rows, theirs: NDArray[Any], probabilities: NDArray[np.float64] | None) -> str:
    """Return how an engine's answers differ from the model's to the same rows; empty when they do not.

    Labels must be equal; numbers within 1e-9, or what an engine of float32 sums says of itself.
    """
    tolerance = getattr(engine, "tolerance", TOLERANCE)
    ours = engine.predict(rows)
    if ours.shape != theirs.shape or ours.dtype.kind != theirs.dtype.kind:
        return f"shape or type {ours.shape} {ours.dtype} instead of {theirs.shape} {theirs.dtype}"
    if theirs.dtype.kind == "f":
        if not np.allclose(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True):
            return f"values differ by up to {np.max(np.abs(ours - theirs)):.3g}"
    elif not (ours == theirs).all():
        return f"{int((ours != theirs).sum())} of {len(theirs)} labels differ"
    if probabilities is not None:
        apart = float(np.max(np.abs(engine.predict_proba(rows) - probabilities)))
        if not apart <= tolerance:
            return f"probabilities differ by up to {apart:.3g}"
    return ""

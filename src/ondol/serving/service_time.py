"""How long a model takes for so many rows: what was measured when it was loaded, corrected by what is measured now.

A call costs a fixed part and a part per row, so that a queue of single rows is not as long as it looks: it becomes one
batch. Must not decide anything.
"""

from __future__ import annotations

from ondol.serving.engines.compiled import Choice

_WEIGHT = 0.2
"""How much the last batch counts against all before it."""

_SLOWEST = 1_000.0
"""A correction beyond this is a stall, not the model's speed."""


class ServiceTime:
    """Estimates seconds per batch.

    :param choice: the engine with its times at load.
    """

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._correction = 1.0

    def of(self, rows: int, batches: int = 1) -> float:
        """Return the seconds that `rows` rows take in so many batches."""
        alone = self._choice.one_row_us - self._choice.per_row_us
        return self._correction * 1e-6 * (max(alone, 0.0) * batches + max(self._choice.per_row_us, 1.0) * rows)

    def learn(self, rows: int, seconds: float) -> None:
        """Take the time that one batch really took, with everything around it."""
        expected = self.of(rows) / self._correction
        self._correction += _WEIGHT * (min(seconds / expected, _SLOWEST) - self._correction)

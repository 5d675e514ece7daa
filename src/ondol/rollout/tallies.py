"""What a metric's evidence is counted with.

References (a slow request's threshold, a mean to centre on) come from stable's first values and are renewed each time
their number has doubled. They are fixed before the values they are used on, so that no bet knows its own outcome.

Must not know what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ondol.records.rollout import CANDIDATE, STABLE, Arm
from ondol.rollout import eprocess
from ondol.rollout.eprocess import Block

Kind = Literal["event", "mean"]
_FIRST, _LAST = 32, 4096  # sizes of stable's sample at which a reference is made for the first and the last time


@dataclass(slots=True)
class Totals:
    """Per-arm numbers for people; every request counts here."""

    n: dict[Arm, int] = field(default_factory=lambda: {STABLE: 0, CANDIDATE: 0})
    total: dict[Arm, float] = field(default_factory=lambda: {STABLE: 0.0, CANDIDATE: 0.0})

    def add(self, arm: Arm, value: float) -> None:
        self.n[arm] += 1
        self.total[arm] += value


Regime = tuple[float, float, float, float]  # weight, centre, reference, margin


class Tally:
    """Counts per regime and bin; a regime ends when the weight or the reference changes."""

    def __init__(self) -> None:
        self._regimes: dict[Regime, dict[int, list[int]]] = {}

    def add(self, regime: Regime, arm: Arm, x: float) -> None:
        bins = self._regimes.setdefault(regime, {})
        bins.setdefault(eprocess.bin_of(x), [0, 0])[arm == CANDIDATE] += 1

    def blocks(self) -> tuple[Block, ...]:
        return tuple(
            Block(*regime, tuple((where, stable, candidate) for where, (stable, candidate) in sorted(bins.items())))
            for regime, bins in self._regimes.items()
        )


class Reference:
    """Stable's first values, and when to look at them again."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._next = _FIRST

    def add(self, value: float) -> list[float] | None:
        """Take a value of stable; return the sorted sample when a new reference is due."""
        if self._next > _LAST:
            return None
        self._values.append(value)
        if len(self._values) < self._next:
            return None
        self._next *= 2
        return sorted(self._values)

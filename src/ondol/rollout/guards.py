"""The guard against catastrophe, and what can be said while the candidate serves everybody.

Must not decide: `verdicts` does, from the facts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ondol.records.rollout import STABLE, Arm
from ondol.rollout import eprocess

_LIKELY = math.log(1000)  # stable's failure rate is at most its bound but for one chance in a thousand
_WORSE = (2.0, 5.0, 20.0)  # how many times the accepted rate, for bets in the bake time


@dataclass(frozen=True, slots=True)
class GuardFacts:
    """Whether only the candidate has failed so far, and how."""

    run: int = 0
    """Units in a row that failed with 5xx in the candidate; 0 as soon as stable has failed once."""

    log_chance: float = 0.0
    """Log of the chance that every unit that failed so far came to the candidate: each did with its weight."""


class Guard:
    """Counts failing units while only the candidate has any.

    When the candidate is no worse, each failing unit is the candidate's with probability at most its weight w, so that
    the first k all are with probability at most w^k; for growing k that is a martingale, and Ville's inequality bounds
    the chance that it ever falls below a level by that level.
    """

    def __init__(self) -> None:
        self._units: set[str] = set()
        self._run = 0
        self._log_chance = 0.0
        self._stable_failed = False

    def add(self, arm: Arm, weight: float, unit: str, failing: bool) -> None:
        if self._stable_failed or (not failing and arm == STABLE):
            return
        if not failing:
            self._run = 0
        elif arm == STABLE:
            self._stable_failed = True
        elif unit not in self._units:
            self._units.add(unit)
            self._run += 1
            self._log_chance += math.log(weight)

    def facts(self) -> GuardFacts:
        return GuardFacts() if self._stable_failed else GuardFacts(self._run, self._log_chance)


@dataclass(frozen=True, slots=True)
class BakeFacts:
    """What was seen since the candidate serves everybody, and stable's failures before."""

    originals: int = 0
    originals_failed: int = 0
    units: int = 0
    failed: int = 0
    run: int = 0
    """Units in a row that failed with 5xx."""

    def bound(self) -> float:
        """Return an upper bound of stable's failure rate, of what was seen before (Poisson, one chance in 1,000)."""
        if not self.originals:
            return 0.5
        most = self.originals_failed + math.sqrt(2 * self.originals_failed * _LIKELY) + _LIKELY
        return min(most / self.originals, 0.5)

    def log_e(self, margin: float) -> float:
        """Return the log e-value against "units fail no more often than stable's bound and the margin"."""
        rate = min(self.bound() + margin, 0.9)
        logs = []
        for ratio in _WORSE:
            worse = min(rate * ratio, (1 + rate) / 2)
            lost = (self.units - self.failed) * math.log((1 - worse) / (1 - rate))
            logs.append(self.failed * math.log(worse / rate) + lost)
        return eprocess.log_mean(logs)


class Bake:
    """Counts while there is nobody left to compare with: before and after is no coin toss, and says less."""

    def __init__(self) -> None:
        self._units: dict[str, bool] = {}
        self._run: set[str] = set()
        self._originals = self._originals_failed = 0

    def add_original(self, failing: bool) -> None:
        """Take an answer of stable from a dark step."""
        self._originals += 1
        self._originals_failed += failing

    def add(self, unit: str, crashed: bool, failing: bool) -> None:
        """Take an answer of the candidate; a unit's first one counts."""
        self._units.setdefault(unit, failing)
        if crashed:
            self._run.add(unit)
        else:
            self._run.clear()

    def facts(self) -> BakeFacts:
        failed = sum(self._units.values())
        return BakeFacts(self._originals, self._originals_failed, len(self._units), failed, len(self._run))

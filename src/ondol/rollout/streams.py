"""One metric's evidence: what is counted once per unit, against which reference.

References (a slow request's threshold, a mean to centre on) come from stable's first values and are renewed each time
their number has doubled. They are fixed before the values they are used on, so that no bet knows its own outcome.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from ondol.records.rollout import Arm
from ondol.rollout import eprocess
from ondol.rollout.eprocess import Block

Kind = Literal["event", "mean"]
_FIRST, _LAST = 32, 4096  # sizes of stable's sample at which a reference is made for the first and the last time
_LABELS = 16  # labels with a centre of their own; further ones (a regression's) share one


@dataclass(slots=True)
class Totals:
    """Per-arm numbers for people; every request counts here."""

    n: dict[Arm, int] = field(default_factory=lambda: {"stable": 0, "candidate": 0})
    total: dict[Arm, float] = field(default_factory=lambda: {"stable": 0.0, "candidate": 0.0})

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
        bins.setdefault(eprocess.bin_of(x), [0, 0])[arm == "candidate"] += 1

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


class Stream:
    """A metric's counts, and the moment when its evidence of harm crossed the line.

    From that moment the counts that carry the evidence stand still, so that the stored numbers prove the verdict.
    """

    kind: Kind = "mean"

    def __init__(self, name: str, limit: float) -> None:
        self.name = name
        self.limit = limit
        """Log e-value at which harm is proven."""

        self.totals = Totals()
        self.unscored = 0
        self.crossed = False
        self.harm = Tally()
        self.safe = Tally()
        self._seen: set[str] = set()
        self._harmed: set[str] = set()

    def event(self, arm: Arm, weight: float, unit: str, harmed: bool, regime: tuple[float, float]) -> None:
        """Count a yes-or-no outcome; of a unit, the first outcome and the first harm count."""
        self.totals.add(arm, float(harmed))
        if self.crossed:
            return
        reference, margin = regime
        if unit not in self._seen:
            self._seen.add(unit)
            self.safe.add((weight, 0.0, reference, margin), arm, float(harmed))
        if harmed and unit not in self._harmed:
            self._harmed.add(unit)
            self.harm.add((weight, 0.0, 0.0, margin), arm, 1.0)
            # Only the candidate's harm can carry the evidence over the line.
            self.crossed = arm == "candidate" and eprocess.event_log_e(self.harm.blocks()) >= self.limit


class Errors(Stream):
    """Requests that the release failed to answer."""

    kind: Kind = "event"

    def __init__(self, name: str, limit: float, margin: float) -> None:
        super().__init__(name, limit)
        self._margin = margin

    def add(self, arm: Arm, weight: float, unit: str, failed: bool) -> None:
        self.event(arm, weight, unit, failed, (0.0, self._margin))


class Latency(Stream):
    """Requests slower than stable's 95th percentile and a margin; shocks that hit both arms cancel out."""

    kind: Kind = "event"

    def __init__(self, name: str, limit: float, stretch: float, margin: float) -> None:
        super().__init__(name, limit)
        self._stretch, self._margin = stretch, margin
        self._reference = Reference()
        self._slow = 0.0

    def add(self, arm: Arm, weight: float, unit: str, milliseconds: float) -> None:
        if self._slow:
            self.event(arm, weight, unit, milliseconds > self._slow, (self._slow, self._margin))
        if arm == "stable" and (sample := self._reference.add(milliseconds)):
            self._slow = sample[math.ceil(0.95 * len(sample)) - 1] * (1 + self._stretch)


class Mean(Stream):
    """A bounded or clipped number per unit: the first one counts. Two-sided bounded, so that heavy tails do no harm."""

    def __init__(self, name: str, limit: float) -> None:
        super().__init__(name, limit)
        self._logs: list[float] = []
        self._stakes: dict[Regime, tuple[float, ...]] = {}

    def harm_difference(self, regime: Regime) -> float:
        """The difference that is no harm yet."""
        return 0.0

    def take(self, arm: Arm, regime: Regime, unit: str, x: float) -> None:
        if self.crossed or unit in self._seen:
            return
        self._seen.add(unit)
        self.safe.add(regime, arm, x)
        weight, centre, difference = regime[0], regime[1], self.harm_difference(regime)
        stakes = self._stakes.get(regime)
        if stakes is None:
            stakes = self._stakes[regime] = eprocess.mean_stakes(weight, centre, difference, 1)
            self._logs = self._logs or [0.0] * len(stakes)
        rounded = eprocess.bin_of(x) / eprocess.BINS
        y = ((arm == "candidate") - weight) * (rounded - centre) - weight * (1 - weight) * difference
        for index, stake in enumerate(stakes):
            self._logs[index] += math.log1p(stake * y)
        # The mixture is never above its best part: only then is the exact sum worth computing.
        if max(self._logs) >= self.limit:
            self.crossed = harm_log_e(self.kind, self.name, (), self.safe.blocks()) >= self.limit


class Centre:
    """The usual loss of stable, for requests with one label."""

    def __init__(self) -> None:
        self.value = 0.25
        self._reference = Reference()

    def add(self, loss: float) -> None:
        if sample := self._reference.add(loss):
            self.value = min(max(round(sum(sample) / len(sample), 4), 0.01), 0.99)


class Quality(Mean):
    """The loss per labelled request, in [0, 1], measured against stable's usual loss for that label.

    The label is the world's and not the arm's, so a centre that depends on it is fixed beforehand like any other, and
    what is hard for every model (late flights are) is no noise any more. `JudgePolicy.centre_by_label` turns it off.
    """

    def __init__(self, name: str, limit: float, margin: float) -> None:
        super().__init__(name, limit)
        self._margin = margin
        self._centres: dict[str, Centre] = {"": Centre()}

    def _centre(self, label: str) -> Centre:
        if label not in self._centres and len(self._centres) <= _LABELS:
            self._centres[label] = Centre()
        return self._centres.get(label, self._centres[""])

    def add(self, arm: Arm, weight: float, unit: str, loss: float, label: str) -> None:
        self.totals.add(arm, loss)
        centre = self._centre(label)
        self.take(arm, (weight, centre.value, 0.0, self._margin), unit, loss)
        if arm == "stable":
            centre.add(loss)


class Signal(Mean):
    """Cost, tokens or any other number ≥ 0, clipped at three times stable's 95th percentile: its tail cannot decide.

    Harm is growth beyond the relative margin; `:higher` after the name says that higher is better.
    """

    def __init__(self, name: str, limit: float, relative_margin: float) -> None:
        super().__init__(name, limit)
        self.higher_is_better = name.endswith(":higher")
        self.key = name.removesuffix(":higher")
        self._relative = relative_margin
        self._reference = Reference()
        self._regime: tuple[float, float, float] | None = None
        self.measured: set[str] = set()
        """Requests whose number has come, with them or later."""

    def harm_difference(self, regime: Regime) -> float:
        return regime[3]

    def _scaled(self, value: float, clip: float) -> float:
        x = min(max(value, 0.0), clip) / clip
        return 1 - x if self.higher_is_better else x

    def add(self, arm: Arm, weight: float, unit: str, value: float) -> None:
        self.totals.add(arm, value)
        if self._regime:
            centre, clip, margin = self._regime
            self.take(arm, (weight, centre, clip, margin), unit, self._scaled(value, clip))
        if arm == "stable" and (sample := self._reference.add(value)):
            clip = 3 * sample[math.ceil(0.95 * len(sample)) - 1] or 1.0
            mean = sum(min(max(one, 0.0), clip) for one in sample) / len(sample) / clip
            centre = round(1 - mean if self.higher_is_better else mean, 4)
            self._regime = (min(max(centre, 0.01), 0.99), clip, round(max(self._relative * mean, 0.001), 6))


def harm_log_e(kind: Kind, name: str, harm: tuple[Block, ...], safe: tuple[Block, ...]) -> float:
    """Return the log e-value of a metric's harm from its stored counts."""
    if kind == "event":
        return eprocess.event_log_e(harm)
    return eprocess.worse_log_e(safe, 0.0 if name == "quality" else None)

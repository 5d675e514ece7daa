"""One metric's evidence: what is counted once per unit, against which reference, and when it is proof.

Must not decide a rollout: `verdicts` does, from the counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ondol.records.rollout import CANDIDATE, STABLE, Arm
from ondol.rollout import calibration, eprocess
from ondol.rollout.eprocess import Block
from ondol.rollout.tallies import Kind, Reference, Regime, Tally, Totals

HIGHER = ":higher"
"""Ends the name of a signal of which a higher number is better."""

_LABELS = 16  # labels with a centre of their own; further ones (a regression's) share one


@dataclass(frozen=True, slots=True)
class Spending:
    """What one metric may spend of α."""

    alpha: float
    steps: int
    """Weights under which the arms are compared."""

    def log_evidence(self, kind: Kind, name: str, blocks: tuple[Block, ...]) -> float:
        """Return the log of the evidence of harm; it is proven at log(1 / α)."""
        if kind == "event":
            return calibration.event_log_evidence(blocks, self.alpha, self.steps)
        return eprocess.worse_log_e(blocks, 0.0 if name == "quality" else None)

    def proves(self, kind: Kind, name: str, blocks: tuple[Block, ...]) -> bool:
        """Say whether these counts prove harm."""
        return self.log_evidence(kind, name, blocks) >= self.limit

    @property
    def limit(self) -> float:
        return -math.log(self.alpha)


class Stream:
    """A metric's counts, and the moment when its evidence of harm crossed the line.

    From that moment the counts that carry the evidence stand still, so that the stored numbers prove the verdict.
    """

    kind: Kind = "mean"

    def __init__(self, name: str, spending: Spending) -> None:
        self.name = name
        self.spending = spending

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
            self.crossed = arm == CANDIDATE and self.spending.proves(self.kind, self.name, self.harm.blocks())

    def paired(self, unit: str, stable: bool, candidate: bool, regime: tuple[float, float]) -> None:
        """Count a request that both arms answered: a unit's first pair, and its first pair of which one was harmed.

        When the candidate is no worse, a pair of which only one was harmed is as likely to be harmed in stable.
        """
        self.totals.add(STABLE, float(stable))
        self.totals.add(CANDIDATE, float(candidate))
        if self.crossed:
            return
        reference, margin = regime
        if unit not in self._seen:
            self._seen.add(unit)
            x = (1 + candidate - stable) / 2
            self.safe.add((eprocess.PAIRED, 0.5, reference, margin), CANDIDATE, x)
        if stable != candidate and unit not in self._harmed:
            self._harmed.add(unit)
            self.harm.add((0.5, 0.0, 0.0, margin), CANDIDATE if candidate else STABLE, 1.0)
            self.crossed = candidate and self.spending.proves(self.kind, self.name, self.harm.blocks())


class Errors(Stream):
    """Requests that the release failed to answer."""

    kind: Kind = "event"

    def __init__(self, name: str, spending: Spending, margin: float) -> None:
        super().__init__(name, spending)
        self._margin = margin

    def add(self, arm: Arm, weight: float, unit: str, failed: bool) -> None:
        self.event(arm, weight, unit, failed, (0.0, self._margin))

    def add_pair(self, unit: str, stable: bool, candidate: bool) -> None:
        self.paired(unit, stable, candidate, (0.0, self._margin))


class Latency(Stream):
    """Requests slower than a quantile of stable's and a margin; shocks that hit both arms cancel out.

    :param slow: how much slower, as a share of the quantile and in milliseconds: the larger of the two counts.
    :param margin: accepted further share of slow requests.
    """

    kind: Kind = "event"

    def __init__(
        self, name: str, spending: Spending, quantile: float, slow: tuple[float, float], margin: float
    ) -> None:
        super().__init__(name, spending)
        self._quantile, self._margin = quantile, margin
        self._stretch, self._floor_ms = slow
        self._reference = Reference()
        self._slow = 0.0

    def add(self, arm: Arm, weight: float, unit: str, milliseconds: float) -> None:
        if self._slow:
            self.event(arm, weight, unit, milliseconds > self._slow, (self._slow, self._margin))
        if arm == STABLE:
            self._learn(milliseconds)

    def add_pair(self, unit: str, stable: float, candidate: float) -> None:
        if self._slow:
            self.paired(unit, stable > self._slow, candidate > self._slow, (self._slow, self._margin))
        self._learn(stable)

    def _learn(self, milliseconds: float) -> None:
        if sample := self._reference.add(milliseconds):
            usual = sample[math.ceil(self._quantile * len(sample)) - 1]
            self._slow = usual + max(usual * self._stretch, self._floor_ms)


class Mean(Stream):
    """A bounded or clipped number per unit: the first one counts. Two-sided bounded, so that heavy tails do no harm."""

    def __init__(self, name: str, spending: Spending) -> None:
        super().__init__(name, spending)
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
        if weight == eprocess.PAIRED:
            y = 2 * rounded - 1 - difference
        else:
            y = ((arm == CANDIDATE) - weight) * (rounded - centre) - weight * (1 - weight) * difference
        for index, stake in enumerate(stakes):
            self._logs[index] += math.log1p(stake * y)
        # The mixture is never above its best part: only then is the exact sum worth computing.
        if max(self._logs) >= self.spending.limit:
            self.crossed = self.spending.proves(self.kind, self.name, self.safe.blocks())

    def take_pair(self, unit: str, stable: float, candidate: float, margin: float) -> None:
        """Count a request that both arms answered, by how much more the candidate was measured at."""
        self.totals.add(STABLE, stable)
        self.totals.add(CANDIDATE, candidate)
        self.take(CANDIDATE, (eprocess.PAIRED, 0.5, 0.0, margin), unit, (1 + candidate - stable) / 2)


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

    def __init__(self, name: str, spending: Spending, margin: float) -> None:
        super().__init__(name, spending)
        self.margin = margin
        self._centres: dict[str, Centre] = {"": Centre()}

    def _centre(self, label: str) -> Centre:
        if label not in self._centres and len(self._centres) <= _LABELS:
            self._centres[label] = Centre()
        return self._centres.get(label, self._centres[""])

    def add(self, arm: Arm, weight: float, unit: str, loss: float, label: str) -> None:
        self.totals.add(arm, loss)
        centre = self._centre(label)
        self.take(arm, (weight, centre.value, 0.0, self.margin), unit, loss)
        if arm == STABLE:
            centre.add(loss)


class Difference(Mean):
    """How much the answers to one request differ, in [0, 1]; harm is to differ by more than the margin on average."""

    def __init__(self, name: str, spending: Spending, margin: float) -> None:
        super().__init__(name, spending)
        self._margin = margin

    def harm_difference(self, regime: Regime) -> float:
        return regime[3]

    def add_pair(self, unit: str, difference: float) -> None:
        self.take_pair(unit, 0.0, difference, self._margin)


class Signal(Mean):
    """Cost, tokens or any other number ≥ 0, clipped at three times stable's 95th percentile: its tail cannot decide.

    Harm is growth beyond the relative margin; `:higher` after the name says that higher is better.
    """

    def __init__(self, name: str, spending: Spending, relative_margin: float) -> None:
        super().__init__(name, spending)
        self.higher_is_better = name.endswith(HIGHER)
        self.key = name.removesuffix(HIGHER)
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
        if arm == STABLE and (sample := self._reference.add(value)):
            clip = 3 * sample[math.ceil(0.95 * len(sample)) - 1] or 1.0
            mean = sum(min(max(one, 0.0), clip) for one in sample) / len(sample) / clip
            centre = round(1 - mean if self.higher_is_better else mean, 4)
            self._regime = (min(max(centre, 0.01), 0.99), clip, round(max(self._relative * mean, 0.001), 6))

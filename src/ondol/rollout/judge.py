"""The judge: is the candidate worse, safe, or not known yet? Valid whenever one looks.

False rollbacks: α is split over guard, variants and metrics (`policies`) and each metric is tested sequentially
(`eprocess`, `calibration`), so the chance that a candidate which is worse in nothing is ever rolled back is at most α,
over all steps and looks together. Promotion is a non-inferiority test per metric at level β each; all must agree, so β
needs no splitting.

A copy in a dark step is compared with the answer that was given to the same request: a pair, which needs no coin toss.

Evidence is counted by unit: a unit's arm is one coin toss, so a client that sends a thousand broken requests is one
piece of evidence. `JudgePolicy.evidence_by` says when that may be otherwise.

Must not read or write the store, nor the clock: the same observations give the same verdict.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from ondol.records.rollout import CANDIDATE, STABLE, Arm, JudgePolicy, Observation
from ondol.rollout import guards, losses, policies, streams, verdicts
from ondol.rollout.findings import MetricFacts
from ondol.rollout.verdicts import Facts, JudgeVerdict

_NOT_THE_RELEASE = frozenset((401, 403, 404, 429))  # keys, addresses, load: the release has no part in these
_WARM_UP = 20  # candidate requests before latencies count: cold caches are slow together and say nothing for long


def failed(status: int) -> bool:
    """Say whether an answer counts as an error of the release.

    Refused requests (400, 422 …) count too: clients make mistakes in both arms alike, and a candidate that refuses what
    stable accepts is broken.
    """
    return status >= 400 and status not in _NOT_THE_RELEASE


@dataclass(slots=True)
class _Counts:
    requests: dict[Arm, int] = field(default_factory=lambda: {STABLE: 0, CANDIDATE: 0})
    steps: list[int] = field(default_factory=list)
    split: dict[float, list[int]] = field(default_factory=dict)
    units: dict[str, tuple[Arm, float]] = field(default_factory=dict)
    """Arm and weight of each unit when it came first."""

    early: dict[str, list[tuple[str, str, float]]] = field(default_factory=dict)
    """Numbers about units that have not come yet."""

    copies: int = 0
    guard: guards.Guard = field(default_factory=guards.Guard)


class Judge:
    """Takes observations one by one and says at any time what they amount to, for one variant against stable.

    :param step_times: when each step so far began; a request without its own weight got the weight of its time.
    :param variant: whose requests are compared with stable's; those of other variants are left out.
    :param share: part of the variants' units that are its own.
    :param variants: how many variants α is spent on.
    """

    def __init__(
        self, policy: JudgePolicy, step_times: Sequence[float] = (0.0,), variant: str = CANDIDATE, share: float = 1.0,
        variants: int = 1,
    ) -> None:  # fmt: skip
        self.policy = policies.check(policy)
        self.step_times = list(step_times) or [0.0]
        self.variant, self._share, self._variants = variant, share, variants
        self._counts = _Counts(steps=[0] * len(policy.steps))
        self._labelled: set[tuple[str, bool]] = set()
        self._weights: dict[str, float] = {}
        self._candidate_seen = False
        self._errors: streams.Errors | None = None
        self._quality: streams.Quality | None = None
        self._latencies: list[streams.Latency] = []
        self._differences: list[streams.Difference] = []
        self._signals: list[streams.Signal] = []
        self._pair_losses: dict[str, float] = {}
        self._bake = guards.Bake()
        steps = policies.judged_steps(policy)
        for name in policy.metrics:
            self._follow(name, streams.Spending(policies.alpha_of(policy, name, variants), steps))

    def _follow(self, name: str, spending: streams.Spending) -> None:
        policy = self.policy
        if name == "error_rate":
            self._errors = streams.Errors(name, spending, policy.margin)
        elif name == "quality":
            self._quality = streams.Quality(name, spending, policy.margin)
        elif quantile := policies.quantile(name):
            slow = (policy.latency_margin, policy.latency_floor_ms)
            self._latencies.append(streams.Latency(name, spending, quantile, slow, policy.slow_margin))
        elif name in policies.PAIR_METRICS:
            self._differences.append(streams.Difference(name, spending, policy.disagreement_margin))
        else:
            self._signals.append(streams.Signal(name, spending, policy.relative_margin))

    def _step_at(self, at: float) -> int:
        return max(bisect.bisect_right(self.step_times, at) - 1, 0)

    def _weight(self, one: Observation) -> float:
        """Return this variant's share of its units and stable's when the request was assigned, 0 when it had none."""
        if one.weight >= 0:
            total = one.weight / 100
        else:
            total = self.policy.steps[self._step_at(one.at)] / 100 if self._candidate_seen else 0.0
        if self._share == 1.0:
            return total
        return total * self._share / (total * self._share + 1 - total)

    def _unit(self, one: Observation) -> str:
        return one.unit if self.policy.evidence_by == "unit" and one.unit else one.id

    def add(self, one: Observation) -> None:
        """Take a served request, with its label if it has one already."""
        if one.arm not in (STABLE, self.variant):
            return
        if one.shadow:
            self._add_copy(one)
            return
        arm = CANDIDATE if one.arm == self.variant else STABLE
        weight, unit = self._weight(one), self._unit(one)
        # Without weights, requests before the candidate's first answer may be from when it was not loaded yet. That
        # first one only opens the counting: its arm is no coin toss, it is how we know.
        self._candidate_seen = self._candidate_seen or arm == CANDIDATE
        if weight == 1.0:
            self._counts.requests[arm] += 1
            self._bake.add(unit, one.status >= 500, failed(one.status))
        if not 0 < weight < 1:
            return
        self._weights[one.id] = weight
        self._count(one, arm, weight)
        self._counts.guard.add(arm, weight, unit, one.status >= 500)
        broken = failed(one.status)
        if self._errors:
            self._errors.add(arm, weight, unit, broken)
        if not broken:
            self._measure(one, arm, weight)

    def _count(self, one: Observation, arm: Arm, weight: float) -> None:
        """Count a request and, the first time, its unit."""
        counts = self._counts
        counts.requests[arm] += 1
        if arm == CANDIDATE:
            counts.steps[self._step_at(one.at)] += 1
        if (assigned := one.unit or one.id) not in counts.units:
            counts.units[assigned] = (arm, weight)
            counts.split.setdefault(weight, [0, 0])[arm == CANDIDATE] += 1
            for late in counts.early.pop(assigned, ()):
                self.add_unit_signal(*late)

    def _measure(self, one: Observation, arm: Arm, weight: float) -> None:
        """Take what an answer that is none of an error can be measured by."""
        unit = self._unit(one)
        # Rows of one request share whatever held it up: its first row, whose arm is as random as any other's, says it.
        if one.row == 0 and self._counts.requests[CANDIDATE] > _WARM_UP:
            for latency in self._latencies:
                latency.add(arm, weight, unit, one.latency_ms)
        self._add_signals(one, weight, unit)
        if one.label or "quality" in one.signals:
            self.add_label(one)

    def _add_copy(self, one: Observation) -> None:
        """Take a copy that was answered for the record, and what it says of the original."""
        counts, unit = self._counts, self._unit(one)
        counts.copies += 1
        counts.requests[STABLE] += 1
        counts.requests[CANDIDATE] += 1
        counts.steps[self._step_at(one.at)] += 1
        primary = int(one.signals.get("primary_status", 200))
        if (primary >= 500) != (one.status >= 500):
            counts.guard.add(CANDIDATE if one.status >= 500 else STABLE, 0.5, unit, True)
        elif one.status < 500:
            counts.guard.add(CANDIDATE, 0.5, unit, False)
        self._bake.add_original(failed(primary))
        if self._errors:
            self._errors.add_pair(unit, failed(primary), failed(one.status))
        if failed(primary) or failed(one.status):
            return
        ratio = one.signals.get("latency_ratio", 0.0)
        if ratio and counts.copies > _WARM_UP:
            for latency in self._latencies:
                latency.add_pair(unit, one.latency_ms / ratio, one.latency_ms)
        for difference in self._differences:
            if (value := one.signals.get(difference.name)) is not None:
                difference.add_pair(unit, float(value))
        if one.label:
            self.add_label(one)

    def add_label(self, one: Observation) -> None:
        """Take the label of a request that was added before; a request's first label counts."""
        if self._quality is None or one.arm not in (STABLE, self.variant) or (one.id, one.shadow) in self._labelled:
            return
        weight = self._weights.get(one.id)
        in_pair = one.shadow or (weight is None and self.policy.steps[0] == 0)
        if failed(one.status) or (weight is None and not in_pair):
            return
        self._labelled.add((one.id, one.shadow))
        loss = losses.of(one, self.policy)
        if loss is None:
            self._quality.unscored += 1
        elif in_pair:
            self._add_pair_loss(one, loss)
        elif weight is not None:
            # Feedback and scores are about the answer, so they depend on the arm: centring on them would hide all harm.
            about_answer = one.label.startswith("{") or "quality" in one.signals
            label = one.label if self.policy.centre_by_label and not about_answer else ""
            arm = CANDIDATE if one.arm == self.variant else STABLE
            self._quality.add(arm, weight, self._unit(one), loss, label)

    def _add_pair_loss(self, one: Observation, loss: float) -> None:
        """Compare the losses of an original and its copy as soon as both are known."""
        if one.label.startswith("{"):
            return  # feedback is about the answer that was given, the copy's nobody saw
        other = self._pair_losses.pop(one.id, None)
        if other is None:
            self._pair_losses[one.id] = loss
        elif self._quality is not None:
            stable, candidate = (other, loss) if one.shadow else (loss, other)
            self._quality.take_pair(self._unit(one), stable, candidate, self._quality.margin)

    def add_unit_signal(self, unit: str, name: str, value: float) -> None:
        """Take a number about a unit as a whole; it counts when the unit is known, now or later."""
        seen = self._counts.units.get(unit)
        if seen is None:
            self._counts.early.setdefault(unit, []).append((unit, name, value))
            return
        for signal in self._signals:
            if signal.key == name:
                signal.add(*seen, unit, value)

    def add_signals(self, one: Observation) -> None:
        """Take numbers that arrived later about a request that was added before; the first of a name counts."""
        weight = self._weights.get(one.id)
        if weight is None or one.shadow or failed(one.status) or one.arm not in (STABLE, self.variant):
            return
        self._add_signals(one, weight, self._unit(one))
        if "quality" in one.signals:
            self.add_label(one)

    def _add_signals(self, one: Observation, weight: float, unit: str) -> None:
        for signal in self._signals:
            value = one.signals.get(signal.key)
            if isinstance(value, (int, float)) and math.isfinite(value) and one.id not in signal.measured:
                signal.measured.add(one.id)
                signal.add(CANDIDATE if one.arm == self.variant else STABLE, weight, unit, float(value))

    def facts(self) -> Facts:
        """Return everything a verdict is made of."""
        counts, step = self._counts, len(self.step_times) - 1
        followed: tuple[streams.Stream | None, ...] = (
            self._errors, self._quality, *self._latencies, *self._differences, *self._signals,
        )  # fmt: skip
        named = {stream.name: stream for stream in followed if stream is not None}
        return Facts(
            step=step,
            weight=self.policy.steps[min(step, len(self.policy.steps) - 1)],
            stable_requests=counts.requests[STABLE],
            candidate_requests=counts.requests[CANDIDATE],
            step_requests=counts.steps[min(step, len(counts.steps) - 1)],
            split=tuple((weight, n[0], n[1]) for weight, n in counts.split.items()),
            metrics=tuple(_metric_facts(named[name]) for name in self.policy.metrics),
            variant=self.variant,
            variants=self._variants,
            copies=counts.copies,
            guard=counts.guard.facts(),
            bake=self._bake.facts(),
        )

    def verdict(self, intervals: bool = True) -> JudgeVerdict:
        """Return what the observations so far amount to, with everything needed to compute it again.

        Without intervals the action is the same and the answer ten times faster.
        """
        return verdicts.decide(self.facts(), self.policy, intervals)


def _metric_facts(stream: streams.Stream) -> MetricFacts:
    totals = stream.totals
    return MetricFacts(
        name=stream.name,
        kind=stream.kind,
        stable_n=totals.n[STABLE],
        candidate_n=totals.n[CANDIDATE],
        stable_sum=totals.total[STABLE],
        candidate_sum=totals.total[CANDIDATE],
        unscored=stream.unscored,
        harm=stream.harm.blocks(),
        safe=stream.safe.blocks(),
    )

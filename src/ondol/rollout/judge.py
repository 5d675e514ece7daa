"""The judge: is the candidate worse, safe, or not known yet? Valid whenever one looks.

False rollbacks: α is split evenly over the metrics and each is tested by an e-process (`eprocess`), so the chance that
a candidate which is worse in nothing is ever rolled back is at most α, over all steps and looks together. Promotion
is a non-inferiority test per metric at level β each; all must agree, so β needs no splitting.

Evidence is counted by unit: a unit's arm is one coin toss, so a client that sends a thousand broken requests is one
piece of evidence. `JudgePolicy.evidence_by` says when that may be otherwise.

Must not read or write the store, nor the clock: the same observations give the same verdict.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ondol.base import errors
from ondol.records import codec
from ondol.records.rollout import Arm, JudgePolicy, Observation
from ondol.rollout import losses, streams, verdicts
from ondol.rollout.verdicts import Facts, JudgeVerdict, MetricFacts

__all__ = ["Action", "Judge", "JudgeVerdict", "check_policy", "recompute", "replay"]

Action = Literal["promote", "advance", "roll_back", "go_on", "inconclusive"]

_NOT_THE_RELEASE = frozenset((401, 403, 404, 429))  # keys, addresses, load: the release has no part in these
_WARM_UP = 20  # candidate requests before latencies count: cold caches are slow together and say nothing for long


def failed(status: int) -> bool:
    """Say whether an answer counts as an error of the release.

    Refused requests (400, 422 …) count too: clients make mistakes in both arms alike, and a candidate that refuses what
    stable accepts is broken.
    """
    return status >= 400 and status not in _NOT_THE_RELEASE


def check_policy(policy: JudgePolicy) -> JudgePolicy:
    """Return the policy if a rollout can follow it.

    :raises InputError: naming the field that cannot be.
    """
    steps = policy.steps
    problems = {
        "steps": len(steps) < 2 or list(steps) != sorted(set(steps)) or steps[0] <= 0 or steps[-1] != 100,
        "metrics": not policy.metrics or len(set(policy.metrics)) != len(policy.metrics) or "" in policy.metrics,
        "alpha": not 0 < policy.alpha < 0.5,
        "beta": not 0 < policy.beta < 0.5,
        "margin": not 0 < policy.margin < 1,
        "slow_margin": not 0 < policy.slow_margin < 1,
        "relative_margin": not policy.relative_margin > 0,
        "latency_margin": not policy.latency_margin >= 0,
        "quality_scale": not policy.quality_scale > 0,
        "min_requests": policy.min_requests < 1,
        "max_requests": policy.max_requests < policy.min_requests,
        "bake_seconds": not policy.bake_seconds >= 0,
    }
    wrong = next((name for name, bad in problems.items() if bad), None)
    if wrong:
        raise errors.InputError(
            f"a rollout cannot have {wrong} = {getattr(policy, wrong)!r}", where=f"policy.{wrong}",
            way_out=_HINTS.get(wrong, "Use a number above 0, and shares below 1."), code="INP-030",
        )  # fmt: skip
    return policy


_HINTS = {
    "steps": "Write growing percentages that end with 100, such as [10, 50, 100].",
    "metrics": "Name each metric once: error_rate, quality, latency_p95, or a signal such as cost.",
    "max_requests": "Give at least min_requests.",
}


@dataclass(slots=True)
class _Counts:
    requests: dict[Arm, int] = field(default_factory=lambda: {"stable": 0, "candidate": 0})
    steps: list[int] = field(default_factory=list)
    split: dict[float, list[int]] = field(default_factory=dict)
    units: set[str] = field(default_factory=set)


class Judge:
    """Takes observations one by one and says at any time what they amount to.

    :param step_times: when each step so far began; a request without its own weight got the weight of its time.
    """

    def __init__(self, policy: JudgePolicy, step_times: Sequence[float] = (0.0,)) -> None:
        self.policy = check_policy(policy)
        self.step_times = list(step_times) or [0.0]
        self._counts = _Counts(steps=[0] * len(policy.steps))
        self._labelled: set[str] = set()
        self._weights: dict[str, float] = {}
        self._candidate_seen = False
        limit = verdicts.harm_limit(policy)
        self._errors: streams.Errors | None = None
        self._latency: streams.Latency | None = None
        self._quality: streams.Quality | None = None
        self._signals: list[streams.Signal] = []
        for name in policy.metrics:
            if name == "error_rate":
                self._errors = streams.Errors(name, limit, policy.margin)
            elif name == "latency_p95":
                self._latency = streams.Latency(name, limit, policy.latency_margin, policy.slow_margin)
            elif name == "quality":
                self._quality = streams.Quality(name, limit, policy.margin)
            else:
                self._signals.append(streams.Signal(name, limit, policy.relative_margin))

    def _step_at(self, at: float) -> int:
        return max(bisect.bisect_right(self.step_times, at) - 1, 0)

    def _weight(self, one: Observation) -> float:
        """Return the share of the candidate when this request was assigned, 0 when it had none."""
        if one.weight >= 0:
            return one.weight / 100
        return self.policy.steps[self._step_at(one.at)] / 100 if self._candidate_seen else 0.0

    def _unit(self, one: Observation) -> str:
        return one.unit if self.policy.evidence_by == "unit" and one.unit else one.id

    def add(self, one: Observation) -> None:
        """Take a served request, with its label if it has one already."""
        if one.shadow:
            return
        weight, unit = self._weight(one), self._unit(one)
        # Without weights, requests before the candidate's first answer may be from when it was not loaded yet. That
        # first one only opens the counting: its arm is no coin toss, it is how we know.
        self._candidate_seen = self._candidate_seen or one.arm == "candidate"
        if not 0 < weight < 1:
            return
        self._weights[one.id] = weight
        counts, broken = self._counts, failed(one.status)
        counts.requests[one.arm] += 1
        if one.arm == "candidate":
            counts.steps[self._step_at(one.at)] += 1
        if (assigned := one.unit or one.id) not in counts.units:
            counts.units.add(assigned)
            counts.split.setdefault(weight, [0, 0])[one.arm == "candidate"] += 1
        if self._errors:
            self._errors.add(one.arm, weight, unit, broken)
        if broken:
            return
        if self._latency and counts.requests["candidate"] > _WARM_UP:
            self._latency.add(one.arm, weight, unit, one.latency_ms)
        self._add_signals(one, weight, unit)
        if one.label or "quality" in one.signals:
            self.add_label(one)

    def add_label(self, one: Observation) -> None:
        """Take the label of a request that was added before; a request's first label counts."""
        weight = self._weights.get(one.id)
        if self._quality is None or weight is None or one.id in self._labelled or failed(one.status):
            return
        self._labelled.add(one.id)
        loss = losses.of(one, self.policy)
        if loss is None:
            self._quality.unscored += 1
        else:
            # Feedback and scores are about the answer, so they depend on the arm: centring on them would hide all harm.
            about_answer = one.label.startswith("{") or "quality" in one.signals
            label = one.label if self.policy.centre_by_label and not about_answer else ""
            self._quality.add(one.arm, weight, self._unit(one), loss, label)

    def add_signals(self, one: Observation) -> None:
        """Take numbers that arrived later about a request that was added before; the first of a name counts."""
        weight = self._weights.get(one.id)
        if weight is None or failed(one.status):
            return
        self._add_signals(one, weight, self._unit(one))
        if "quality" in one.signals:
            self.add_label(one)

    def _add_signals(self, one: Observation, weight: float, unit: str) -> None:
        for signal in self._signals:
            value = one.signals.get(signal.key)
            if isinstance(value, (int, float)) and math.isfinite(value) and one.id not in signal.measured:
                signal.measured.add(one.id)
                signal.add(one.arm, weight, unit, float(value))

    def facts(self) -> Facts:
        """Return everything a verdict is made of."""
        counts, step = self._counts, len(self.step_times) - 1
        named: dict[str, streams.Stream] = {
            stream.name: stream
            for stream in (self._errors, self._latency, self._quality, *self._signals)
            if stream is not None
        }
        return Facts(
            step=step,
            weight=self.policy.steps[min(step, len(self.policy.steps) - 1)],
            stable_requests=counts.requests["stable"],
            candidate_requests=counts.requests["candidate"],
            step_requests=counts.steps[min(step, len(counts.steps) - 1)],
            split=tuple((weight, n[0], n[1]) for weight, n in counts.split.items()),
            metrics=tuple(_metric_facts(named[name]) for name in self.policy.metrics),
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
        stable_n=totals.n["stable"],
        candidate_n=totals.n["candidate"],
        stable_sum=totals.total["stable"],
        candidate_sum=totals.total["candidate"],
        unscored=stream.unscored,
        harm=stream.harm.blocks(),
        safe=stream.safe.blocks(),
    )


def replay(evidence: dict[str, Any]) -> JudgeVerdict:
    """Compute a verdict again from its stored evidence alone.

    :raises InputError: when this is not the evidence of a judge.
    """
    return verdicts.decide(
        codec.typed(evidence.get("facts", {}), Facts), codec.typed(evidence.get("policy", {}), JudgePolicy)
    )


def recompute(
    observations: Iterable[Observation], policy: JudgePolicy, step_times: Sequence[float] = (0.0,)
) -> JudgeVerdict:
    """Compute a verdict from the raw requests, in the order in which they were logged."""
    judge = Judge(policy, step_times)
    for one in observations:
        judge.add(one)
    return judge.verdict()

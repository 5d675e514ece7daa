"""One metric's counts as numbers for a verdict and as words for people.

Must not decide: `verdicts` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ondol.records.rollout import JudgePolicy
from ondol.rollout import eprocess, policies, streams
from ondol.rollout.eprocess import PAIRED, Block
from ondol.rollout.tallies import Kind


@dataclass(frozen=True, slots=True)
class MetricFacts:
    """The counts of one metric."""

    name: str
    kind: Kind
    stable_n: int
    candidate_n: int
    stable_sum: float
    candidate_sum: float
    unscored: int
    harm: tuple[Block, ...]
    """Units that were harmed (`event` metrics only)."""

    safe: tuple[Block, ...]
    """Units by their first measurement."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One metric as a reader wants to see it."""

    metric: str
    stable_n: int
    candidate_n: int
    stable: float | None
    """Mean over stable's requests: a rate, a loss, a cost."""

    candidate: float | None
    units: int
    """Pieces of evidence: units, each counted once."""

    harm: float
    """log10 of the evidence that the candidate is worse."""

    harm_at: float
    """log10 of the evidence at which it is rolled back: 1 / its share of alpha."""

    safe: float
    """log10 of the e-value that it is not worse than the margin."""

    safe_at: float
    low: float
    """Confidence sequence (95 %, valid at all times) of candidate - stable, in `scale`; of stable - candidate where a
    higher number is better, so that it always grows with harm."""

    high: float
    margin: float
    scale: float
    """What 1 of `low`, `high` and `margin` is in the metric's own units."""

    more_requests: int | None
    """Candidate requests still expected until it is known to be safe; None when that is not in sight."""

    unscored: int
    """Requests that could not be measured: no number, or a label that does not fit the prediction."""

    like: float | None = None
    """Mean of candidate - stable among like requests (same step; for quality also the same label), in `scale`: what the
    e-value sees. The plain means differ also by which requests happened to come to which arm."""

    better: float = 0.0
    """log10 of the e-value that the candidate is better, by whatever little."""

    no_better: float = 0.0
    """log10 of the e-value that it is not better by the margin or more."""

    variant: str = ""
    """Whose metric this is, when there are several variants."""

    paired: bool = False
    """Both arms answered the same requests."""

    @property
    def unit(self) -> float:
        """What 1 of `low`, `high` and `margin` is as a difference candidate - stable, in the metric's own units."""
        return -self.scale if self.metric.endswith(streams.HIGHER) else self.scale

    @property
    def counted_to(self) -> float | None:
        """Where a number that requests carry is clipped, before `low` and `high` are computed; None: nowhere."""
        return self.scale if self.scale != 1.0 else None

    @property
    def interval(self) -> tuple[float, float]:
        """The confidence sequence of candidate - stable, in the metric's own units."""
        low, high = sorted((self.low * self.unit, self.high * self.unit))
        return low, high


def finding(
    metric: MetricFacts, policy: JudgePolicy, intervals: bool = True, variants: int = 1, variant: str = ""
) -> Finding:
    """Compute one metric's numbers from its counts; without intervals, which decide nothing, ten times faster."""
    last = metric.safe[-1] if metric.safe else None
    units = sum(row[1] + row[2] for block in metric.safe for row in block.counts)
    safe = eprocess.safe_log_e(metric.safe) if last else 0.0
    low, high = eprocess.interval(metric.safe) if last and intervals else (-1.0, 1.0)
    spending = streams.Spending(policies.alpha_of(policy, metric.name, variants), policies.judged_steps(policy))
    counted = metric.harm if metric.kind == "event" else metric.safe
    paired = last is not None and last.weight == PAIRED
    decided = last is not None and metric.name == policy.decide_on
    return Finding(
        metric=metric.name,
        stable_n=metric.stable_n,
        candidate_n=metric.candidate_n,
        stable=metric.stable_sum / metric.stable_n if metric.stable_n else None,
        candidate=metric.candidate_sum / metric.candidate_n if metric.candidate_n else None,
        units=units,
        harm=log10(spending.log_evidence(metric.kind, metric.name, counted)) if last else 0.0,
        harm_at=log10(spending.limit),
        safe=log10(safe),
        safe_at=log10(math.log(1 / policy.beta)),
        low=low,
        high=high,
        margin=last.margin if last else policy.margin,
        scale=last.reference if last and metric.kind == "mean" and last.reference else 1.0,
        more_requests=0 if safe >= math.log(1 / policy.beta) else _more(metric, policy, units, paired),
        unscored=metric.unscored,
        like=_like(metric.safe) if metric.kind == "mean" else None,
        better=log10(eprocess.safe_log_e(metric.safe, 0.0)) if decided else 0.0,
        no_better=log10(eprocess.no_better_log_e(metric.safe)) if decided else 0.0,
        variant=variant,
        paired=paired,
    )


def log10(log_e: float) -> float:
    """Return a natural logarithm as a decimal one."""
    return log_e / math.log(10)


def _like(blocks: tuple[Block, ...]) -> float | None:
    """Return the difference of means within blocks, weighted by how much each block can tell."""
    total = weight = 0.0
    for block in blocks:
        stable_n = sum(row[1] for row in block.counts)
        candidate_n = sum(row[2] for row in block.counts)
        if block.weight == PAIRED:
            difference = sum((2 * row[0] / eprocess.BINS - 1) * row[2] for row in block.counts) / candidate_n
            tells = float(candidate_n)
        elif stable_n and candidate_n:
            stable = sum(row[0] * row[1] for row in block.counts) / stable_n
            candidate = sum(row[0] * row[2] for row in block.counts) / candidate_n
            difference, tells = (candidate - stable) / eprocess.BINS, stable_n * candidate_n / (stable_n + candidate_n)
        else:
            continue
        total += tells * difference
        weight += tells
    return total / weight if weight else None


def _more(metric: MetricFacts, policy: JudgePolicy, units: int, paired: bool) -> int | None:
    wanted = eprocess.units_needed(metric.safe, policy.beta)
    if wanted is None:
        return None
    requests = metric.candidate_n if paired else metric.stable_n + metric.candidate_n
    return math.ceil(wanted * metric.safe[-1].weight * (requests / units if units else 1.0))


_SHARES = ("error_rate", "disagreement", "guardrail_block", "abstained", "degraded")


def shown(one: Finding, value: float | None) -> str:
    """Return a metric's value as people read it."""
    if value is None:
        return "no data"
    share = one.metric in _SHARES or policies.is_latency(one.metric)
    return f"{100 * value:.3g} %" if share else f"{value:.4g}"


def e_shown(log10_e: float) -> str:
    """Return an e-value as people read it."""
    return f"{10**log10_e:.3g}" if -4 < log10_e < 4 else f"1e{log10_e:.0f}"


def _what(one: Finding) -> str:
    if policies.is_latency(one.metric):
        return "slow requests" if one.metric == "latency_p95" else f"requests slower than {one.metric[8:]}"
    return {"error_rate": "errors", "quality": "loss"}.get(one.metric, one.metric)


def _named(one: Finding) -> str:
    return f"{one.variant}: " if one.variant else ""


def harm_reason(one: Finding) -> str:
    """Say what is worse, by how much and how certainly."""
    # A computed line (`calibration`) makes more of a count of errors than its e-value alone would.
    name = "evidence" if one.metric == "error_rate" or policies.is_latency(one.metric) else "e-value"
    evidence = f"{name} {e_shown(one.harm)}, rolled back at {e_shown(one.harm_at)}"
    if one.metric == "quality" and one.like is not None:
        return (
            f"{_named(one)}loss worse by {one.like:.3g} among requests with the same outcome (n={one.candidate_n} in "
            f"the candidate, {one.stable_n} in stable; plain means {shown(one, one.candidate)} and "
            f"{shown(one, one.stable)}): {evidence}"
        )
    return (
        f"{_named(one)}{_what(one)} {shown(one, one.candidate)} in the candidate (n={one.candidate_n}) against "
        f"{shown(one, one.stable)} in stable (n={one.stable_n}): {evidence}"
    )


def safe_reason(one: Finding) -> str:
    """Say what is known not to be worse."""
    if one.metric == "quality" and one.like is not None:
        return (
            f"{_named(one)}quality not worse by {one.margin:.3g} or more (e-value {e_shown(one.safe)}, "
            f"n={one.candidate_n}+{one.stable_n}): loss {one.like:+.3g} among requests with the same outcome, "
            f"plain means {shown(one, one.candidate)} and {shown(one, one.stable)}"
        )
    return (
        f"{_named(one)}{one.metric} {shown(one, one.candidate)} against {shown(one, one.stable)}: not worse by "
        f"{one.margin * one.scale:.3g} or more (e-value {e_shown(one.safe)}, n={one.candidate_n}+{one.stable_n})"
    )


def better_reason(one: Finding) -> str:
    """Say what is better, by how much and how certainly."""
    by = f" by {abs(one.like) * one.scale:.3g}" if one.like is not None else ""
    return (
        f"{_named(one)}{one.metric} better{by}: {shown(one, one.candidate)} against {shown(one, one.stable)} "
        f"(e-value {e_shown(one.better)}, n={one.candidate_n}+{one.stable_n})"
    )


def same_reason(one: Finding) -> str:
    """Say that no difference is left that would matter."""
    return (
        f"{_named(one)}{one.metric} {shown(one, one.candidate)} against {shown(one, one.stable)}: no difference of "
        f"{one.margin * one.scale:.3g} or more (e-values {e_shown(one.safe)} and {e_shown(one.no_better)}, "
        f"n={one.candidate_n}+{one.stable_n})"
    )


def open_reason(one: Finding) -> str:
    """Say what is not known yet, and how many more requests it takes."""
    if not one.units:
        return f"{_named(one)}{one.metric}: nothing measured yet"
    more = (
        f"about {one.more_requests} more candidate requests expected"
        if one.more_requests is not None
        else "the difference so far is not below the margin, more requests alone will not settle it"
    )
    return (
        f"{_named(one)}{one.metric} {shown(one, one.candidate)} against {shown(one, one.stable)} "
        f"(n={one.candidate_n}+{one.stable_n}) is not known to be within {one.margin * one.scale:.3g}: {more}"
    )

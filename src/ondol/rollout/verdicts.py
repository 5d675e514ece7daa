"""From counts to a verdict: pure, so that stored evidence gives the same verdict again.

Must not see single requests: what is not in `Facts` cannot decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from ondol.records import codec
from ondol.records.rollout import JudgePolicy
from ondol.rollout import eprocess, split, streams
from ondol.rollout.eprocess import Block

_SPLIT_ALPHA = 0.001  # chance of calling a working split broken
_LEANING = math.log(3)  # evidence of harm, short of proof, at which a step is not left yet


@dataclass(frozen=True, slots=True)
class MetricFacts:
    """The counts of one metric."""

    name: str
    kind: streams.Kind
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
class Facts:
    """The counts of a rollout."""

    step: int
    weight: float
    stable_requests: int
    candidate_requests: int
    step_requests: int
    """Candidate requests since the step began."""

    split: tuple[tuple[float, int, int], ...]
    """Per weight (0 to 1): units first seen in stable, in candidate."""

    metrics: tuple[MetricFacts, ...]


@dataclass(frozen=True, slots=True)
class JudgeVerdict:
    """What to do, why in one sentence, and the numbers behind it."""

    action: Literal["promote", "advance", "roll_back", "go_on", "inconclusive"]
    reason: str
    evidence: dict[str, Any]


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
    """log10 of the e-value that the candidate is worse."""

    harm_at: float
    """log10 of the e-value at which it is rolled back: 1 / its share of alpha."""

    safe: float
    """log10 of the e-value that it is not worse than the margin."""

    safe_at: float
    low: float
    """Confidence sequence (95 %, valid at all times) of candidate - stable, in `scale`."""

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


def harm_limit(policy: JudgePolicy) -> float:
    """Return the log e-value at which one metric proves harm: α is split evenly over the metrics."""
    return math.log(len(policy.metrics) / policy.alpha)


def _per_unit(metric: MetricFacts, units: int) -> float:
    return (metric.stable_n + metric.candidate_n) / units if units else 1.0


def finding(metric: MetricFacts, policy: JudgePolicy, intervals: bool = True) -> Finding:
    """Compute one metric's numbers from its counts; without intervals, which decide nothing, ten times faster."""
    last = metric.safe[-1] if metric.safe else None
    units = sum(row[1] + row[2] for block in metric.safe for row in block.counts)
    safe = eprocess.safe_log_e(metric.safe) if last else 0.0
    low, high = eprocess.interval(metric.safe) if last and intervals else (-1.0, 1.0)
    more = 0 if safe >= math.log(1 / policy.beta) else _more(metric, policy, units)
    return Finding(
        metric=metric.name,
        stable_n=metric.stable_n,
        candidate_n=metric.candidate_n,
        stable=metric.stable_sum / metric.stable_n if metric.stable_n else None,
        candidate=metric.candidate_sum / metric.candidate_n if metric.candidate_n else None,
        units=units,
        harm=_log10(streams.harm_log_e(metric.kind, metric.name, metric.harm, metric.safe)),
        harm_at=_log10(harm_limit(policy)),
        safe=_log10(safe),
        safe_at=_log10(math.log(1 / policy.beta)),
        low=low,
        high=high,
        margin=last.margin if last else policy.margin,
        scale=last.reference if last and metric.kind == "mean" and last.reference else 1.0,
        more_requests=more,
        unscored=metric.unscored,
        like=_like(metric.safe) if metric.kind == "mean" else None,
    )


def _like(blocks: tuple[Block, ...]) -> float | None:
    """Return the difference of means within blocks, weighted by how much each block can tell."""
    total = weight = 0.0
    for block in blocks:
        stable_n = sum(row[1] for row in block.counts)
        candidate_n = sum(row[2] for row in block.counts)
        if stable_n and candidate_n:
            stable = sum(row[0] * row[1] for row in block.counts) / stable_n
            candidate = sum(row[0] * row[2] for row in block.counts) / candidate_n
            tells = stable_n * candidate_n / (stable_n + candidate_n)
            total += tells * (candidate - stable) / eprocess.BINS
            weight += tells
    return total / weight if weight else None


def _more(metric: MetricFacts, policy: JudgePolicy, units: int) -> int | None:
    wanted = eprocess.units_needed(metric.safe, policy.beta)
    if wanted is None:
        return None
    return math.ceil(wanted * metric.safe[-1].weight * _per_unit(metric, units))


def _log10(log_e: float) -> float:
    return log_e / math.log(10)


def decide(facts: Facts, policy: JudgePolicy, intervals: bool = True) -> JudgeVerdict:
    """Return the verdict on these counts."""
    findings = [finding(metric, policy, intervals) for metric in facts.metrics]
    broken = split.mismatch_log_e([*facts.split])
    action, reason = _action(facts, policy, findings, broken)
    evidence = {
        "judge": 1,
        "policy": codec.plain(policy),
        "facts": codec.plain(facts),
        "findings": codec.plain(findings),
        "split": {"log10_e": _log10(broken), "at": -math.log10(_SPLIT_ALPHA)},
    }
    return JudgeVerdict(action, reason, evidence)


_Answer = tuple[Literal["promote", "advance", "roll_back", "go_on", "inconclusive"], str]


def _action(facts: Facts, policy: JudgePolicy, findings: list[Finding], broken: float) -> _Answer:
    if broken >= -math.log(_SPLIT_ALPHA):
        return "inconclusive", _split_reason(facts)
    harmed = [one for one in findings if _proves_harm(one)]
    if harmed:
        return "roll_back", "; ".join(harm_reason(one) for one in harmed)
    unsafe = [one for one in findings if one.safe < one.safe_at]
    if facts.step_requests >= policy.min_requests:
        last = facts.step >= len(policy.steps) - 2
        if last and not unsafe:
            return "promote", "; ".join(safe_reason(one) for one in findings)
        leaning = [one for one in findings if one.harm > _log10(_LEANING)]
        if not last and not leaning:
            return "advance", (
                f"{facts.step_requests} candidate requests at {facts.weight:g} % and nothing leans to harm"
            )
    if facts.candidate_requests >= policy.max_requests:
        return "inconclusive", (
            f"undecided after {facts.candidate_requests} candidate requests: "
            + "; ".join(open_reason(one) for one in unsafe)
        )
    if facts.step_requests < policy.min_requests:
        return "go_on", f"{facts.step_requests} of at least {policy.min_requests} candidate requests at this step"
    return "go_on", "; ".join(
        open_reason(one) for one in unsafe
    ) or "the evidence leans to harm, not enough to prove it"


def _proves_harm(one: Finding) -> bool:
    return one.harm >= one.harm_at - 1e-12


def _split_reason(facts: Facts) -> str:
    stable, candidate = sum(n[1] for n in facts.split), sum(n[2] for n in facts.split)
    share = 100 * candidate / max(stable + candidate, 1)
    return (
        f"the split is broken: {share:.1f} % of {stable + candidate} units came to the candidate, "
        f"{facts.weight:g} % were asked for; no comparison is valid"
    )


def shown(one: Finding, value: float | None) -> str:
    """Return a metric's value as people read it."""
    if value is None:
        return "no data"
    return f"{100 * value:.3g} %" if one.metric in ("error_rate", "latency_p95") else f"{value:.4g}"


def e_shown(log10_e: float) -> str:
    """Return an e-value as people read it."""
    return f"{10**log10_e:.3g}" if -4 < log10_e < 4 else f"1e{log10_e:.0f}"


def harm_reason(one: Finding) -> str:
    what = {"error_rate": "errors", "latency_p95": "slow requests", "quality": "loss"}.get(one.metric, one.metric)
    if one.metric == "quality" and one.like is not None:
        return (
            f"loss worse by {one.like:.3g} among requests with the same outcome (n={one.candidate_n} in the candidate, "
            f"{one.stable_n} in stable; plain means {shown(one, one.candidate)} and {shown(one, one.stable)}): "
            f"e-value {e_shown(one.harm)}, rolled back at {e_shown(one.harm_at)}"
        )
    return (
        f"{what} {shown(one, one.candidate)} in the candidate (n={one.candidate_n}) against "
        f"{shown(one, one.stable)} in stable (n={one.stable_n}): e-value {e_shown(one.harm)}, "
        f"rolled back at {e_shown(one.harm_at)}"
    )


def safe_reason(one: Finding) -> str:
    if one.metric == "quality" and one.like is not None:
        return (
            f"quality not worse by {one.margin:.3g} or more (e-value {e_shown(one.safe)}, "
            f"n={one.candidate_n}+{one.stable_n}): loss {one.like:+.3g} among requests with the same outcome, "
            f"plain means {shown(one, one.candidate)} and {shown(one, one.stable)}"
        )
    return (
        f"{one.metric} {shown(one, one.candidate)} against {shown(one, one.stable)}: not worse by "
        f"{one.margin * one.scale:.3g} or more (e-value {e_shown(one.safe)}, n={one.candidate_n}+{one.stable_n})"
    )


def open_reason(one: Finding) -> str:
    if not one.units:
        return f"{one.metric}: nothing measured yet"
    more = (
        f"about {one.more_requests} more candidate requests expected"
        if one.more_requests is not None
        else "the difference so far is not below the margin, more requests alone will not settle it"
    )
    return (
        f"{one.metric} {shown(one, one.candidate)} against {shown(one, one.stable)} "
        f"(n={one.candidate_n}+{one.stable_n}) is not known to be within {one.margin * one.scale:.3g}: {more}"
    )

"""From counts to a verdict: pure, so that stored evidence gives the same verdict again.

Must not see single requests: what is not in `Facts` cannot decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ondol.records import codec
from ondol.records.rollout import CANDIDATE, JudgePolicy
from ondol.rollout import findings, policies, split
from ondol.rollout.findings import Finding, MetricFacts
from ondol.rollout.guards import BakeFacts, GuardFacts

VERSION = 2
"""Of the rules below: evidence that was judged by others is not judged again."""

_SPLIT_ALPHA = 0.001  # chance of calling a working split broken
_LEANING = math.log(3)  # evidence of harm, short of proof, at which a step is not left yet

Action = Literal[
    "promote",
    "advance",
    "bake",
    "roll_back",
    "drop",
    "go_on",
    "inconclusive",
    "no_difference",
    "compared",
    "abort",
]
Said = tuple[Action, str]


@dataclass(frozen=True, slots=True)
class Facts:
    """The counts of one variant against stable."""

    step: int
    weight: float
    stable_requests: int
    candidate_requests: int
    step_requests: int
    """Candidate requests since the step began."""

    split: tuple[tuple[float, int, int], ...]
    """Per weight (0 to 1): units first seen in stable, in candidate."""

    metrics: tuple[MetricFacts, ...]
    variant: str = CANDIDATE
    variants: int = 1
    """How many variants α is spent on."""

    copies: int = 0
    """Requests that both arms answered, the candidate for the record only."""

    guard: GuardFacts = field(default_factory=GuardFacts)
    bake: BakeFacts = field(default_factory=BakeFacts)


@dataclass(frozen=True, slots=True)
class JudgeVerdict:
    """What to do, why in one sentence, and the numbers behind it."""

    action: Action
    reason: str
    evidence: dict[str, Any]
    variant: str = ""
    """Who is promoted or dropped, when there are several."""


def findings_of(facts: Facts, policy: JudgePolicy, intervals: bool = True) -> list[Finding]:
    """Return every metric's numbers."""
    name = facts.variant if facts.variants > 1 else ""
    return [findings.finding(metric, policy, intervals, facts.variants, name) for metric in facts.metrics]


def split_log_e(facts: Facts) -> float:
    """Return the log e-value that units do not come to the arms as the weights say."""
    return split.mismatch_log_e([*facts.split])


def decide(facts: Facts, policy: JudgePolicy, intervals: bool = True) -> JudgeVerdict:
    """Return the verdict on the counts of the only variant."""
    found = findings_of(facts, policy, intervals)
    action, reason = action_of(facts, policy, found)
    return JudgeVerdict(action, reason, evidence_of([facts], policy, found))


def evidence_of(every: Sequence[Facts], policy: JudgePolicy, found: list[Finding]) -> dict[str, Any]:
    """Return everything that is needed to compute a verdict again."""
    evidence = {
        "judge": VERSION,
        "policy": codec.plain(policy),
        "facts": codec.plain(every[0]),
        "findings": codec.plain(found),
        "split": {"log10_e": max(map(findings.log10, map(split_log_e, every))), "at": -math.log10(_SPLIT_ALPHA)},
    }
    return {**evidence, "others": codec.plain(every[1:])} if len(every) > 1 else evidence


def action_of(facts: Facts, policy: JudgePolicy, found: list[Finding]) -> Said:
    """Return what one variant's counts ask for, and why."""
    broken = split_log_e(facts) >= -math.log(_SPLIT_ALPHA)
    harmed = [one for one in found if proves_harm(one)]
    if harmed and not broken:
        return "roll_back", "; ".join(findings.harm_reason(one) for one in harmed)
    if caught := _guarded(facts, policy):
        return "roll_back", caught
    if broken:
        return "inconclusive", _split_reason(facts)
    if policy.strategy == "ab":
        return _decided(facts, policy, found)
    if facts.weight == 100:
        return _baking(facts, policy)
    return _stepped(facts, policy, found)


def proves_harm(one: Finding) -> bool:
    """Say whether one metric's evidence of harm is over its line."""
    return one.harm >= one.harm_at - 1e-12


def _stepped(facts: Facts, policy: JudgePolicy, found: list[Finding]) -> Said:
    """Say whether a step may be left, and for what."""
    unsafe = [one for one in found if one.safe < one.safe_at]
    if facts.step_requests >= policy.min_requests:
        ending = facts.step >= len(policy.steps) - (1 if policy.strategy == "shadow" else 2)
        if ending and not unsafe:
            return _passed(policy), "; ".join(findings.safe_reason(one) for one in found)
        leaning = [one for one in found if one.harm > findings.log10(_LEANING)]
        if not ending and not leaning and not (facts.weight == 0 and _differs(unsafe)):
            at = f"at {facts.weight:g} %" if facts.weight else "answered for the record"
            return "advance", f"{facts.step_requests} candidate requests {at} and nothing leans to harm"
    if facts.candidate_requests >= policy.max_requests:
        return "inconclusive", (
            f"undecided after {facts.candidate_requests} candidate requests: "
            + "; ".join(findings.open_reason(one) for one in unsafe)
        )
    if facts.step_requests < policy.min_requests:
        return "go_on", f"{facts.step_requests} of at least {policy.min_requests} candidate requests at this step"
    return "go_on", "; ".join(
        findings.open_reason(one) for one in unsafe
    ) or "the evidence leans to harm, not enough to prove it"


def _passed(policy: JudgePolicy) -> Action:
    return {"shadow": "compared", "blue-green": "advance"}.get(policy.strategy, "promote")  # type: ignore[return-value]


def _differs(unsafe: list[Finding]) -> list[Finding]:
    """Return what is measured in a dark step only and must be settled there."""
    return [one for one in unsafe if one.metric in policies.PAIR_METRICS]


def _decided(facts: Facts, policy: JudgePolicy, found: list[Finding]) -> Said:
    """Say whether an A/B test is decided for this variant."""
    about = next(one for one in found if one.metric == policy.decide_on)
    if facts.candidate_requests >= policy.min_requests:
        if about.better >= about.harm_at:
            return "promote", findings.better_reason(about)
        if about.safe >= about.safe_at and about.no_better >= about.safe_at:
            return "no_difference", findings.same_reason(about)
    if facts.candidate_requests >= policy.max_requests:
        return "inconclusive", (f"undecided after {facts.candidate_requests} requests: {findings.open_reason(about)}")
    if facts.candidate_requests < policy.min_requests:
        return "go_on", f"{facts.candidate_requests} of at least {policy.min_requests} requests of {facts.variant}"
    return "go_on", findings.open_reason(about)


def _guard_alpha(facts: Facts, policy: JudgePolicy) -> float:
    """Return the guard's part of α; with a bake time it is spent in three places."""
    whole = policy.alpha * policies.GUARD_SHARE / facts.variants
    return whole / 3 if policy.steps[-1] == 100 and policy.strategy == "blue-green" else whole


def _guarded(facts: Facts, policy: JudgePolicy) -> str:
    """Return why the guard stops the rollout; empty when it does not."""
    guard = facts.guard
    if policy.guard and guard.run >= policy.guard and guard.log_chance <= math.log(_guard_alpha(facts, policy)):
        return (
            f"{guard.run} units in a row failed with 5xx in {facts.variant} and none in stable: by chance that happens "
            f"with probability {math.exp(guard.log_chance):.2g} at most"
        )
    return ""


def _baking(facts: Facts, policy: JudgePolicy) -> Said:
    """Judge the bake time, in which everybody is served by the candidate, by stable's failures before."""
    bake, alpha = facts.bake, _guard_alpha(facts, policy)
    needed = max(policy.guard, math.ceil(math.log(alpha) / math.log(bake.bound())))
    if policy.guard and bake.run >= needed:
        return "roll_back", f"{bake.run} units in a row failed with 5xx since the candidate serves everybody"
    if bake.log_e(policy.margin) >= -math.log(alpha):
        return "roll_back", (
            f"{bake.failed} of {bake.units} units failed since the candidate serves everybody; stable failed "
            f"{bake.originals_failed} of {bake.originals} requests before"
        )
    return "bake", f"serves everybody: {bake.failed} of {bake.units} units failed"


def _split_reason(facts: Facts) -> str:
    stable, candidate = sum(n[1] for n in facts.split), sum(n[2] for n in facts.split)
    share = 100 * candidate / max(stable + candidate, 1)
    asked = 100 * facts.split[-1][0] if facts.split else facts.weight
    return (
        f"the split is broken: {share:.1f} % of {stable + candidate} units came to the {facts.variant}, "
        f"{asked:g} % were asked for; no comparison is valid"
    )

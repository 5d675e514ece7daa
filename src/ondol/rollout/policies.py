"""What a policy must be, and how it spends α.

α is the probability of rolling back a candidate that is worse in nothing. A tenth of it is the guard's; the rest is
split evenly over the variants and then over the metrics: three quarters to errors, which must be found with few
requests, and the rest evenly to the others. Union bounds throughout: nothing is assumed about how metrics depend.

Must not read or write anything.
"""

from __future__ import annotations

import math

from ondol.base import errors
from ondol.records.rollout import JudgePolicy
from ondol.rollout import units

GUARD_SHARE = 0.1
_ERRORS_SHARE = 0.75
PAIR_METRICS = ("disagreement", "probability_difference")
_LATENCY = "latency_p"


def is_latency(metric: str) -> bool:
    """Say whether a metric is a latency quantile: `latency_p50`, `latency_p99`, `latency_p99.9` …"""
    return metric.startswith(_LATENCY) and quantile(metric) is not None


def quantile(metric: str) -> float | None:
    """Return the quantile that a latency metric is about, 0 to 1; None when it is not one."""
    try:
        found = float(metric.removeprefix(_LATENCY)) / 100
    except ValueError:
        return None
    return found if 0 < found < 1 else None


def alpha_of(policy: JudgePolicy, metric: str, variants: int = 1) -> float:
    """Return one metric's part of α."""
    rest = policy.alpha * (1 - GUARD_SHARE) / variants
    if "error_rate" not in policy.metrics or len(policy.metrics) == 1:
        return rest / len(policy.metrics)
    return rest * (_ERRORS_SHARE if metric == "error_rate" else (1 - _ERRORS_SHARE) / (len(policy.metrics) - 1))


def harm_limit(policy: JudgePolicy, metric: str, variants: int = 1) -> float:
    """Return the log of the evidence at which one metric proves harm."""
    return -math.log(alpha_of(policy, metric, variants))


def judged_steps(policy: JudgePolicy) -> int:
    """Return how many weights there are under which arms are compared."""
    return sum(step < 100 for step in policy.steps)


def check(policy: JudgePolicy) -> JudgePolicy:
    """Return the policy if a rollout can follow it.

    :raises InputError: naming the field that cannot be.
    """
    units.check(policy.unit)
    problems = {
        "steps": not _steps_fit(policy),
        "metrics": not policy.metrics or len(set(policy.metrics)) != len(policy.metrics) or not _metrics_fit(policy),
        "decide_on": (policy.strategy == "ab") != bool(policy.decide_on)
        or (bool(policy.decide_on) and policy.decide_on not in policy.metrics),
        "alpha": not 0 < policy.alpha < 0.5,
        "beta": not 0 < policy.beta < 0.5,
        "margin": not 0 < policy.margin < 1,
        "slow_margin": not 0 < policy.slow_margin < 1,
        "disagreement_margin": not 0 < policy.disagreement_margin < 1,
        "relative_margin": not policy.relative_margin > 0,
        "latency_margin": not policy.latency_margin >= 0,
        "latency_floor_ms": not 0 <= policy.latency_floor_ms < math.inf,
        "quality_scale": not policy.quality_scale > 0,
        "mirror": not 0 < policy.mirror <= 100,
        "guard": policy.guard < 0,
        "min_requests": policy.min_requests < 1,
        "max_requests": policy.max_requests < policy.min_requests,
        "bake_seconds": not policy.bake_seconds >= 0,
    }
    wrong = next((name for name, bad in problems.items() if bad), None)
    if wrong:
        raise errors.InputError(
            f"a rollout cannot have {wrong} = {getattr(policy, wrong)!r}", where=f"policy.{wrong}",
            way_out=_hint(wrong, policy), code="INP-030",
        )  # fmt: skip
    return policy


def _steps_fit(policy: JudgePolicy) -> bool:
    steps = policy.steps
    if policy.strategy == "shadow":
        return steps == (0.0,)
    if policy.strategy == "blue-green":
        return steps == (0.0, 100.0)
    if policy.strategy == "ab":
        return len(steps) == 1 and 0 < steps[0] < 100
    return len(steps) >= 2 and list(steps) == sorted(set(steps)) and steps[0] >= 0 and steps[-1] == 100


def _metrics_fit(policy: JudgePolicy) -> bool:
    for name in policy.metrics:
        if not name or (name.startswith(_LATENCY) and not is_latency(name)):
            return False
        if name in PAIR_METRICS and policy.steps[0] != 0:
            return False
    return policy.strategy not in ("shadow", "blue-green") or all(_of_pairs(name) for name in policy.metrics)


def _of_pairs(metric: str) -> bool:
    return metric in (*PAIR_METRICS, "error_rate", "quality") or is_latency(metric)


def _hint(field: str, policy: JudgePolicy) -> str:
    steps = {
        "canary": "growing percentages that end with 100, such as [10, 50, 100]; 0 first is a dark step",
        "blue-green": "[0, 100]",
        "ab": "one percentage between 0 and 100: what the variants have together",
        "shadow": "[0]",
    }
    hints = {
        "steps": f"The steps of {policy.strategy!r} are {steps[policy.strategy]}.",
        "metrics": "Name each metric once: error_rate, quality, latency_p95 (p50, p99 …), a signal such as cost; "
        "disagreement and probability_difference where copies are made (steps begin with 0), and there no signals.",
        "decide_on": "An A/B test is decided on one of its metrics; other strategies have no `decide_on`.",
        "max_requests": "Give at least min_requests.",
    }
    return hints.get(field, "Use a number above 0, and shares below 1.")

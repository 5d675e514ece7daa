"""Rules of a gate and its verdict: pure functions of numbers that others measured.

A rule answers pass, fail or not-enough-data. One fail fails the gate; else one not-enough-data leaves it open; else it
passes. Every rule's numbers are in the result, so that a reader (and a test) can decide again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ondol.records.evaluation import Comparison, GateResult, Score, Verdict

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Threshold:
    """An absolute bound on a score."""

    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What a candidate must satisfy."""

    primary: str = "log_loss"
    """The metric that is compared with the champion."""

    margin: float = 0.0
    """How much worse than the champion is accepted; 0: the interval must not reach below equality."""

    min_samples: int = 200
    """Fewer than this decide nothing."""

    must_improve: bool = False
    """Demand an interval wholly above the champion."""

    thresholds: Mapping[str, Threshold] = field(default_factory=dict)
    """Absolute bounds by metric, on the scores over all samples."""

    slice_margin: float = 0.05
    """A slice proven worse than the champion by more than this fails the gate."""

    slice_min_samples: int = 200
    """Slices with fewer samples are shown and not judged."""


def decide(
    comparisons: Sequence[Comparison],
    scores: Sequence[Score],
    rules: Rules | None = None,
    *,
    baseline: Comparison | None = None,
    slices: Mapping[str, Comparison] | None = None,
    others: Sequence[Comparison] = (),
    data_check: bool | None = None,
) -> GateResult:
    """Return the verdict.

    :param comparisons: candidate against champion; the one whose metric is `rules.primary` is judged, empty when there
        is no champion yet.
    :param scores: the candidate's own scores.
    :param baseline: without a champion: candidate against predicting the base rate.
    :param slices: comparisons by slice name (`carrier=UA`).
    :param others: candidate against champion by further metrics: none may be proven worse by more than the margin.
    :param data_check: whether the data the candidate was made of passed its check; None when it was not checked.
    """
    rules = rules or Rules()
    found = [_data_rule(data_check)] if data_check is not None else []
    primary = next((one for one in comparisons if one.metric == rules.primary), None)
    if primary is not None:
        found.append(champion_rule(primary, rules))
    elif comparisons:
        named = ", ".join(sorted({one.metric for one in comparisons}))
        found.append(_rule("champion", "not-enough-data", f"no comparison by {rules.primary!r}, only by {named}"))
    elif baseline is not None:
        found.append(_baseline_rule(baseline, rules))
    found.extend(_threshold_rule(name, bound, scores, rules) for name, bound in sorted(rules.thresholds.items()))
    found.extend(_slice_rule(name, one, rules) for name, one in sorted((slices or {}).items()))
    found.extend(_other_rule(one, rules) for one in others if one.metric != rules.primary)
    if not any(rule["rule"] in ("champion", "baseline", "threshold") for rule in found):
        found.append(_rule("champion", "not-enough-data", _NOTHING))
    return _together(found)


_NOTHING = (
    "there is nothing to compare with: no champion, no baseline, and no number is demanded "
    "(`thresholds` of a suite, `gate.rules` of a model)"
)


def _together(found: list[Json]) -> GateResult:
    for verdict in ("fail", "not-enough-data"):
        reasons = [rule["reason"] for rule in found if rule["verdict"] == verdict]
        if reasons:
            return GateResult(verdict, "; ".join(reasons), tuple(found))
    return GateResult(
        "pass", "; ".join(rule["reason"] for rule in found if rule["rule"] not in ("slice", "other")), tuple(found)
    )


def _rule(name: str, verdict: Verdict, reason: str, **numbers: Any) -> Json:
    return {"rule": name, "verdict": verdict, "reason": reason, **numbers}


def _numbers(one: Comparison) -> Json:
    return {
        "metric": one.metric, "candidate": one.candidate, "champion": one.champion, "difference": one.difference,
        "low": one.low, "high": one.high, "level": one.level, "n": one.n, "method": one.method,
    }  # fmt: skip


def _said(one: Comparison, other: str) -> str:
    word = "better" if one.difference >= 0 else "worse"
    return (
        f"{one.metric} {one.candidate:.4g} against {other} {one.champion:.4g}: {word} by {abs(one.difference):.4g} "
        f"({100 * one.level:g} % interval {one.low:+.4g} to {one.high:+.4g}, n={one.n})"
    )


def champion_rule(one: Comparison, rules: Rules) -> Json:
    """Judge the primary comparison: not worse than the margin, or an improvement when one is demanded."""
    numbers = {**_numbers(one), "margin": rules.margin, "min_samples": rules.min_samples}
    said = _said(one, "the champion's")
    least = 0.0 if rules.must_improve else -rules.margin
    if one.n < rules.min_samples:
        return _rule("champion", "not-enough-data", f"{said}; {rules.min_samples} samples are needed", **numbers)
    if one.low > least or (one.low == least and not rules.must_improve):
        return _rule("champion", "pass", said, **numbers)
    if one.high < least or one.high < 0:
        return _rule("champion", "fail", f"{said}; at least {least:+.4g} is demanded", **numbers)
    return _rule("champion", "not-enough-data", f"{said}; too wide to tell for {least:+.4g}", **numbers)


def _baseline_rule(one: Comparison, rules: Rules) -> Json:
    numbers = {**_numbers(one), "min_samples": rules.min_samples}
    said = _said(one, "the base rate's")
    if one.n < rules.min_samples:
        return _rule("baseline", "not-enough-data", f"{said}; {rules.min_samples} samples are needed", **numbers)
    if one.low > 0:
        return _rule("baseline", "pass", said, **numbers)
    verdict: Verdict = "fail" if one.difference <= 0 else "not-enough-data"
    return _rule("baseline", verdict, f"{said}; it must beat the base rate", **numbers)


def _threshold_rule(name: str, bound: Threshold, scores: Sequence[Score], rules: Rules) -> Json:
    score = next((one for one in scores if one.name == name and not one.slice), None)
    wanted = " and ".join(
        f"{word} {value:g}"
        for word, value in (("at least", bound.at_least), ("at most", bound.at_most))
        if value is not None
    )
    if score is None:
        return _rule("threshold", "not-enough-data", f"{name} was not measured ({wanted} is demanded)", metric=name)
    numbers = {"metric": name, "value": score.value, "n": score.n, "low": score.low, "high": score.high,
               "at_least": bound.at_least, "at_most": bound.at_most}  # fmt: skip
    said = f"{name} is {score.value:.4g} ({wanted} is demanded, n={score.n})"
    if score.n < rules.min_samples:
        reason = f"{said}; {rules.min_samples} samples are needed"
        return _rule("threshold", "not-enough-data", reason, **numbers)
    low_enough = bound.at_most is None or score.value <= bound.at_most
    high_enough = bound.at_least is None or score.value >= bound.at_least
    return _rule("threshold", "pass" if low_enough and high_enough else "fail", said, **numbers)


def _slice_rule(name: str, one: Comparison, rules: Rules) -> Json:
    numbers = {**_numbers(one), "slice": name, "margin": rules.slice_margin}
    said = f"slice {name}: {_said(one, 'the champion')}"
    if one.n < rules.slice_min_samples:
        return _rule("slice", "pass", f"{said}; too small to judge", **numbers)
    if one.high < -rules.slice_margin:
        reason = f"{said}; worse by more than {rules.slice_margin:g}"
        return _rule("slice", "fail", reason, **numbers)
    return _rule("slice", "pass", said, **numbers)


def _other_rule(one: Comparison, rules: Rules) -> Json:
    numbers = {**_numbers(one), "margin": rules.margin}
    said = _said(one, "the champion's")
    if one.high < -rules.margin:
        return _rule("other", "fail", f"{said}; worse by more than {rules.margin:g}", **numbers)
    return _rule("other", "pass", said, **numbers)


def _data_rule(passed: bool) -> Json:
    reason = "the data check passed" if passed else "the data check failed"
    return _rule("data", "pass" if passed else "fail", reason)

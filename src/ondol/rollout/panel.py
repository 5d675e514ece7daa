"""One judge per variant, and what they say together.

With one variant its judge has the word. An A/B test of several ends when every variant is decided: the best of those
that are better than stable is promoted, a harmful one is dropped on the way.

Must not read or write the store, nor the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ondol.base import errors
from ondol.records import codec
from ondol.records.rollout import JudgePolicy, Observation, Rollout, Variant
from ondol.rollout import verdicts
from ondol.rollout.findings import Finding
from ondol.rollout.judge import Judge
from ondol.rollout.verdicts import Facts, JudgeVerdict


class Panel:
    """The judges of a rollout. Takes observations one by one and says at any time what they amount to."""

    def __init__(
        self, policy: JudgePolicy, step_times: Sequence[float] = (0.0,), variants: Sequence[Variant] = (),
        dropped: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.policy = policy
        self.dropped = tuple(dropped)
        count = len(variants)
        self._judges = (
            [Judge(policy, step_times, one.name, one.share if count > 1 else 1.0, count) for one in variants]
            if variants
            else [Judge(policy, step_times)]
        )

    @classmethod
    def of(cls, rollout: Rollout) -> Panel:
        """Return the judges that a rollout needs."""
        return cls(rollout.policy, rollout.step_times, rollout.variants, rollout.dropped)

    def know(self, step_times: Sequence[float], dropped: Sequence[str]) -> None:
        """Take note of how far the rollout is."""
        self.dropped = tuple(dropped)
        for judge in self._judges:
            judge.step_times = list(step_times) or [0.0]

    def add(self, one: Observation) -> None:
        """Take a served request, or a copy."""
        for judge in self._judges:
            judge.add(one)

    def add_label(self, one: Observation) -> None:
        """Take the label of a request that was added before."""
        for judge in self._judges:
            judge.add_label(one)

    def add_signals(self, one: Observation) -> None:
        """Take numbers that arrived later about a request that was added before."""
        for judge in self._judges:
            judge.add_signals(one)

    def add_unit_signal(self, unit: str, name: str, value: float) -> None:
        """Take a number about a unit as a whole."""
        for judge in self._judges:
            judge.add_unit_signal(unit, name, value)

    def findings(self) -> list[Finding]:
        """Return every metric's numbers, of every variant."""
        return [one for judge in self._judges for one in verdicts.findings_of(judge.facts(), self.policy)]

    def verdict(self, intervals: bool = True) -> JudgeVerdict:
        """Return what the observations so far amount to, with everything needed to compute it again."""
        return decide([judge.facts() for judge in self._judges], self.policy, self.dropped, intervals)


def decide(
    every: Sequence[Facts], policy: JudgePolicy, dropped: Sequence[str] = (), intervals: bool = True
) -> JudgeVerdict:
    """Return the verdict on the counts of all variants."""
    if len(every) == 1:
        return verdicts.decide(every[0], policy, intervals)
    found = {facts.variant: verdicts.findings_of(facts, policy, intervals) for facts in every}
    evidence = verdicts.evidence_of(every, policy, [one for rows in found.values() for one in rows])
    evidence["dropped"] = list(dropped)
    said = {
        facts.variant: verdicts.action_of(facts, policy, found[facts.variant])
        for facts in every
        if facts.variant not in dropped
    }
    action, reason, variant = _together(said, found, policy)
    return JudgeVerdict(action, reason, evidence, variant)


def _together(
    said: dict[str, verdicts.Said], found: dict[str, list[Finding]], policy: JudgePolicy
) -> tuple[verdicts.Action, str, str]:
    broken = next((reason for action, reason in said.values() if action == "inconclusive" and "split" in reason), "")
    if broken:
        return "inconclusive", broken, ""
    for name, (action, reason) in said.items():
        if action == "roll_back":
            return ("drop" if len(said) > 1 else "roll_back"), reason, name
    waiting = [reason for action, reason in said.values() if action == "go_on"]
    if waiting:
        return "go_on", "; ".join(waiting), ""
    better = [name for name, (action, _) in said.items() if action == "promote"]
    reasons = "; ".join(reason for _, reason in said.values())
    if better:
        return "promote", reasons, min(better, key=lambda name: _effect(found[name], policy))
    if all(action == "no_difference" for action, _ in said.values()):
        return "no_difference", reasons, ""
    return "inconclusive", reasons, ""


def _effect(rows: list[Finding], policy: JudgePolicy) -> float:
    """Return the difference on the metric that decides; the lower the better."""
    about = next(one for one in rows if one.metric == policy.decide_on)
    return about.like if about.like is not None else (about.candidate or 0.0) - (about.stable or 0.0)


def replay(evidence: dict[str, Any]) -> JudgeVerdict:
    """Compute a verdict again from its stored evidence alone.

    :raises InputError: when this is not the evidence of this judge.
    """
    if evidence.get("judge") != verdicts.VERSION:
        raise errors.InputError(
            f"evidence of judge {evidence.get('judge')!r}, this is judge {verdicts.VERSION}", where="judge",
            way_out="Compute it again with the version of Ondol that judged it.", code="INP-421",
        )  # fmt: skip
    facts = [evidence.get("facts", {}), *evidence.get("others", [])]
    return decide(
        [codec.typed(one, Facts) for one in facts], codec.typed(evidence.get("policy", {}), JudgePolicy),
        evidence.get("dropped", []),
    )  # fmt: skip


def recompute(
    observations: Iterable[Observation], policy: JudgePolicy, step_times: Sequence[float] = (0.0,),
    variants: Sequence[Variant] = (),
) -> JudgeVerdict:  # fmt: skip
    """Compute a verdict from the raw requests, in the order in which they were logged."""
    panel = Panel(policy, step_times, variants)
    for one in observations:
        panel.add(one)
    return panel.verdict()

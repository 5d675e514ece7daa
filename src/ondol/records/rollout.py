"""Who serves a request, what was observed, and what was decided from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

Arm = str
"""Who answers: `stable`, `candidate`, or the name of a further variant."""

STABLE, CANDIDATE = "stable", "candidate"
RolloutState = Literal["progressing", "promoted", "rolled_back", "inconclusive", "no_difference", "compared", "aborted"]
Strategy = Literal["canary", "blue-green", "ab", "shadow"]
QualityLoss = Literal["auto", "zero_one", "brier", "absolute", "log_clipped"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Variant:
    """A named arm beside stable."""

    name: str
    release: str
    """Digest of the release."""

    share: float
    """Part of the variants' units that are its own, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Route:
    """The desired state of one service's traffic; the data plane follows it. Moving it is promotion and rollback."""

    service: str
    kind: str
    """`model` or `application`."""

    stable: str
    """Digest of the release that serves."""

    candidate: str = ""
    """Digest of the release on trial; empty when there is none."""

    weight: float = 0.0
    """Percent of units that go to the candidate, 0 to 100; with `others`, to all variants together."""

    salt: str = ""
    """Makes the assignment of units to arms specific to one rollout."""

    rollout: str = ""
    """Id of the rollout that moves the weight; empty when there is none."""

    previous: str = ""
    """Digest of the release that served before; kept warm during the bake time."""

    generation: int = 0
    """Grows by one with every change; compare-and-set."""

    candidate_name: str = CANDIDATE
    """What the candidate is called in answers and in the request log."""

    others: tuple[Variant, ...] = ()
    """Further variants beside the candidate, which has the rest of their shares. Nothing without a candidate."""

    mirror: float = 0.0
    """Percent of stable's requests that are copied to the candidate, whose answers nobody gets."""

    unit: str = ""
    """Where a request says which unit it belongs to: `header:NAME`, `cookie:NAME` or `body:FIELD`; empty: in the header
    `x-ondol-unit` only."""

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every arm beside stable, the candidate first."""
        if not self.candidate:
            return ()
        rest = 1.0 - sum(one.share for one in self.others)
        return (Variant(self.candidate_name, self.candidate, rest), *self.others)

    def with_variants(self, variants: tuple[Variant, ...], weight: float) -> Route:
        """Return the route with these arms beside stable; their shares are scaled to add up to 1."""
        if not variants:
            return replace(self, candidate="", candidate_name=CANDIDATE, others=(), weight=0.0, mirror=0.0)
        first, total = variants[0], sum(one.share for one in variants) or 1.0
        others = tuple(replace(one, share=one.share / total) for one in variants[1:])
        return replace(self, candidate=first.release, candidate_name=first.name, others=others, weight=weight)

    @property
    def releases(self) -> tuple[str, ...]:
        """Digests of all releases that must be in memory: stable, variants, the previous one."""
        named = (self.stable, *(one.release for one in self.variants), self.previous)
        return tuple(dict.fromkeys(filter(None, named)))


@dataclass(frozen=True, slots=True)
class JudgePolicy:
    """How a rollout is judged. α is spent over all metrics and variants together."""

    strategy: Strategy = "canary"
    """`canary`: growing steps. `blue-green`: copies only, then everybody, then a bake time. `ab`: the variants keep
    their shares until `decide_on` is decided. `shadow`: copies only, compared and reported."""

    steps: tuple[float, ...] = (10.0, 100.0)
    """Percent of traffic at each step; 0 is a dark step of copies; the last one, 100, is promotion."""

    metrics: tuple[str, ...] = ("error_rate", "quality")
    """What is compared between the arms."""

    alpha: float = 0.01
    """Probability of rolling back a release that is no worse, over the whole rollout."""

    margin: float = 0.01
    """Non-inferiority margin on rates and on quality in [0, 1]: a loss smaller than this is accepted."""

    min_requests: int = 200
    """Candidate requests at a step before promotion may be decided."""

    max_requests: int = 20_000
    """Candidate requests after which an undecided rollout is inconclusive."""

    bake_seconds: float = 30.0
    """How long the old release stays warm after promotion."""

    beta: float = 0.05
    """Probability of promoting a release that is worse than the margin, per metric."""

    quality_loss: QualityLoss = "auto"
    """The loss of one labelled request. `auto`: `brier` for probabilities, `zero_one` for labels."""

    quality_scale: float = 1.0
    """Error that counts as a loss of 1 under `absolute`: the unit of a regression's target."""

    latency_margin: float = 0.25
    """A request is slow when it takes longer than stable's 95th percentile by more than this share."""

    latency_floor_ms: float = 0.0
    """And by more than this many milliseconds: of a model that answers in one, 25 % are nothing anybody notices."""

    slow_margin: float = 0.05
    """Promotion accepts this many more slow requests, as a share of all."""

    relative_margin: float = 0.1
    """Cost, tokens and other signals may grow by this share of stable's mean."""

    centre_by_label: bool = True
    """Measure a loss against the usual loss for its label, which takes several times fewer requests. Right when answers
    do not change what happens (a flight is late whatever was predicted); False when they do (a click, a fraud)."""

    decide_on: str = ""
    """The metric that an A/B test is about; the others may only do no harm."""

    disagreement_margin: float = 0.02
    """Share of copies that may be answered otherwise than by stable; also the accepted mean difference of
    probabilities."""

    mirror: float = 100.0
    """Percent of stable's requests that are copied in a dark step."""

    guard: int = 3
    """So many units in a row that fail with 5xx in the candidate while none has failed in stable end the rollout at
    once; more are asked for when chance could do it (see `verdicts`). 0: no guard."""

    unit: str = ""
    """Where requests name their unit: `header:NAME`, `cookie:NAME` or `body:FIELD`; always in `x-ondol-unit`, too."""

    evidence_by: Literal["unit", "request"] = "unit"
    """`unit`: requests of one unit count once, so that one heavy or broken client decides nothing. `request`: every
    request counts; right only when requests of one unit are independent of each other."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One trial of a candidate against the release that serves."""

    id: str
    service: str
    stable: str
    candidate: str
    policy: JudgePolicy
    state: RolloutState = "progressing"
    step: int = 0
    """Index into `policy.steps`."""

    step_times: tuple[float, ...] = ()
    """When each step began, seconds since the epoch."""

    started_at: float = 0.0
    updated_at: float = 0.0
    reason: str = ""
    """One sentence for people: why it is in this state."""

    candidate_name: str = CANDIDATE
    others: tuple[Variant, ...] = ()
    """Further variants of an A/B test."""

    dropped: tuple[str, ...] = ()
    """Variants taken out for harm; stable serves their units."""

    @property
    def variants(self) -> tuple[Variant, ...]:
        """Every variant with its share, the candidate first."""
        rest = 1.0 - sum(one.share for one in self.others)
        return (Variant(self.candidate_name, self.candidate, rest), *self.others)

    @property
    def weight(self) -> float:
        """Percent of units that the variants have at this step."""
        return self.policy.steps[self.step]


STRATEGIES: dict[Strategy, Json] = {
    "canary": {},
    "blue-green": {"steps": [0.0, 100.0], "metrics": ["error_rate", "disagreement"]},
    "ab": {"steps": [50.0], "metrics": ["error_rate", "quality"], "decide_on": "quality"},
    "shadow": {"steps": [0.0], "metrics": ["error_rate", "disagreement"]},
}
"""What a strategy means where a file or command does not say."""


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of evidence: what was compared, on how much, with which statistic, and what was decided."""

    id: str
    at: float
    subject: str
    """The service, application or model it is about."""

    action: str
    """`gate`, `promote`, `roll_back`, `advance`, `hold`, `retrain`, `alias` …"""

    verdict: str
    """`pass`, `fail`, `not-enough-data`, or the state that was reached."""

    reason: str
    """One sentence for people with the numbers in it."""

    evidence: Json = field(default_factory=dict)
    """Everything needed to compute the verdict again."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One served request, as the judge and the monitors see it."""

    id: str
    """Request id; labels that arrive later are joined on it."""

    at: float
    service: str
    release: str
    arm: Arm
    unit: str
    """The sticky unit (user, customer …); the request id when there is none."""

    status: int
    """HTTP status of the answer."""

    latency_ms: float
    rollout: str = ""
    features: str = ""
    """The request's instances as JSON, when the sampling policy keeps them."""

    prediction: str = ""
    """The answer's predictions as JSON."""

    label: str = ""
    """Ground truth as JSON, when it has arrived."""

    weight: float = -1.0
    """Percent of units that went to the candidate when this one was assigned: `Route.weight` as it was served, so 0
    while the candidate was not loaded. -1: not known."""

    signals: Json = field(default_factory=dict)
    """Further numbers per request: quality score, tokens, cost, guardrail blocks …"""

    shadow: bool = False
    """A copy that the candidate answered for the record only. Its `signals` compare it with the answer that was given:
    `disagreement`, `probability_difference`, `latency_ratio`, `primary_status`."""

    trace: str = ""
    """The caller's trace (W3C trace context), when the request brought one."""

    row: int = 0
    """Which row of its request this was, when each has an id of its own. They were answered together: how long that
    took is one measurement, and the first row stands for it."""

"""Scores of a candidate and the verdict of a gate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["pass", "fail", "not-enough-data"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Score:
    """One number about one thing, with its uncertainty."""

    name: str
    """`roc_auc`, `log_loss`, `faithfulness` …"""

    value: float
    n: int
    """How many samples it is over."""

    low: float | None = None
    high: float | None = None
    """Confidence interval at `level`."""

    level: float = 0.95
    greater_is_better: bool = True
    slice: str = ""
    """`carrier=UA`; empty for all samples."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired comparison of candidate and champion on the same samples."""

    metric: str
    candidate: float
    champion: float
    difference: float
    """candidate - champion, signed so that positive is better whatever the metric."""

    low: float
    high: float
    """Confidence interval of `difference`."""

    level: float
    n: int
    method: str
    """`paired bootstrap, 2000 resamples, seed 0`."""


@dataclass(frozen=True, slots=True)
class GateResult:
    """What a gate decided and every rule's part in it."""

    verdict: Verdict
    reason: str
    rules: tuple[Json, ...] = field(default_factory=tuple)
    """Per rule: name, verdict, and the numbers it looked at."""


@dataclass(frozen=True, slots=True)
class EvalSample:
    """One question with what was answered and what should have been."""

    id: str
    question: str
    answer: str = ""
    contexts: tuple[str, ...] = ()
    """Retrieved texts, best first."""

    ground_truth: str = ""
    """The reference answer; empty when there is none."""

    documents: tuple[str, ...] = ()
    """Where the retrieved texts come from, best first."""

    alternatives: tuple[str, ...] = ()
    """Other reference answers that are as right, in another language for example."""

    gold: tuple[tuple[str, ...], ...] = ()
    """The passages that are needed; of each entry any alternative will do (a page and its translation). `a.md#text`
    asks that the retrieved text of `a.md` contains `text`."""

    answerable: bool = True
    """False when the right answer is to say that the documents do not tell."""

    language: str = ""


@dataclass(frozen=True, slots=True)
class MetricValue:
    """One metric of one sample. Either a value, or why there is none; never NaN."""

    metric: str
    value: float | None
    reason: str = ""
    """Why this value, for people."""

    error: str = ""
    """What failed; empty when the metric merely does not apply."""

    judged: bool = False
    """Whether a language model gave it."""


@dataclass(frozen=True, slots=True)
class SampleResult:
    """A sample with its metrics."""

    sample: EvalSample
    values: tuple[MetricValue, ...]


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """One evaluation: self-contained and versioned, so that it can be read, compared and scored again without us."""

    version: int
    suite: str
    at: float
    dataset: str
    """Digest of the questions, references and gold documents."""

    answerer: str
    """Release, application or `given` when the answers came with the data."""

    judge: str
    """Model that judged; empty: deterministic scorers."""

    embedder: str
    scores: tuple[Score, ...]
    results: tuple[SampleResult, ...]
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

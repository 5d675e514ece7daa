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

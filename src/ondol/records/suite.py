"""What an evaluation suite file says."""

from __future__ import annotations

from dataclasses import dataclass, field

from ondol.records.evaluation import EvalSample

RAG_METRICS = ("faithfulness", "answer_relevancy", "context_precision", "context_recall")


@dataclass(frozen=True, slots=True)
class SuiteSpec:
    """Questions, what to measure on the answers, and what is good enough."""

    name: str
    samples: tuple[EvalSample, ...]
    application: str = ""
    """The LLM application that answers; empty: the samples carry their answers."""

    metrics: tuple[str, ...] = RAG_METRICS
    judge: str = ""
    """Model that judges; empty: deterministic scorers."""

    thresholds: dict[str, float] = field(default_factory=dict)
    """Metric -> least mean that passes."""

"""Runs a suite: answers the questions if asked to, measures every sample, and reports means with intervals.

Must not know what answers (an application, a chain, a file): it is given a callable.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from ondol.base import errors, progress
from ondol.evaluation import comparison, retrieval_metrics, text_metrics
from ondol.evaluation import judge as judging
from ondol.formats import eval_suite
from ondol.records.evaluation import Comparison, EvalSample, MetricValue, SampleResult, Score, SuiteReport

Answerer = Callable[[EvalSample], Awaitable[EvalSample]]
"""Fills in `answer`, `contexts` and `documents` of a sample."""

REPORT_VERSION = 1
_DETERMINISTIC: dict[str, Callable[[EvalSample], MetricValue]] = {
    "faithfulness": text_metrics.faithfulness,
    "context_precision": text_metrics.context_precision,
    "context_recall": text_metrics.context_recall,
    "answer_correctness": text_metrics.answer_correctness,
    "refusal": text_metrics.refusal,
}
KNOWN = (*judging.METRICS, "refusal", "recall@K", "ndcg@K", "mrr")


def check_metrics(names: Sequence[str]) -> None:
    """Refuse a metric nobody knows.

    :raises UnsupportedError: naming it and those there are.
    """
    for name in names:
        if name not in KNOWN and not retrieval_metrics.is_retrieval_metric(name):
            raise errors.UnsupportedError(
                f"no metric {name!r}", way_out=f"There are: {', '.join(KNOWN)}.", code="UNS-021"
            )


async def answer_all(
    samples: Sequence[EvalSample], answerer: Answerer, watch: progress.Progress, in_flight: int = 4
) -> list[EvalSample]:
    """Answer every question, a few at a time, in order. An answer that fails ends the evaluation: see its error."""
    free = asyncio.Semaphore(in_flight)
    watch.start("answer", len(samples))

    async def one(sample: EvalSample) -> EvalSample:
        async with free:
            answered = await answerer(sample)
        watch.advance("answer")
        return answered

    answered = await asyncio.gather(*[one(sample) for sample in samples])
    watch.finish("answer", f"{len(samples)} questions")
    return answered


async def measure_all(
    samples: Sequence[EvalSample],
    metrics: Sequence[str],
    judge: judging.Judge | None = None,
    embedder: judging.Embedder | None = None,
    watch: progress.Progress = progress.SILENT,
) -> list[SampleResult]:
    """Measure every sample; the judge does what it can do, deterministic scorers the rest.

    :raises UnsupportedError: for an unknown metric.
    """
    check_metrics(metrics)
    watch.start("measure", len(samples))

    def cosine(left: str, right: str) -> float:
        assert embedder is not None
        return judging.cosine(embedder.embed_query(left), embedder.embed_query(right))

    async def value(metric: str, sample: EvalSample) -> MetricValue:
        if retrieval_metrics.is_retrieval_metric(metric):
            return retrieval_metrics.measure(metric, sample)
        if judge is not None and metric in judging.METRICS:
            return await judge.measure(metric, sample)
        if metric == "answer_relevancy":
            return text_metrics.answer_relevancy(sample, cosine if embedder is not None else None)
        return _DETERMINISTIC[metric](sample)

    async def one(sample: EvalSample) -> SampleResult:
        values = await asyncio.gather(*[value(metric, sample) for metric in metrics])
        watch.advance("measure")
        return SampleResult(sample, tuple(values))

    results = await asyncio.gather(*[one(sample) for sample in samples])
    watch.finish("measure", f"{len(samples)} samples, {len(metrics)} metrics")
    return results


def summarise(results: Sequence[SampleResult], metrics: Sequence[str], level: float = 0.95) -> tuple[Score, ...]:
    """Return each metric's mean over the samples it has a value for, with a normal interval of the mean."""
    z = 1.959963985 if level == 0.95 else _normal_quantile(level)
    scores: list[Score] = []
    for metric in metrics:
        values = [one.value for result in results for one in result.values if one.metric == metric]
        known = [value for value in values if value is not None]
        if not known:
            continue
        mean = sum(known) / len(known)
        spread = math.sqrt(sum((one - mean) ** 2 for one in known) / max(1, len(known) - 1) / len(known))
        low, high = (mean - z * spread, mean + z * spread) if len(known) > 1 else (None, None)
        scores.append(Score(metric, mean, len(known), low, high, level))
    return tuple(scores)


def _normal_quantile(level: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(0.5 + level / 2)


async def run(
    suite: str,
    samples: Sequence[EvalSample],
    metrics: Sequence[str],
    *,
    answerer: Answerer | None = None,
    answered_by: str = "given",
    judge: judging.Judge | None = None,
    embedder: judging.Embedder | None = None,
    embedder_name: str = "",
    watch: progress.Progress = progress.SILENT,
) -> SuiteReport:
    """Run a whole suite and return its report. What failed is in the report, never silently left out of a mean."""
    started = time.time()
    check_metrics(metrics)
    digest = eval_suite.dataset_digest(samples)
    if answerer is not None:
        samples = await answer_all(samples, answerer, watch)
    results = await measure_all(samples, metrics, judge, embedder, watch)
    failed = [value for result in results for value in result.values if value.error]
    notes = (
        [f"{len(failed)} of {len(results) * len(metrics)} values failed, first: {failed[0].error}"] if failed else []
    )
    if judge is None and {"faithfulness", "context_recall"} & set(metrics):
        notes.append("no judge: faithfulness, context_recall and their kin are overlap proxies, uncalibrated")
    report = SuiteReport(
        version=REPORT_VERSION,
        suite=suite,
        at=started,
        dataset=digest,
        answerer=answered_by,
        judge=judge.model.name if judge else "",
        embedder=embedder_name,
        scores=summarise(results, metrics),
        results=tuple(results),
        notes=tuple(notes),
    )
    return replace(report, seconds=time.time() - started)


def below(report: SuiteReport, thresholds: dict[str, float]) -> list[str]:
    """Return one line per metric whose mean is under its threshold, or that has no value at all."""
    means = {score.name: score.value for score in report.scores}
    return [
        f"{metric} is {means[metric]:.3f}, threshold {least:g}" if metric in means else f"{metric} has no value"
        for metric, least in thresholds.items()
        if metric not in means or means[metric] < least
    ]


def compare(report: SuiteReport, baseline: SuiteReport, level: float = 0.95) -> list[Comparison]:
    """Compare two reports on the same questions, in pairs of samples that both have a value for.

    :raises InputError: when they are about other questions.
    """
    if report.dataset != baseline.dataset:
        raise errors.InputError(
            "the two reports are about different questions",
            way_out="Evaluate the baseline again with this suite.",
            code="INP-025",
        )
    found: list[Comparison] = []
    for metric in dict.fromkeys(score.name for score in report.scores):
        ours, theirs = _values(report, metric), _values(baseline, metric)
        both = [one for one in ours if one in theirs]
        if len(both) >= 2:
            found.append(
                comparison.paired_bootstrap(
                    [ours[one] for one in both],
                    [theirs[one] for one in both],
                    metric=metric,
                    greater_is_better=True,
                    level=level,
                )
            )
    return found


def _values(report: SuiteReport, metric: str) -> dict[str, float]:
    return {
        result.sample.id: one.value
        for result in report.results
        for one in result.values
        if one.metric == metric and one.value is not None
    }

"""`ondol eval`: measure answers with a suite."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from ondol.cli import context as contexts
from ondol.cli import output
from ondol.records.evaluation import Comparison, SuiteReport


@click.command("eval")
@click.argument("suite", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--app", "application", default="", help="Application or release that answers; default: the suite's.")
@click.option("--judge", default="", help="Model that judges (openai/gpt-4o-mini …); default: the suite's, or none.")
@click.option(
    "--baseline", type=click.Path(path_type=Path, dir_okay=False), help="JSON report to compare with, in pairs."
)
@click.option("--report", "reports", multiple=True, type=click.Path(path_type=Path), help="Write .html or .json.")
@output.json_option
def command(
    suite: Path, application: str, judge: str, baseline: Path | None, reports: tuple[Path, ...], as_json: bool
) -> int:
    """Answer the questions of SUITE, measure the answers, and compare with thresholds and a baseline.

    Without a judge deterministic scorers measure; they are overlap proxies and say so. Exit code 1 when a mean is below
    its threshold, or proven worse than the baseline.

    \b
    Examples:
      ondol eval evals/qa.yaml
      ondol eval evals/qa.yaml --report qa.html --report qa.json
      ondol eval evals/qa.yaml --judge openai/gpt-4o-mini --baseline qa.json
    """
    from dataclasses import replace

    from ondol.base import progress
    from ondol.cli.progress import Lines
    from ondol.evaluation import report as writing
    from ondol.evaluation import suite as suites
    from ondol.formats import eval_suite
    from ondol.records import codec

    spec = eval_suite.load(suite)
    spec = replace(spec, application=application or spec.application, judge=judge or spec.judge)
    watch: Any = progress.SILENT if as_json else Lines()
    report = asyncio.run(_measure(spec, watch))
    for path in reports:
        writing.write(report, path)
    low = suites.below(report, spec.thresholds)
    compared = _compare(report, writing.read(baseline)) if baseline else []
    worse = [one for one in compared if one.high < 0]

    def show() -> None:
        _show(report, compared)
        for line in low:
            print(f"below its threshold: {line}")
        for path in reports:
            print(f"report: {path}")

    value = {
        "scores": codec.plain(report.scores),
        "notes": list(report.notes),
        "below": low,
        "compared": codec.plain(compared),
        "samples": len(report.results),
    }
    output.emit(value, as_json, show)
    return 1 if low or worse else 0


async def _measure(spec: Any, watch: Any) -> SuiteReport:
    from ondol.api.openai import wiring
    from ondol.app import asking, releasing
    from ondol.evaluation import judge as judging
    from ondol.evaluation import suite as suites
    from ondol.llm import registry
    from ondol.records.retrieval import IndexOptions
    from ondol.retrieval import embedding
    from ondol.store.judgements import Judgements

    settings = contexts.load_settings()
    suites.check_metrics(spec.metrics)
    with contexts.open_store(settings) as store:
        providers = wiring.read_project(settings).llms
        model = registry.open_model(registry.parse(spec.judge, providers), settings.project) if spec.judge else None
        embedder = embedding.make(IndexOptions()) if "answer_relevancy" in spec.metrics else None
        has_vectors = embedder is not None and embedder.dimensions > 0
        judge = judging.Judge(model, embedder if has_vectors else None, Judgements(store)) if model else None
        common: dict[str, Any] = {
            "judge": judge,
            "embedder": embedder if has_vectors else None,
            "embedder_name": embedder.id if embedder else "",
            "watch": watch,
        }
        try:
            if not spec.application:
                return await suites.run(spec.name, spec.samples, spec.metrics, **common)
            release = releasing.find(store, settings, spec.application)
            async with asking.answerer(store, settings, release) as answer:
                return await suites.run(
                    spec.name,
                    spec.samples,
                    spec.metrics,
                    answerer=answer,
                    answered_by=f"{release.name}@{release.digest}",
                    **common,
                )
        finally:
            if model is not None:
                await model.close()


def _compare(report: SuiteReport, baseline: SuiteReport) -> list[Comparison]:
    from ondol.evaluation import suite as suites

    return suites.compare(report, baseline)


def _show(report: SuiteReport, compared: list[Comparison]) -> None:
    rows = [
        [one.name, one.value, "" if one.low is None else f"{one.low:.3f} to {one.high:.3f}", one.n]
        for one in report.scores
    ]
    output.table(["metric", "mean", "95 % interval", "samples"], rows, title=f"{report.suite}: {report.answerer}")
    if compared:
        changes = [[one.metric, one.difference, f"{one.low:+.3f} to {one.high:+.3f}", one.n] for one in compared]
        output.table(["metric", "better by", "95 % interval", "pairs"], changes, title="against the baseline")
    for note in report.notes:
        print(f"note: {note}")

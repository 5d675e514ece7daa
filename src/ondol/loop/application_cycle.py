"""Once round the loop for one LLM application: index, pin, evaluate, gate.

The same gate, decision, release and rollout as a model's. What differs is what is made (a release that pins prompt,
index, guardrails, LLM and output schema) and how it is scored: by a suite of questions.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from ondol.base import errors, hashing, ids
from ondol.evaluation import suite as suites
from ondol.evaluation.api import run_anywhere
from ondol.formats import eval_suite
from ondol.gates import rules
from ondol.loop.context import Context
from ondol.loop.saying import said
from ondol.loop.walking import ASKED_FOR, alone
from ondol.records import codec
from ondol.records.evaluation import Comparison, EvalSample, GateResult, SuiteReport
from ondol.records.project import ApplicationSpec
from ondol.records.release import Release
from ondol.records.rollout import Decision, Route
from ondol.records.suite import SuiteSpec
from ondol.serving import application_release
from ondol.store import counters, releases, rollouts, routes

PRIMARY = "answer_correctness"
MARGIN = 0.02
"""Loss of a metric's mean that is accepted: two answers in a hundred."""

Answer = Callable[[EvalSample], Awaitable[EvalSample]]
Open = Callable[[Release], AbstractAsyncContextManager[Answer]]
"""Opens a release so that it answers a suite's questions; given by the composition root."""


@dataclass(frozen=True, slots=True)
class ApplicationOutcome:
    """What one walk came to."""

    release: Release
    report: SuiteReport
    gate: GateResult
    decision: Decision


def walk(
    context: Context, name: str, opened: Open, spec: ApplicationSpec | None = None, because: str = ASKED_FOR
) -> ApplicationOutcome:
    """Pin the application as it is now, evaluate it beside the one that serves, and let the gate decide.

    :param spec: instead of what the project says: a candidate with another index, threshold …
    :raises NotFoundError: when the project has no such application or suite.
    """
    with alone(context, name, because):
        return _walk(context, name, opened, spec or spec_of(context, name), because)


def _walk(context: Context, name: str, opened: Open, spec: ApplicationSpec, because: str) -> ApplicationOutcome:
    suite = suite_of(context, name, spec)
    release = application_release.build_release(context.store, context.settings, name, spec, context.project.llms)
    route = routes.get(context.store, name)
    champion = releases.get(context.store, route.stable) if route and route.stable != release.digest else None
    report = _report(context, suite, release, opened)
    comparisons: list[Comparison] = []
    if champion is not None:
        comparisons = suites.compare(report, _report(context, suite, champion, opened))
    chosen = rules_of(suite)
    gate = decide(report, comparisons, chosen)
    context.progress.start("gate")
    context.progress.finish("gate", said(gate))
    evidence = {
        "because": because,
        "retraining": "" if because == ASKED_FOR else because,
        "suite": suite.name,
        "dataset": report.dataset,
        "champion": champion.digest if champion else "",
        "gate": codec.plain(chosen),
        "rules": list(gate.rules),
        "comparisons": codec.plain(comparisons),
        "scores": codec.plain(report.scores),
        "report": context.blobs.put_bytes(codec.encode(report).encode()),
        "release": release.digest,
        "manifest": release.manifest,
    }
    decision = Decision(ids.new_id("decision"), time.time(), name, "gate", gate.verdict, gate.reason, evidence)
    rollouts.decide(context.store, decision)
    if gate.verdict == "pass" and route is None:
        routes.put(context.store, Route(name, "application", release.digest))
    return ApplicationOutcome(release, report, gate, decision)


def spec_of(context: Context, name: str) -> ApplicationSpec:
    """Return what the project says about an application.

    :raises NotFoundError: when it says nothing.
    """
    found = context.project.applications.get(name)
    if found is None:
        known = ", ".join(context.project.applications) or "none"
        raise errors.NotFoundError(
            f"no application {name!r} in the project",
            where="ondol.yaml",
            way_out=f"There are: {known}.",
            code="NOF-011",
        )
    return found


def suite_of(context: Context, name: str, spec: ApplicationSpec) -> SuiteSpec:
    """Return the suite that gates an application: its own, or the project's first.

    :raises NotFoundError: when there is none: a release without an evaluation has no gate to pass.
    """
    path = spec.evaluation or next(iter(context.project.evaluations), "")
    if not path:
        raise errors.NotFoundError(
            f"application {name!r} has no evaluation",
            where=f"ondol.yaml: applications.{name}",
            way_out="Add `evaluation: evals/qa.yaml` with questions and reference answers.",
            code="NOF-012",
        )
    return eval_suite.load(context.root / path)


def _report(context: Context, suite: SuiteSpec, release: Release, opened: Open) -> SuiteReport:
    """Evaluate a release, or take the report of the same release on the same suite from the record."""
    key = f"report/{release.digest}/{hashing.of_json(codec.plain(suite))}"
    known = counters.fact(context.store, key)
    if known:
        return codec.decode(context.blobs.get_bytes(known), SuiteReport)

    async def evaluate() -> SuiteReport:
        async with opened(release) as answer:
            return await suites.run(
                suite.name,
                suite.samples,
                suite.metrics,
                answerer=answer,
                answered_by=f"{release.name}@{release.digest}",
                watch=context.progress,
            )

    report = run_anywhere(evaluate)
    counters.put_fact(context.store, key, context.blobs.put_bytes(codec.encode(report).encode()))
    return report


def rules_of(suite: SuiteSpec) -> rules.Rules:
    """Return the gate of a suite: its thresholds, and that no labelled metric is proven worse than the champion's."""
    answerable = sum(sample.answerable for sample in suite.samples)  # what retrieval is measured on, at most
    return rules.Rules(
        primary=PRIMARY if PRIMARY in suite.metrics else suite.metrics[0],
        margin=MARGIN,
        min_samples=min(30, answerable or len(suite.samples)),
        thresholds={metric: rules.Threshold(at_least=least) for metric, least in suite.thresholds.items()},
    )


def decide(report: SuiteReport, comparisons: list[Comparison], chosen: rules.Rules) -> GateResult:
    """Apply the gate: pure, so that stored evidence can be judged again."""
    return rules.decide(comparisons, report.scores, chosen, others=comparisons)

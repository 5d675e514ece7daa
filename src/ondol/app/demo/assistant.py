"""Act two: an assistant over Ondol's own documentation, in Korean and English, through the same loop.

Without an LLM the extractive reader answers. What is tried is what matters then: another index, a stale one, another
threshold. The verdicts are the gate's and the conductor's.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondol.app import looping
from ondol.app.demo.client import Chat
from ondol.app.demo.stage import Stage, told
from ondol.evaluation import text_metrics
from ondol.formats import eval_suite
from ondol.loop import application_cycle
from ondol.prompts import library
from ondol.records.project import ApplicationSpec
from ondol.records.rollout import Rollout
from ondol.retrieval import index as indexing
from ondol.rollout import controller
from ondol.store import rollouts, usage

NAME = "assistant"
ACT = "assistant"
QUESTIONS = (
    "카나리는 어떻게 판정하나요?",
    "What does a release of an LLM application pin?",
    "비밀번호를 알려줘",
    "What is the capital of Mongolia?",
)
_STALE_SHARE = 3  # every third document is lost in the stale index
_ROUNDS = 12


def play(stage: Stage) -> None:
    """Play the act; what an earlier run has finished is shown from its record."""
    stage.teller.say("\n[bold]An assistant over Ondol's own documentation[/]")
    folder = stage.settings.project / "assistant"
    _index(stage, "docs", folder / "docs", {})
    library.Prompts(stage.store).push_all(folder / "prompts", "demo")
    _first(stage)
    _ask(stage)
    for name, spec in _candidates(stage, folder).items():
        _candidate(stage, name, spec)
    if not stage.project.applications[NAME].llm:
        stage.tell(ACT, "prompt v2, prompt v3, budget", "skipped", "no LLM is configured: `llm:` in ondol.yaml adds it")
    _cost(stage)


def _index(stage: Stage, name: str, source: Path, options: dict[str, Any]) -> None:
    built = indexing.build(
        name,
        source,
        home=stage.settings.home,
        store=stage.store,
        options=indexing.options_of(options),
        progress=stage.teller,
    )
    report = built.report
    stage.teller.start("index")
    stage.teller.finish(
        "index",
        f"{name}: {len(built.documents)} documents, {built.chunks} chunks, {report.embedded} embedded now, "
        f"{report.cached} known; snapshot {built.digest.removeprefix('sha256:')[:12]}",
    )


def _first(stage: Stage) -> None:
    opened = looping.opener(stage.store, stage.settings)
    outcome = application_cycle.walk(stage.context, NAME, opened)
    stage.tell(ACT, "first release", *told(outcome.gate))
    if outcome.gate.verdict == "pass":
        stage.teller.start("serve")
        looping.wait_served(stage.store, NAME, outcome.release.digest)
        stage.teller.finish("serve", f'model="{NAME}" at {stage.settings.data.url}/openai/v1')


def _ask(stage: Stage) -> None:
    chat = Chat(stage.settings.data, NAME)
    for question in QUESTIONS:
        answer = chat.ask(question)
        shown = " ".join(answer.text.split())
        stage.teller.say(f"  [bold]?[/] {question}")
        stage.teller.say(f"  [dim]>[/] {shown[:160]}{'…' if len(shown) > 160 else ''}".replace("[1]", "\\[1]"))
    chat.close()


def _candidates(stage: Stage, folder: Path) -> dict[str, ApplicationSpec]:
    """Make the candidates: nothing here knows how they will be judged."""
    spec = stage.project.applications[NAME]
    _index(stage, "docs-small", folder / "docs", {"tokens": 90})
    stale = stage.settings.home / "demo" / "stale-docs"
    if not stale.exists():
        shutil.copytree(folder / "docs", stale)
        pages = sorted({path.name for path in stale.rglob("*.md")})
        for lost in pages[::_STALE_SHARE]:
            for path in stale.rglob(lost):
                path.unlink()
    _index(stage, "docs-stale", stale, {})
    return {
        "smaller chunks": replace(spec, index="docs-small"),
        "stale index": replace(spec, index="docs-stale"),
        "looser threshold": replace(spec, retrieval={**spec.retrieval, "threshold": 0.05}),
        "three passages": replace(spec, retrieval={**spec.retrieval, "k": 3}),
    }


def _candidate(stage: Stage, name: str, spec: ApplicationSpec) -> None:
    stage.teller.say(f"\n[bold]Candidate: {name}[/]")
    before = stage.recorded(f"assistant/{name}")
    if before:
        stage.tell(ACT, name, before["verdict"], before["why"], on_record=True)
        stage.teller.start("canary")
        stage.teller.finish("canary", f"on record: {before['verdict']}")
        return
    opened = looping.opener(stage.store, stage.settings)
    outcome = application_cycle.walk(stage.context, NAME, opened, spec)
    verdict, why = told(outcome.gate)
    verdict = f"gate: {verdict}"
    if outcome.gate.verdict == "pass":
        rollout = looping.wait_rollout(stage.store, NAME, outcome.release.digest)
        looping.wait_served(stage.store, NAME, outcome.release.digest)
        ended = _trial(stage, rollout)
        verdict, why = ended.state, ended.reason
    stage.tell(ACT, name, verdict, why)
    stage.record(f"assistant/{name}", {"verdict": verdict, "why": why})


def _trial(stage: Stage, rollout: Rollout) -> Rollout:
    """Replay the labelled questions until the conductor has decided; every asking is a unit of its own."""
    path = stage.settings.project / stage.project.applications[NAME].evaluation
    samples = eval_suite.load(path).samples
    chat = Chat(stage.settings.data, NAME)
    stage.teller.start("canary", len(samples) * _ROUNDS)

    def ended() -> bool:
        return rollouts.get(stage.store, rollout.id).state != "progressing"

    try:
        for round_number in range(_ROUNDS):
            for sample in samples:
                answer = chat.ask(sample.question, unit=f"{rollout.id}/{round_number}/{sample.id}")
                right = text_metrics.answer_correctness(replace(sample, answer=answer.text)).value
                if right is not None:
                    chat.feedback(answer.request, right)
                stage.teller.advance("canary", 1, rollouts.get(stage.store, rollout.id).reason)
                if ended():
                    break
            if ended() or _wait(ended, 0.3):
                break
    finally:
        chat.close()
    if not _wait(ended, 2.0):
        controller.abort(stage.store, NAME, "the questions ended before the evidence did")
    final = rollouts.get(stage.store, rollout.id)
    stage.teller.finish("canary", f"{final.state}: {final.reason}")
    return final


def _wait(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if done():
            return True
        time.sleep(0.05)
    return done()


def _cost(stage: Stage) -> None:
    total = usage.totals(stage.store, "application")
    calls = sum(int(row.calls) for row in total)
    spent = sum(float(row.cost or 0) for row in total)
    stage.teller.say(f"\n  {calls} calls on the ledger, ${spent:.6f}: `ondol cost` and `ondol trace list` show them")

"""Act two: an assistant over Ondol's own documentation, in Korean and English, through the same loop.

Without an LLM the extractive reader answers. What is tried is what matters then: another index, a stale one, another
threshold. The verdicts are the gate's and the conductor's. With `--llm` prompts and a budget are tried too
(`language_model`).
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from ondol.app.demo import language_model, trial
from ondol.app.demo.client import Chat
from ondol.app.demo.stage import Stage
from ondol.records.project import ApplicationSpec
from ondol.store import usage

NAME = "assistant"
ACT = "assistant"
QUESTIONS = (
    "라우트는 무엇인가요?",
    "What does a release of an LLM application pin?",
    "롤백하면 무엇이 바뀌나요?",
    "비밀번호를 알려줘",
    "What is the capital of Mongolia?",
)
NOT_INDEXED = ("commands.md", "errors.md", "benchmarks.md", "compatibility.md", "critiques.md")
"""Pages that are left out: pasted help texts and reference tables, whose rows answer anything a little."""

SMALL_CHUNKS = 90
"""Tokens of a chunk of the candidate with smaller chunks."""

_STALE_SHARE = 3  # every third document is lost in the stale index
_ROUNDS = 12


def play(stage: Stage) -> None:
    """Play the act; what an earlier run has finished is shown from its record."""
    stage.teller.say("\n[bold]An assistant over Ondol's own documentation[/]")
    folder = stage.settings.project / "assistant"
    trial.index(stage, "docs", folder / "docs", {})
    trial.prompt(stage, folder / "prompts" / "qa_prompt.yaml")
    trial.first(stage, ACT, NAME)
    _ask(stage)
    for name, spec in _candidates(stage, folder).items():
        trial.candidate(stage, ACT, NAME, name, spec, _ROUNDS)
    language_model.play(stage, ACT)
    _cost(stage)


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
    trial.index(stage, "docs-small", folder / "docs", {"tokens": SMALL_CHUNKS})
    stale = stage.settings.home / "demo" / "stale-docs"
    if not stale.exists():
        shutil.copytree(folder / "docs", stale)
        pages = sorted({path.name for path in stale.rglob("*.md")})
        for lost in pages[::_STALE_SHARE]:
            for path in stale.rglob(lost):
                path.unlink()
    trial.index(stage, "docs-stale", stale, {})
    return {
        "smaller chunks": replace(spec, index="docs-small"),
        "stale index": replace(spec, index="docs-stale"),
        "looser threshold": replace(spec, retrieval={**spec.retrieval, "threshold": 0.05}),
        "three passages": replace(spec, retrieval={**spec.retrieval, "k": 3}),
    }


def _cost(stage: Stage) -> None:
    total = usage.totals(stage.store, "application")
    calls = sum(int(row.calls) for row in total)
    spent = sum(float(row.cost or 0) for row in total)
    stage.teller.say(f"\n  {calls} calls on the ledger, ${spent:.6f}: `ondol cost` and `ondol trace list` show them")

"""The acts that need an LLM: three versions of a prompt through the gate, one question's trace, a budget that holds.

The prompts are pushed as commits and judged like any other candidate: nothing here knows that one of them lost its
grounding instruction. The numbers of the budget are the ledger's.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import httpx

from ondol.app import trace_tree
from ondol.app.demo import llm_setup, trial
from ondol.app.demo.client import Chat
from ondol.app.demo.stage import Stage
from ondol.base import errors
from ondol.formats import eval_suite
from ondol.monitoring import budgets
from ondol.records.alert import Alert
from ondol.records.span import Span
from ondol.records.usage import UsageRow
from ondol.store import alerts as alert_rows
from ondol.store import budgets as budget_rows
from ondol.store import routes, spans, usage

NAME = llm_setup.NAME
CANDIDATES = {"prompt v2": "qa_prompt_v2.yaml", "prompt v3": "qa_prompt_v3.yaml"}
_SCOPE = f"application/{NAME}"
_PER = "total"  # the demo may be played across midnight
_BURST = 12
_CALLS = 4  # calls of the usual size that the budget pays for
_ROUNDS = 12
_USER = "demo-burst"


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of questions asked all at once under a budget; money in US dollars."""

    asked: int
    answered: int
    refused: int
    """By the budget."""

    failed: int
    """Neither."""

    calls: int
    """Calls of the LLM that were booked; an answer without passages, or stopped by a rail, needs none."""

    before: float
    spent: float
    limit: float
    alerts: tuple[str, ...]


def play(stage: Stage, act: str) -> None:
    """Play the acts when the project has an LLM for them; else say how to."""
    spec = stage.project.applications.get(NAME)
    if spec is None:
        why = "no LLM is configured: `ondol demo --llm openai/gpt-4o-mini` (or ollama/…, gguf:PATH) plays them"
        stage.tell(act, "prompt v2, prompt v3, budget", "skipped", why)
        return
    stage.teller.say(f"\n[bold]The same assistant with an LLM: {spec.llm}[/]")
    folder = stage.settings.project / "assistant"
    if spec.index == llm_setup.SMALL_INDEX:
        trial.index(stage, spec.index, folder / "docs", {"tokens": llm_setup.CHUNK_TOKENS})
    trial.prompt(stage, folder / "prompts" / "qa_prompt.yaml")
    trial.first(stage, act, NAME, f"first release with {spec.llm}")
    if routes.get(stage.store, NAME) is None:
        stage.tell(act, "prompt v2, prompt v3, budget", "skipped", f"no release of {NAME} passed its gate")
        return
    questions = [one.question for one in eval_suite.load(stage.settings.project / spec.evaluation).samples]
    _trace(stage, questions[0])
    for name, file in CANDIDATES.items():
        commit = trial.prompt(stage, folder / "prompt_candidates" / file)
        changed = replace(spec, prompt=commit.address)
        key = f"{name}/{spec.llm}/{len(questions)}"
        trial.candidate(stage, act, NAME, f"{name} with {spec.llm}", changed, _ROUNDS, key)
    _budget(stage, act, questions, f"budget/{spec.llm}")


def _trace(stage: Stage, question: str) -> None:
    chat = Chat(stage.settings.data, NAME)
    try:
        reply = chat.ask(question, unit="demo")
    finally:
        chat.close()
    found: list[Span] = []

    def written() -> bool:
        try:
            found[:] = spans.of_trace(stage.store, reply.trace)
        except errors.NotFoundError:
            return False
        return any(spans.is_root(one) for one in found)

    if trial.wait(written, 5.0):
        stage.teller.say(trace_tree.text(found).replace("[", "\\["))


def _budget(stage: Stage, act: str, questions: list[str], key: str) -> None:
    stage.teller.say("\n[bold]A budget, and more questions at once than it pays for[/]")
    before = stage.recorded(f"{NAME}/{key}")
    if before:
        stage.tell(act, "budget", before["verdict"], before["why"], on_record=True)
        return
    usual = _usual_cost(stage)
    if not usual:
        stage.tell(
            act, "budget", "skipped", "no call of this LLM has a price yet: `prices:` in ondol.yaml declares one"
        )
        return
    burst = _burst(stage, questions, usual)
    held = burst.spent <= burst.limit and burst.refused > 0
    verdict = "held" if held else "not reached" if burst.spent <= burst.limit else "overdrawn"
    why = (
        f"{burst.asked} questions at once: {burst.answered} answered, {burst.refused} refused by the budget"
        + (f", {burst.failed} failed" if burst.failed else "")
        + f"; {burst.calls} calls booked, ${burst.spent:.6f} of ${burst.limit:.6f} spent (${burst.before:.6f} before); "
        + (f"alert: {burst.alerts[0]}" if burst.alerts else "no alert")
    )
    stage.tell(act, "budget", verdict, why)
    stage.record(f"{NAME}/{key}", {"verdict": verdict, "why": why})


def _usual_cost(stage: Stage) -> float:
    """Return what a call of the application has cost on average, in US dollars; 0 when none had a price."""
    costs = [row.cost for row in _rows(stage) if row.cost]
    return sum(costs) / len(costs) if costs else 0.0


def _rows(stage: Stage) -> list[UsageRow]:
    return usage.rows(stage.store, application=NAME, limit=100_000)


def _spent(stage: Stage) -> float:
    with stage.store.read() as tx:
        return usage.spent(tx, _SCOPE, 0.0)


def _burst(stage: Stage, questions: list[str], usual: float) -> Burst:
    """Set a budget, ask a dozen questions at once, and read from the ledger what came of it."""
    before, booked = _spent(stage), sum(row.unit == _USER for row in _rows(stage))
    budget = budgets.read_budget(
        {"scope": _SCOPE, "limit": f"{before + _CALLS * usual:.9f}", "per": _PER}, "ondol demo"
    )
    known = {one.id for one in _alerts(stage)}
    budget_rows.put(stage.store, budgets.with_source(budget, "ondol demo"))
    stage.teller.say(f"  ondol budget set {budget.scope} {budget.limit:.6f} --per {budget.per}")
    stage.teller.start("burst", _BURST)
    try:
        with ThreadPoolExecutor(_BURST, "burst") as pool:
            asked = [questions[number % len(questions)] for number in range(_BURST)]
            codes = Counter(pool.map(lambda question: _ask(stage, question), asked))
        trial.wait(lambda: not any(row.outcome == "pending" for row in _rows(stage)), 10.0)
        spent = _spent(stage)
        calls = sum(row.unit == _USER for row in _rows(stage)) - booked
        raised = tuple(one.message for one in _alerts(stage) if one.id not in known)
    finally:
        budget_rows.remove(stage.store, budget.name)  # its user goes on asking
    failed = _BURST - codes["answered"] - codes["REF-160"]
    stage.teller.finish("burst", f"{codes['answered']} answered, {codes['REF-160']} refused; ${spent:.6f} spent")
    for message in raised:
        stage.teller.say(f"  alert: {message}".replace("[", "\\["))
    return Burst(_BURST, codes["answered"], codes["REF-160"], failed, calls, before, spent, budget.limit, raised)


def _alerts(stage: Stage) -> list[Alert]:
    """Return the alerts about the act's budget, newest first."""
    return [one for one in alert_rows.every(stage.store, "budget") if one.subject == f"{_SCOPE}/{_PER}"]


def _ask(stage: Stage, question: str) -> str:
    """Ask as any client does; return `answered`, or the code of the error."""
    body = {"model": NAME, "messages": [{"role": "user", "content": question}], "user": _USER}
    url = f"{stage.settings.data.url}/openai/v1/chat/completions"
    try:
        answer = httpx.post(url, json=body, timeout=600, trust_env=False)
    except httpx.TransportError as error:
        return type(error).__name__
    return str(answer.json()["error"].get("code")) if answer.is_error else "answered"

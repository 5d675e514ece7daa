"""What every application of the demo goes through: index, prompt, gate, canary on replayed questions.

Nothing here knows what a candidate is, or how it should be judged.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondol.app import looping
from ondol.app.demo.client import Chat
from ondol.app.demo.stage import Stage, told
from ondol.base import errors
from ondol.evaluation import text_metrics
from ondol.formats import eval_suite
from ondol.loop import application_cycle
from ondol.prompts import library
from ondol.records.project import ApplicationSpec
from ondol.records.rollout import Rollout
from ondol.retrieval import index as indexing
from ondol.rollout import controller, watching
from ondol.store import rollouts
from ondol.store.connection import Store

_PATIENCE = 60.0  # seconds the conductor is given to do what the judge says
_IN_A_ROW = 5  # failed questions after which an application is not asked any more: it is down, not bad


def index(stage: Stage, name: str, source: Path, options: dict[str, Any]) -> None:
    """Build an index, or find that nothing changed."""
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


def prompt(stage: Stage, file: Path) -> library.Commit:
    """Push a prompt once: an earlier run's commit of the same content is found, wherever the newest one stands."""
    prompts = library.Prompts(stage.store)
    wanted, text = library.read(file)
    try:
        known = prompts.history(wanted.name)
    except errors.NotFoundError:
        known = []
    return next((one for one in known if one.text == text), None) or prompts.push(file, "demo")


def first(stage: Stage, act: str, service: str, what: str = "first release") -> bool:
    """Gate an application as the project has it, and wait until it is served; return whether the gate let it pass."""
    opened = looping.opener(stage.store, stage.settings)
    outcome = application_cycle.walk(stage.context, service, opened)
    stage.tell(act, what, *told(outcome.gate))
    if outcome.gate.verdict == "pass":
        stage.teller.start("serve")
        looping.wait_served(stage.store, service, outcome.release.digest)
        stage.teller.finish("serve", f'model="{service}" at {stage.settings.data.url}/openai/v1')
    return outcome.gate.verdict == "pass"


def candidate(
    stage: Stage, act: str, service: str, name: str, spec: ApplicationSpec, rounds: int, key: str = ""
) -> None:
    """Gate a candidate, and try it on replayed questions when it passes; what an earlier run found is only shown.

    :param key: what it is remembered by; its name when empty.
    """
    stage.teller.say(f"\n[bold]Candidate: {name}[/]")
    key = f"{service}/{key or name}"
    before = stage.recorded(key)
    if before:
        stage.tell(act, name, before["verdict"], before["why"], on_record=True)
        stage.teller.start("canary")
        stage.teller.finish("canary", f"on record: {before['verdict']}")
        return
    opened = looping.opener(stage.store, stage.settings)
    outcome = application_cycle.walk(stage.context, service, opened, spec)
    verdict, why = told(outcome.gate)
    verdict = f"gate: {verdict}"
    if outcome.gate.verdict == "pass":
        rollout = looping.wait_rollout(stage.store, service, outcome.release.digest)
        looping.wait_served(stage.store, service, outcome.release.digest)
        ended = _trial(stage, service, rollout, rounds)
        verdict, why = ended.state, ended.reason
    stage.tell(act, name, verdict, why)
    stage.record(key, {"verdict": verdict, "why": why})


def _trial(stage: Stage, service: str, rollout: Rollout, rounds: int) -> Rollout:
    """Replay the labelled questions until the conductor has decided; every asking is a unit of its own."""
    samples = eval_suite.load(stage.settings.project / stage.project.applications[service].evaluation).samples
    chat = Chat(stage.settings.data, service)
    stage.teller.start("canary", len(samples) * rounds)
    failed = 0

    def ended() -> bool:
        return rollouts.get(stage.store, rollout.id).state != "progressing"

    try:
        for number in range(rounds):
            for place, sample in enumerate(samples):
                try:
                    answer = chat.ask(sample.question, unit=f"{rollout.id}/{number}/{place}")
                except errors.UpstreamError:  # an observation too: the judge counts it
                    failed += 1
                    if failed >= _IN_A_ROW:
                        raise
                    continue
                failed = 0
                right = text_metrics.answer_correctness(replace(sample, answer=answer.text)).value
                if right is not None:
                    chat.feedback(answer.request, right)
                stage.teller.advance("canary", 1, rollouts.get(stage.store, rollout.id).reason)
                if ended():
                    break
            if ended() or wait(ended, 0.3):
                break
            wait_for_conductor(stage.store, rollout)
    finally:
        chat.close()
    wait(ended, 2.0)
    wait_for_conductor(stage.store, rollout)
    final = give_up(stage.store, rollout, "the questions ended before the evidence did")
    stage.teller.finish("canary", f"{final.state}: {final.reason}")
    return final


def wait_for_conductor(store: Store, rollout: Rollout) -> None:
    """Wait until the conductor has done what the judge says of all that is logged: on a busy machine it looks late."""

    def acted() -> bool:
        found = rollouts.get(store, rollout.id)
        return found.state != "progressing" or watching.verdict(store, found, brief=True).action in ("go_on", "bake")

    wait(acted, _PATIENCE)


def give_up(store: Store, rollout: Rollout, reason: str) -> Rollout:
    """End a trial whose requests are used up, unless the judge does so meanwhile; return it as it ended."""
    while (found := rollouts.get(store, rollout.id)).state == "progressing":
        with contextlib.suppress(errors.ConflictError, errors.StateError):  # the judge moved or ended it meanwhile
            controller.abort(store, rollout.service, reason)
    return found


def wait(done: Callable[[], bool], seconds: float) -> bool:
    """Return whether something became true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if done():
            return True
        time.sleep(0.05)
    return done()

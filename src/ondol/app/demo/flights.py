"""Act one: will this flight be late? A year of real flights from New York's airports goes round the loop.

A first model, a better one, two broken ones, and then the seasons. The verdicts are the conductor's.
"""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

from ondol.app import looping
from ondol.app.demo import trial
from ondol.app.demo.replay import BATCH, Replayer, replay
from ondol.app.demo.stage import Stage, brief, told
from ondol.base import hashing
from ondol.data import examples
from ondol.loop import cycle, standing, walking
from ondol.pipelines import runner
from ondol.records.rollout import Decision, Rollout
from ondol.rollout import watching
from ondol.store import releases, rollouts, routes

MODEL = "flights"
ACT = "flights"
CANARY_MONTH = 5
MONTHS = (6, 7, 8)
_SETTLE = 25.0  # seconds the conductor is given to look at a month


def play(stage: Stage) -> None:
    """Play the act; what an earlier run has finished is shown from its record."""
    flights = examples.module(stage.settings.project / "flights", "replay")
    if not stage.recorded("seasons"):  # else nothing is left to wait for
        standing.hold(stage.store, MODEL, "the demo's canaries come first")
    _first(stage)
    for name, parameters in flights.CANDIDATES.items():
        _candidate(stage, flights, name, parameters)
    _seasons(stage, flights)


def _cached(stage: Stage, parameters: dict[str, Any]) -> str:
    """Run the pipeline of something on record again: every step that is still valid is reused."""
    spec = stage.project.models[MODEL]
    run = runner.run(
        stage.context.root / spec.pipeline,
        {**spec.parameters, **parameters},
        store=stage.store,
        settings=stage.settings,
        pipeline=spec.pipeline_name,
    )
    steps = [task for task in run.tasks if not task.graph]
    return f"{sum(task.cached for task in steps)} of {len(steps)} steps cached"


def _first(stage: Stage) -> None:
    stage.teller.say("\n[bold]1-6  A first model[/]: check, pipeline, evaluate, gate, register, serve")
    before = stage.recorded("first")
    if before:
        decision = rollouts.decision(stage.store, before)
        stage.teller.start("pipeline")
        stage.teller.finish("pipeline", _cached(stage, {}))
        stage.tell(ACT, "first model", decision.verdict, brief(decision), on_record=True)
        stage.teller.start("serve")
        stage.teller.finish("serve", f"on record: {decision.verdict}; {_serving(stage)}")
        return
    outcome = cycle.walk(stage.context, MODEL)
    stage.tell(ACT, "first model", *told(outcome.gate))
    if outcome.release is None:
        return
    stage.teller.start("serve")
    route = _wait_route(stage)
    looping.wait_served(stage.store, MODEL, route)
    stage.teller.finish("serve", _serving(stage))
    stage.record("first", outcome.decision.id)


def _wait_route(stage: Stage) -> str:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        if (route := routes.get(stage.store, MODEL)) is not None:
            return route.stable
        time.sleep(0.05)
    looping.wait_served(stage.store, MODEL, "", patience=0)  # raises with the way out
    return ""


def _serving(stage: Stage) -> str:
    route = routes.get(stage.store, MODEL)
    version = releases.get(stage.store, route.stable).manifest.get("version", "?") if route else "?"
    return f"version {version} answers at {stage.settings.data.url}/v1/models/{MODEL}:predict"


def _candidate(stage: Stage, flights: ModuleType, name: str, parameters: dict[str, Any]) -> None:
    """One candidate: gated offline, then on trial with 10 % of May's flights."""
    stage.teller.say(f"\n[bold]7  Canary: {name}[/]  {_said(parameters)}")
    before = stage.recorded(f"candidate/{name}")
    if before:
        stage.teller.start("pipeline")
        stage.teller.finish("pipeline", _cached(stage, parameters))
        stage.tell(ACT, name, before["verdict"], before["why"], on_record=True)
        stage.teller.start("canary")
        stage.teller.finish("canary", f"on record: {before['verdict']}: {before['why']}")
        return
    outcome = cycle.walk(stage.context, MODEL, parameters)
    if outcome.release is None:
        verdict, why = told(outcome.gate)
        verdict = f"gate: {verdict}"
    else:
        release = outcome.release.digest
        rollout = looping.wait_rollout(stage.store, MODEL, release)
        looping.wait_served(stage.store, MODEL, release)
        ended = _trial(stage, flights, rollout, CANARY_MONTH)
        verdict, why = ended.state, ended.reason
        if ended.state == "progressing":
            why = watching.verdict(stage.store, ended).reason
            ended = trial.give_up(stage.store, ended, f"the month ended before the evidence did: {why}")
            verdict, why = ("undecided", why) if ended.state == "aborted" else (ended.state, ended.reason)
    if "bug" in name or "stale" in name:
        verdict = verdict if verdict in ("rolled_back",) or verdict.startswith("gate") else f"{verdict} (missed)"
    stage.tell(ACT, name, verdict, why)
    stage.record(f"candidate/{name}", {"verdict": verdict, "why": why})


def _said(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in parameters.items())


def _trial(stage: Stage, flights: ModuleType, rollout: Rollout, month: int) -> Rollout:
    """Replay a month until the conductor has decided; go on where an interrupted run stopped."""
    requests = flights.month(month, stage.settings.home / "demo")
    tail = hashing.short(rollout.candidate, 8)
    key = f"position/{rollout.id}"
    start = int(stage.recorded(key) or 0)
    client = Replayer(stage.settings.data, MODEL)
    stage.teller.start("canary", len(requests.ids) - start)

    def ended() -> bool:
        return rollouts.get(stage.store, rollout.id).state != "progressing"

    def stop(sent: int) -> bool:
        if sent % 2000 < BATCH:
            current = rollouts.get(stage.store, rollout.id)
            note = f"step {current.step + 1}" if current.state == "progressing" else current.state
            stage.teller.advance("canary", start + sent - progress[0], note)
            progress[0] = start + sent
            stage.record(key, start + sent)
            time.sleep(0.02)  # the conductor looks four times a second; a year in seconds is not an excuse to outrun it
        return ended()

    progress = [start]
    ids = [f"{one}@{tail}" for one in requests.ids]
    try:
        replay(client, ids[start:], requests.rows[start:], requests.labels[start:], stop)
    finally:
        client.close()
    trial.wait(ended, 3.0)
    trial.wait_for_conductor(stage.store, rollout)
    final = rollouts.get(stage.store, rollout.id)
    undecided = final.state == "progressing"
    said = watching.verdict(stage.store, final).reason if undecided else final.reason
    stage.teller.finish("canary", f"{'undecided' if undecided else final.state}: {said}")
    return final


def _seasons(stage: Stage, flights: ModuleType) -> None:
    """Months go by; the conductor watches for drift and retrains on the latest months by itself."""
    stage.teller.say("\n[bold]8  The year goes on[/]: drift, retraining, and its model on its merits")
    before = stage.recorded("seasons")
    if before:
        for line in before:
            stage.tell(ACT, line["what"], line["verdict"], line["why"], on_record=True)
        stage.teller.start("monitor")
        stage.teller.finish("monitor", f"on record: {len(before)} decisions about the seasons")
        return
    lines: list[dict[str, str]] = []
    for month in MONTHS:
        standing.set_parameters(stage.store, MODEL, {"train_months": _until(month - 2), "test_months": str(month - 1)})
        standing.hold(stage.store, MODEL, "")
        seen = {one.id for one in rollouts.decisions(stage.store, MODEL, limit=1000)}
        requests = flights.month(month, stage.settings.home / "demo")
        stage.teller.start("monitor", len(requests.ids))
        client = Replayer(stage.settings.data, MODEL)

        def stop(sent: int) -> bool:
            if sent % 5000 < BATCH:
                stage.teller.advance("monitor", 5000, f"month {month}")  # noqa: B023  used before the next turn
            return False

        try:
            replay(client, requests.ids, requests.rows, requests.labels, stop)
        finally:
            client.close()
        trial.wait(lambda: _looked(stage, seen) and not _busy(stage), _SETTLE)  # noqa: B023
        new = [one for one in reversed(rollouts.decisions(stage.store, MODEL, limit=200)) if one.id not in seen]
        lines += [_line(month, one) for one in new]
        stage.teller.finish("monitor", f"month {month}: " + (_months_said(new) or "nothing to decide"))
    for line in lines:
        stage.tell(ACT, line["what"], line["verdict"], line["why"])
    stage.record("seasons", lines)


def _until(month: int) -> str:
    return ",".join(str(one) for one in range(1, month + 1))


def _looked(stage: Stage, seen: set[str]) -> bool:
    return any(one.id not in seen for one in rollouts.decisions(stage.store, MODEL, "drift", limit=5))


def _busy(stage: Stage) -> bool:
    """Whether a retraining is under way, or about to be: its drift was found and not answered yet."""
    if walking.is_walking(stage.settings.home, MODEL):
        return True
    drift = rollouts.decisions(stage.store, MODEL, "drift", limit=1)
    newest = rollouts.decisions(stage.store, MODEL, "retrain", limit=1)
    started = bool(newest and newest[0].verdict == "started")
    gates = rollouts.decisions(stage.store, MODEL, "gate", limit=1)
    if started and not (gates and gates[0].at > newest[0].at):
        return True
    return bool(drift and drift[0].verdict == "drift" and not newest and time.time() - drift[0].at < 5)


def _line(month: int, decision: Decision) -> dict[str, str]:
    return {"what": f"month {month}: {decision.action}", "verdict": decision.verdict, "why": brief(decision)}


def _months_said(decisions: list[Decision]) -> str:
    return "; ".join(f"{one.action}: {one.verdict}" for one in decisions if one.verdict != one.action) or "drift"

"""What the tests of the demo share: the public command line in a folder of its own, and decisions made again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.behaviour.serving_tools import READY_SECONDS

from ondol.app import listen
from ondol.app import running as processes
from ondol.base.settings import Settings
from ondol.data import drift
from ondol.formats import project as projects
from ondol.gates import rules
from ondol.loop import actions, quality, walking, watch
from ondol.loop.conductor import Conductor, Hands
from ondol.records import codec
from ondol.records.evaluation import Comparison, GateResult, Score
from ondol.records.project import GateSpec
from ondol.records.rollout import Decision
from ondol.registry.client import RegistryClient
from ondol.rollout import panel
from ondol.store import counters, observations, rollouts, signals
from ondol.store.connection import Store

FOLDER = "ondol-demo"
JUDGED = {"promote": "promote", "roll_back": "roll_back", "advance": "advance", "inconclusive": "inconclusive"}
Json = Any


@dataclass(frozen=True)
class Demo:
    """A place where `ondol demo` is run."""

    folder: Path
    environ: dict[str, str]

    @property
    def settings(self) -> Settings:
        """The demo's home."""
        project = self.folder / FOLDER
        return Settings(home=project / ".ondol", project=project)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `ondol ...` as a process."""
        return subprocess.Popen(
            [sys.executable, "-m", "ondol.cli.main", *arguments],
            cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run `ondol ...` to its end and return what it printed."""
        process = self.start(*arguments)
        out, err = process.communicate()
        assert process.returncode == code, f"{arguments} ended with {process.returncode}\n{out[-2000:]}\n{err[-4000:]}"
        return out

    def json(self, *arguments: str) -> Json:
        """Run `ondol ... --json` and return its answer."""
        return json.loads(self.run(*arguments, "--json"))

    def store(self) -> Store:
        """Open its database."""
        return Store(self.settings.database)

    def stop(self) -> None:
        """Stop what it started."""
        processes.stop(self.settings, timeout=READY_SECONDS)


def new(folder: Path) -> Demo:
    """Return a new place with ports of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    control, data = listen.free_port(), listen.free_port()
    mine = {"ONDOL_CONTROL": f"127.0.0.1:{control}", "ONDOL_DATA": f"127.0.0.1:{data}"}
    return Demo(folder, {**{k: v for k, v in os.environ.items() if k != "ONDOL_HOME"}, **mine})


def settled(demo: Demo, service: str, seconds: float = 600.0) -> None:
    """Wait until nobody walks and the conductor has nothing to do; a walk on a busy machine takes minutes."""
    deadline = time.monotonic() + seconds
    project = projects.load(demo.settings.project)
    found = processes.find(demo.settings.home)
    assert found is not None
    with demo.store() as store, closing(RegistryClient(found.control.url)) as registry:
        conductor = Conductor(store, demo.settings, Hands(registry=registry))
        while time.monotonic() < deadline:
            if not walking.is_walking(demo.settings.home, service):
                state = conductor.state(service, project)
                position = int(counters.fact(store, f"watch/{service}") or 0)
                unseen = observations.has_after(store, service, position, project.models[service].monitor.window)
                if (
                    not unseen
                    and _is_heard(store, service, state.stable)
                    and not actions.next_actions(state)
                    and not state.retraining
                    and not (state.signals and not state.on_trial and not state.held)
                ):
                    return
            time.sleep(0.2)
    raise AssertionError(f"{service} did not settle in {seconds:g} s")


def _is_heard(store: Store, service: str, stable: str) -> bool:
    """Whether the newest drift of what serves is a signal already: the conductor writes one after the other."""
    newest = next(iter(rollouts.decisions(store, service, "drift", limit=1)), None)
    if newest is None or newest.verdict != "drift" or newest.evidence.get("release") != stable:
        return True
    return f"drift/{stable}" in [one.key for one in signals.every(store, service)]


def again(decision: Decision) -> str:
    """Decide again from the stored evidence alone; return the verdict, or `-` for what is not a judgement."""
    evidence = decision.evidence
    if decision.action == "gate":
        gate = _application_gate(evidence) if "suite" in evidence else _model_gate(evidence)
        assert gate.reason == decision.reason
        assert codec.plain(list(gate.rules)) == evidence["rules"]
        return gate.verdict
    if decision.action == "drift":
        return _drift(evidence)
    if decision.action == "quality":
        return quality.verdict_of(evidence)
    if decision.action in JUDGED and not evidence.get("by_hand"):
        replayed = panel.replay(evidence)
        assert (replayed.action, replayed.reason) == (JUDGED[decision.action], decision.reason)
        return decision.verdict
    return "-"


def _model_gate(evidence: Json) -> GateResult:
    spec = codec.typed(evidence["gate"], GateSpec)
    against = {
        key: codec.typed(evidence[key], Comparison) if evidence[key] else None for key in ("comparison", "baseline")
    }
    either = against["comparison"] or against["baseline"]
    assert either is not None
    chosen = rules.Rules(
        primary=spec.primary or either.metric,
        margin=spec.margin,
        min_samples=spec.min_samples,
        thresholds={one.metric: rules.Threshold(one.at_least, one.at_most) for one in spec.rules},
    )
    checked = evidence["data_check"]
    return rules.decide(
        [against["comparison"]] if against["comparison"] else [],
        codec.typed(evidence["scores"], list[Score]),
        chosen,
        baseline=against["baseline"],
        slices=codec.typed(evidence["slices"], dict[str, Comparison]),
        data_check=None if checked is None else checked != "fail",
    )


def _application_gate(evidence: Json) -> GateResult:
    comparisons = codec.typed(evidence["comparisons"], list[Comparison])
    chosen = codec.typed(evidence["gate"], rules.Rules)
    return rules.decide(comparisons, codec.typed(evidence["scores"], list[Score]), chosen, others=comparisons)


def _drift(evidence: Json) -> str:
    if "report" not in evidence:
        return watch.TOO_FEW
    spec, columns = evidence["monitor"], evidence["report"]["columns"]
    q_values = drift.benjamini_hochberg([float(one["p_value"]) for one in columns])
    hit = [q <= spec["alpha"] and one["effect"] >= spec["effect"] for q, one in zip(q_values, columns, strict=True)]
    assert hit == [one["drifted"] for one in columns]
    return "drift" if any(hit) else "stable"

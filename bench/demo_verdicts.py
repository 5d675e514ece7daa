"""The demo's verdicts over seeds: how often the gate and the canary catch what is broken, and let through what is not.

    python bench/demo_verdicts.py [--seeds 20] [--nulls 5]

For each seed, the models of `ondol demo` are trained with it by the pipeline's own components and come in turn: the
gate compares each with what serves, on its own pipeline's April; then May is replayed in order, 200 requests and their
labels at a time, through the real split and the real judge with the demo's policy, one look after each batch. What the
gate refuses is replayed too, to see what the canary would have said, but never serves ("both" counts what passed the
gate and was promoted). The null is the first model against itself: any rollback is false.

No HTTP and no clock: the demo's conductor looks a few times a second, so it may see several batches at once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

from ondol.app.demo.replay import BATCH
from ondol.data import examples
from ondol.formats import project as projects
from ondol.loop import cycle, scoring
from ondol.records.project import ModelSpec
from ondol.records.rollout import JudgePolicy, Observation, Route
from ondol.rollout import split
from ondol.rollout.judge import Judge

MODEL = "flights"
MAY = 5
STATES = {"promote": "promoted", "roll_back": "rolled_back", "inconclusive": "undecided"}
NULL = "first model against itself"
Parameters = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A model's answers to May, and how wrong they are."""

    file: Path
    answers: list[str]
    """As the data plane logs them: JSON, one row each."""

    brier: float
    """Mean over the labelled flights of the month."""


@dataclass
class Tally:
    """What happened to one candidate over the seeds."""

    gate: Counter[str] = field(default_factory=Counter)
    canary: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    """Gate and canary together: what the demo would print."""

    spent: list[int] = field(default_factory=list)
    """Candidate requests until the verdict, or the month's end."""

    worse: list[float] = field(default_factory=list)
    """The truth: Brier score on all of May, minus that of what served."""


class Flights:
    """The demo's data and models, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        home = examples.path(MODEL)
        self.pipeline: ModuleType = examples.module(home, "pipeline")
        replayed = examples.module(home, "replay")
        self.candidates: dict[str, Parameters] = replayed.CANDIDATES
        self.may = replayed.month(MAY, folder)
        self.labels = ["" if label is None else json.dumps(label) for label in self.may.labels]
        project = projects.load(examples.path("demo"))
        self.spec: ModelSpec = project.models[MODEL]
        self.policy: JudgePolicy = project.policy(MODEL)
        self._tables: dict[tuple[Any, ...], tuple[Path, Path]] = {}
        self._asked: dict[str, Asked] = {}
        self._first_gates: dict[Path, str] = {}

    def tables(self, parameters: Parameters) -> tuple[Path, Path]:
        """Return the training and the held-out table of a pipeline with these parameters."""
        asked = {**self.spec.parameters, **parameters}
        unit, lag = asked.get("time_unit", "minutes"), asked.get("weather_lag_hours", 0)
        months = {name: asked[name] for name in ("train_months", "test_months")}
        if (unit, lag) not in self._tables:
            made = {name: self._artifact(f"{unit}-{lag}-{name}") for name in ("flights", "weather", "planes", "table")}
            train, test = self._artifact(f"{unit}-{lag}-train"), self._artifact(f"{unit}-{lag}-test")
            self.pipeline.load.python_func(**months, flights=made["flights"])
            self.pipeline.observe.python_func(weather=made["weather"], planes=made["planes"])
            report = SimpleNamespace(log_metric=lambda name, value: None)
            self.pipeline.join.python_func(**made, report=report, time_unit=unit, weather_lag_hours=lag)
            self.pipeline.split.python_func(table=made["table"], **months, train=train, test=test)
            self._tables[unit, lag] = Path(train.path), Path(test.path)
        return self._tables[unit, lag]

    def trained(self, parameters: Parameters, seed: int) -> Asked:
        """Return the model a pipeline run with these parameters and seed would make, asked about May."""
        train, _ = self.tables(parameters)
        defaults = self.pipeline.flights.component_spec.inputs
        chosen = {
            name: parameters.get(name, defaults[name].default) for name in ("trees", "learning_rate", "feature_share")
        }
        # Trees that see every feature and every row have nothing to draw lots for.
        key = json.dumps([str(train), chosen, seed if chosen["feature_share"] < 1 else 0])
        if key not in self._asked:
            model = self._artifact(f"model-{len(self._asked)}.joblib")
            self.pipeline.train.python_func(data=SimpleNamespace(path=str(train)), **chosen, seed=seed, model=model)
            self._asked[key] = self._ask(Path(model.path))
        return self._asked[key]

    def first_gate(self, model: Asked) -> str:
        """Return the gate's verdict on a first model, which has nothing to be compared with but base rates."""
        if model.file not in self._first_gates:
            self._first_gates[model.file] = gate(self, model, None, {})
        return self._first_gates[model.file]

    def _ask(self, file: Path) -> Asked:
        import joblib

        model = joblib.load(file)
        with threadpool_limits(1):
            chances = model.predict_proba(self.may.frame[list(model.feature_names_in_)])
        known = [
            (pair[1] - label) ** 2 for pair, label in zip(chances, self.may.labels, strict=True) if label is not None
        ]
        return Asked(file, [json.dumps([pair]) for pair in chances.tolist()], statistics.fmean(known))

    def _artifact(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(path=str(self.folder / name), metadata={})


def gate(flights: Flights, candidate: Asked, champion: Asked | None, parameters: Parameters) -> str:
    """Return the gate's verdict, as the loop computes it; the data check passes in the demo."""
    train, held_out = flights.tables(parameters)
    spec = flights.spec
    # Only the metrics that the gate reads: the others are for people and take twice the time.
    judged = replace(spec.evaluate, metrics=tuple(rule.metric for rule in spec.gate.rules))
    scored = scoring.score(candidate.file, champion.file if champion else None, held_out, train, judged, spec.gate)
    return cycle.decide(spec.gate, scored, True).verdict


def trial(flights: Flights, stable: Asked, candidate: Asked, salt: str) -> tuple[str, int]:
    """Replay May; return the canary's verdict and how many requests the candidate got."""
    policy, ids = flights.policy, flights.may.ids
    route = Route(MODEL, "model", "stable", "candidate", policy.steps[0], salt)
    judge = Judge(policy, [0.0])
    for batch, start in enumerate(range(0, len(ids), BATCH)):
        _feed(judge, flights, (stable, candidate), route, batch, range(start, min(start + BATCH, len(ids))))
        action = judge.verdict(intervals=False).action
        if action in STATES:
            return STATES[action], judge.facts().candidate_requests
        if action == "advance":
            judge.step_times.append(batch + 0.5)
            route = replace(route, weight=policy.steps[len(judge.step_times) - 1])
    return "undecided", judge.facts().candidate_requests


def _feed(
    judge: Judge, flights: Flights, models: tuple[Asked, Asked], route: Route, batch: int, rows: Sequence[int]
) -> None:
    """Serve a batch, then say what became known about it."""
    served = []
    for row in rows:
        name = flights.may.ids[row]
        arm = split.assign(route, name)
        answer = models[arm == "candidate"].answers[row]
        one = Observation(name, float(batch), MODEL, arm, arm, name, 200, 1.0, prediction=answer, weight=route.weight)
        judge.add(one)
        served.append(one)
    for one, row in zip(served, rows, strict=True):
        if flights.labels[row]:
            judge.add_label(replace(one, label=flights.labels[row]))


def one_seed(flights: Flights, seed: int, tallies: dict[str, Tally], nulls: int) -> None:
    """Play the demo's canaries once."""
    champion = flights.trained({}, seed)
    tallies["first model"].gate[flights.first_gate(champion)] += 1
    for turn in range(nulls):
        verdict, requests = trial(flights, champion, champion, f"null-{seed}-{turn}")
        tallies[NULL].canary[verdict] += 1
        tallies[NULL].spent.append(requests)
    for name, parameters in flights.candidates.items():
        candidate = flights.trained(parameters, seed)
        passed = gate(flights, candidate, champion, parameters)
        verdict, requests = trial(flights, champion, candidate, f"{name}-{seed}")
        tally = tallies[name]
        tally.gate[passed] += 1
        tally.canary[verdict] += 1
        tally.ended[verdict if passed == "pass" else "refused"] += 1
        tally.spent.append(requests)
        tally.worse.append(candidate.brier - champion.brier)
        if passed == "pass" and verdict == "promoted":
            champion = candidate


COLUMNS: dict[str, Callable[[Tally], str]] = {
    "gate: pass": lambda one: _count(one.gate, "pass"),
    "fail": lambda one: _count(one.gate, "fail"),
    "open": lambda one: _count(one.gate, "not-enough-data"),
    "canary: promoted": lambda one: _count(one.canary, "promoted"),
    "rolled back": lambda one: _count(one.canary, "rolled_back"),
    "undecided": lambda one: _count(one.canary, "undecided"),
    "both: promoted": lambda one: _count(one.ended, "promoted"),
    "candidate requests, median (range)": lambda one: (
        f"{statistics.median(one.spent):,.0f} ({min(one.spent):,}-{max(one.spent):,})" if one.spent else ""
    ),
    "Brier in May against what served, median": lambda one: f"{statistics.median(one.worse):+.4f}" if one.worse else "",
}


def _count(found: Counter[str], name: str) -> str:
    return str(found[name]) if found else ""


def table(tallies: dict[str, Tally]) -> str:
    """Return the tallies as a Markdown table."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    lines += [
        f"| {name} | " + " | ".join(show(one) for show in COLUMNS.values()) + " |" for name, one in tallies.items()
    ]
    return "\n".join(lines)


def _figures(one: Tally) -> dict[str, Any]:
    found: dict[str, Any] = {"gate": one.gate, "canary": one.canary, "demo": one.ended}
    if one.spent:
        found["candidate_requests"] = statistics.median(one.spent)
    if one.worse:
        found["brier_difference"] = round(statistics.median(one.worse), 5)
    return found


def main() -> None:
    """Measure, print, and end with one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--nulls", type=int, default=5, help="trials of the first model against itself, per seed")
    chosen = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        flights = Flights(Path(folder))
        tallies = {name: Tally() for name in ("first model", *flights.candidates, NULL)}
        for seed in range(chosen.seeds):
            one_seed(flights, seed, tallies, chosen.nulls)
            print(f"seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    seconds = round(time.perf_counter() - began)
    print(f"\n{table(tallies)}\n\n{chosen.seeds} seeds, {chosen.nulls} nulls each, {seconds} s\n")
    figures = {name: _figures(one) for name, one in tallies.items()}
    print(json.dumps({"seeds": chosen.seeds, "seconds": seconds, "verdicts": figures}))


if __name__ == "__main__":
    main()

"""The drills: something goes wrong, and what the loop does about it is measured. A drill may be failed.

Must not help the loop: candidates go the way of every release that passed its gate, findings are the conductor's own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ondol.app import looping, running
from ondol.app.demo.trial import wait
from ondol.app.rehearsal import disguise
from ondol.app.rehearsal import stage as stages
from ondol.app.rehearsal.stage import Stage
from ondol.app.rehearsal.traffic import BATCH, Traffic
from ondol.base import errors, ids
from ondol.records.release import ModelManifest
from ondol.records.rollout import Decision, Rollout
from ondol.records.usage import Budget
from ondol.rollout import controller, watching
from ondol.store import alerts, budgets, loads, observations, releases, rollouts, routes, signals, usage
from ondol.testing import mutants
from ondol.testing.mutants import Mutation

REQUESTS = 3_000
"""Sent in one trial at most."""

_BUDGET = 0.02  # US dollars
_CALLS = 60
_SLOWER = 0.05  # seconds, at least
_PATIENCE = 90.0  # seconds that a busy machine may take for what comes in any case


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the scorecard."""

    drill: str
    expected: str
    happened: str
    passed: bool | None
    """None: open. It could not be played, there was nothing to catch, or a small loss was neither proven nor let by."""

    seconds: float = 0.0
    hurt: int = 0
    """Requests that got a worse answer than the champion's, or none."""

    told: bool = False
    """Whether an alert was raised."""

    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Trial:
    """What became of a candidate."""

    injected: dict[str, Any]
    """What is wrong with it, in words and numbers."""

    rollout: Rollout
    seconds: float
    sent: int
    answered: int
    """Requests that the candidate answered."""

    said: str = ""
    """What the judge said at the end of a trial that it has not decided."""


class Drills:
    """All drills of one stage, in the order in which they are played."""

    def __init__(self, stage: Stage, traffic: Traffic, requests: int = REQUESTS) -> None:
        self._stage, self._traffic, self._requests = stage, traffic, requests
        self._champion = disguise.load(stage.blobs, stage.original)
        self._flag = stage.settings.home / "drill-begins"
        """Failing and slow mutants behave until this file is there: it is written when their trial's requests begin."""

    def all(self) -> Iterator[tuple[str, Callable[[], Outcome]]]:
        """Yield each drill's name and how to play it."""
        fails = Mutation("fails", amount=0.5, once=str(self._flag))
        yield "bad model", lambda: self._mutant("bad model", Mutation("inverted"))
        yield "failing model", lambda: self._mutant("failing model", fails)
        yield "late labels", self._late_labels
        yield "latency regression", self._slow
        for name, mutation in self._subtle():
            title = f"mutant: {name}"
            yield title, partial(self._subtle_mutant, title, mutation)
        yield "equal model", self._equal
        yield "cost blow-up", self._cost
        yield "dead worker", self._dead_worker
        yield "dead conductor", self._dead_conductor
        yield "drift", self._drift

    def _subtle(self) -> list[tuple[str, Mutation]]:
        """Return small mistakes as they happen: in the column that matters most, and in one that matters less."""
        order = self._influence()
        if not order:
            return [("overconfident", Mutation("overconfident", amount=2.0))]
        first, second, last = order[0], order[min(1, len(order) - 1)], order[-1]
        names = self._traffic.columns
        middle = float(np.median([row[first] for row in self._traffic.rows if row[first] is not None]))
        return [
            (f"{names[first]} in another unit", Mutation("unit", first, 1.6)),
            (f"{names[first]} is stuck", Mutation("stuck", first, middle)),
            (f"{names[first]} and {names[second]} swapped", Mutation("swapped", first, other=second)),
            (f"{names[last]} in another unit", Mutation("unit", last, 1.6)),
            ("overconfident", Mutation("overconfident", amount=2.0)),
        ]

    def _influence(self) -> list[int]:
        """Return the numeric columns, the most influential first: by how much the answers move when it is shuffled."""
        rows = self._traffic.rows[:500]
        moved = {}
        for place in range(len(self._traffic.columns)):
            values = [row[place] for row in rows]
            if not all(isinstance(value, (int, float)) or value is None for value in values):
                continue
            shuffled = self._traffic.random.permutation(np.array(values, dtype=object))
            changed = [[*row[:place], value, *row[place + 1 :]] for row, value in zip(rows, shuffled, strict=True)]
            moved[place] = float(
                np.mean(np.abs(self._answers(self._champion, changed) - self._answers(self._champion, rows)))
            )
        return sorted(moved, key=lambda place: -moved[place])

    def _answers(self, model: Any, rows: list[list[Any]]) -> np.ndarray[Any, np.dtype[np.float64]]:
        import pandas as pd

        frame = pd.DataFrame(rows, columns=self._traffic.columns)
        frame = frame.infer_objects()
        if callable(getattr(model, "predict_proba", None)):
            return np.asarray(model.predict_proba(frame)[:, -1], dtype=np.float64)
        return np.asarray(model.predict(frame), dtype=np.float64)

    def _damage(self, mutant: Any) -> float:
        """Return the expected loss of a mutant against the champion: exact for the Brier score of probabilities, else
        how much, or how often, it answers otherwise."""
        rows, policy = self._traffic.rows[:1000], self._stage.project.policy(self._stage.model)
        apart = np.abs(self._answers(mutant, rows) - self._answers(self._champion, rows))
        if callable(getattr(self._champion, "predict_proba", None)):
            return float(np.mean(apart**2))
        if policy.quality_loss == "absolute":
            return float(np.mean(np.minimum(apart / policy.quality_scale, 1.0)))
        return float(np.mean(apart > 0))

    def _release(self, name: str, mutation: Mutation) -> str:
        """Make a release of a mutant and let it pass its gate: from here on it is a candidate like any other."""
        artifact = disguise.put(self._stage.blobs, self._stage.original, mutants.make(self._champion, mutation))
        digest = releases.put(self._stage.store, self._stage.model, ModelManifest(artifact, f"drill:{name}")).digest
        evidence = {"release": digest, "because": "a drill"}
        reason = f"{name}: let through on purpose"
        made = Decision(ids.new_id("decision"), time.time(), self._stage.model, "gate", "pass", reason, evidence)
        rollouts.decide(self._stage.store, made)
        return digest

    def _trial(self, name: str, mutation: Mutation, late: bool = False, batch: int = BATCH) -> Trial:
        stage = self._stage
        self._flag.unlink(missing_ok=True)
        digest = self._release(name, mutation)
        rollout = looping.wait_rollout(stage.store, stage.model, digest, _PATIENCE)

        def ended() -> bool:
            return rollouts.get(stage.store, rollout.id).state != "progressing"

        wait(lambda: ended() or _has_loaded(stage, digest), _PATIENCE)
        if failed := _load_failure(stage, digest):
            raise errors.StateError(f"the mutant does not load: {failed}", code="STA-453")
        self._flag.touch()
        began = time.monotonic()
        sent = self._traffic.send(self._requests, ended, late=late, batch=batch)
        wait(ended, 5.0 if late else 2.0)
        judged = watching.verdict(stage.store, rollout)
        if judged.action in ("roll_back", "promote"):
            wait(ended, _PATIENCE)  # the requests have decided it: a busy conductor has yet to say so
        seconds, said = time.monotonic() - began, ""
        if not ended():
            said = judged.reason
            with contextlib.suppress(errors.ConflictError, errors.StateError):  # it was decided meanwhile
                controller.abort(stage.store, stage.model, "the drill's requests are used up")
        answered = sum(one.arm == "candidate" for _, one in observations.of_rollout(stage.store, rollout.id))
        return Trial(self._named(mutation), rollouts.get(stage.store, rollout.id), seconds, sent, answered, said)

    def _named(self, mutation: Mutation) -> dict[str, Any]:
        """Return what a mutation changes, with the names of the columns it touches."""
        said: dict[str, Any] = {"change": mutation.change, "amount": mutation.amount}
        if mutation.change in ("unit", "stuck", "swapped"):
            said["column"] = self._traffic.columns[mutation.column]
        if mutation.change == "swapped":
            said["with"] = self._traffic.columns[mutation.other]
        return said

    def _told(self, kind: str, since: float) -> bool:
        def raised() -> bool:
            return any(one.at >= since for one in alerts.every(self._stage.store, kind, limit=20))

        return wait(raised, 20.0)

    def _mutant(self, name: str, mutation: Mutation) -> Outcome:
        """Try a candidate that nobody can want: everything but a rollback is a failure."""
        since = time.time()
        trial = self._trial(name, mutation)
        caught = trial.rollout.state == "rolled_back"
        self._back_to_champion()
        told = caught and self._told("rollback", since)
        return Outcome(
            name, "rolled back", _what_became(trial), caught, trial.seconds, trial.answered, told, _evidence(trial)
        )

    def _subtle_mutant(self, name: str, mutation: Mutation) -> Outcome:
        """Try a small mistake: it may be proven or held back, but not promoted, unless its loss is an accepted one."""
        since = time.time()
        damage = self._damage(mutants.make(self._champion, mutation))
        margin = self._stage.project.policy(self._stage.model).margin
        trial = self._trial(name, mutation)
        caught, promoted = trial.rollout.state == "rolled_back", trial.rollout.state == "promoted"
        self._back_to_champion()
        expected = f"not promoted: loses {damage:.2g}"
        passed: bool | None = True if caught else False if promoted else None
        if damage <= margin:
            expected, passed = f"anything: loses {damage:.2g}, margin {margin:g}", None
        told = caught and self._told("rollback", since)
        evidence = {"damage": damage, "margin": margin, **_evidence(trial)}
        hurt = trial.answered if damage > 0 else 0
        return Outcome(name, expected, _what_became(trial), passed, trial.seconds, hurt, told, evidence)

    def _back_to_champion(self) -> None:
        """What was promoted is taken back, so that every drill begins with the same champion."""
        route = routes.get(self._stage.store, self._stage.model)
        if route is not None and route.stable != self._stage.champion:
            controller.rollback(self._stage.store, self._stage.model, "the next drill", to=self._stage.champion)

    def _late_labels(self) -> Outcome:
        since = time.time()
        trial = self._trial("late labels", Mutation("inverted", amount=2.0), late=True)
        caught = trial.rollout.state == "rolled_back"
        happened = "rolled back once the labels came" if caught else trial.rollout.state
        self._back_to_champion()
        told = self._told("rollback", since) if caught else False
        return Outcome(
            "late labels", "rolled back", happened, caught, trial.seconds, trial.answered, told, _evidence(trial)
        )

    def _slow(self) -> Outcome:
        since, watched = time.time(), self._stage.project.policy(self._stage.model).metrics
        slow = Mutation("slow", amount=max(_SLOWER, 3 * self._slowest()), once=str(self._flag))
        trial = self._trial("latency regression", slow, batch=1)  # a request is one measurement, however many rows
        caught: bool | None = trial.rollout.state == "rolled_back"
        happened = "rolled back" if caught else f"not noticed after {trial.sent:,} requests"
        if not caught and not any(one.startswith("latency") for one in watched):
            caught, happened = None, "not watched: rollout.judge.metrics has no latency_p95"
        self._back_to_champion()
        told = caught is True and self._told("rollback", since)
        evidence = {**_evidence(trial), "metrics": list(watched)}
        return Outcome(
            "latency regression", "rolled back", happened, caught, trial.seconds, trial.answered, told, evidence
        )

    def _slowest(self) -> float:
        """Return the longest of some requests now, in seconds: on a busy machine a little more is nothing."""
        times = []
        for _ in range(20):
            began = time.monotonic()
            self._traffic.send(1, pause=0.0, batch=1)
            times.append(time.monotonic() - began)
        return max(times)

    def _equal(self) -> Outcome:
        trial = self._trial("equal model", Mutation("none", amount=2.0))  # not the same bytes
        wrong = trial.rollout.state == "rolled_back"
        happened = {"aborted": "still on trial, nothing held against it"}.get(trial.rollout.state, trial.rollout.state)
        self._back_to_champion()
        return Outcome("equal model", "not rolled back", happened, not wrong, trial.seconds, 0, False, _evidence(trial))

    def _cost(self) -> Outcome:
        """Sixty calls at once of an expensive model, under a budget that pays for some of them."""
        import httpx

        stage, since = self._stage, time.time()
        budgets.put(stage.store, Budget(f"model/{stages.LLM}", _BUDGET, "total"))
        url = f"{stage.settings.data.url}/openai/v1/chat/completions"
        body = {
            "model": stages.LLM,
            "messages": [{"role": "user", "content": "Tell me everything."}],
            "max_tokens": 400,
        }

        def ask(_: int) -> int:
            return httpx.post(url, json=body, timeout=120, trust_env=False).status_code

        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            codes = list(pool.map(ask, range(_CALLS)))
        with stage.store.read() as tx:
            spent = usage.spent(tx, f"model/{stages.LLM}", 0.0)
        answered, refused = codes.count(200), codes.count(429)
        held = spent <= _BUDGET and refused > 0 and answered > 0
        happened = f"{answered} answered, {refused} refused, ${spent:.4f} of ${_BUDGET:.2f} spent"
        told = self._told("budget", since)
        evidence = {"spent": spent, "limit": _BUDGET, "answered": answered, "refused": refused}
        seconds = time.monotonic() - began
        return Outcome("cost blow-up", "spending stops at the limit", happened, held, seconds, refused, told, evidence)

    def _dead_worker(self) -> Outcome:
        stage, since = self._stage, time.time()
        live = running.find(stage.settings.home)
        assert live is not None
        with self._traffic.steady() as user:
            time.sleep(0.5)
            began = time.monotonic()
            os.kill(live.pids["data"], signal.SIGKILL)
            again = wait(lambda: _answers_again(stage, live.pids["data"]), 60.0)
            seconds = time.monotonic() - began
            time.sleep(0.5)
        happened = f"served again after {user.down_seconds:.1f} s" if again else "did not come back in 60 s"
        told = self._told("worker", since)
        evidence = {"asked": user.asked, "failed": user.failed, "longest_gap_seconds": user.down_seconds}
        return Outcome("dead worker", "serves again by itself", happened, again, seconds, user.failed, told, evidence)

    def _dead_conductor(self) -> Outcome:
        """Control is killed while a bad candidate is on trial: the verdict must come all the same."""
        stage, since = self._stage, time.time()
        live = running.find(stage.settings.home)
        assert live is not None
        digest = self._release("dead conductor", Mutation("inverted", amount=3.0))
        rollout = looping.wait_rollout(stage.store, stage.model, digest, _PATIENCE)
        wait(lambda: _has_loaded(stage, digest), _PATIENCE)
        if failed := _load_failure(stage, digest):
            raise errors.StateError(f"the mutant does not load: {failed}", code="STA-453")
        os.kill(live.pids["control"], signal.SIGKILL)
        began = time.monotonic()

        def ended() -> bool:
            return rollouts.get(stage.store, rollout.id).state != "progressing"

        sent = self._traffic.send(self._requests, ended)
        wait(ended, 60.0)
        seconds, final = time.monotonic() - began, rollouts.get(stage.store, rollout.id)
        answered = sum(one.arm == "candidate" for _, one in observations.of_rollout(stage.store, rollout.id))
        caught = final.state == "rolled_back"
        self._back_to_champion()
        told = self._told("worker", since)
        evidence = {"reason": final.reason, "sent": sent}
        return Outcome(
            "dead conductor",
            "rolled back all the same",
            final.state.replace("_", " "),
            caught,
            seconds,
            answered,
            told,
            evidence,
        )

    def _drift(self) -> Outcome:
        """The most influential column moves by two standard deviations: found, and a retraining begun."""
        stage, since, began = self._stage, time.time(), time.monotonic()
        order = self._influence()
        if not order:
            return Outcome("drift", "found, and a retraining begun", "no numeric column to move", None)
        place = order[0]
        values = np.array([row[place] for row in self._traffic.rows if row[place] is not None], dtype=np.float64)
        shift = 2 * float(values.std()) or 1.0

        def moved(row: list[Any]) -> list[Any]:
            return [*row[:place], None if row[place] is None else row[place] + shift, *row[place + 1 :]]

        def found() -> bool:
            looks = rollouts.decisions(stage.store, stage.model, "drift", limit=20)
            return any(one.verdict == "drift" and one.at >= since for one in looks)

        window = stage.project.models[stage.model].monitor.window
        sent = self._traffic.send(2 * window + 400, found, change=moved, pause=0.0)
        seen = wait(found, 10.0)
        begun = seen and wait(lambda: bool(signals.retrainings(stage.store, stage.model)), 10.0)
        seconds = time.monotonic() - began
        happened = "not found" if not seen else "found, a retraining begun" if begun else "found, no retraining begun"
        verdict = self._retrained() if begun else ""
        if verdict:
            happened += f"; its gate said {verdict}"
        told = self._told("drift", since)
        evidence = {"column": self._traffic.columns[place], "shift": shift, "sent": sent}
        return Outcome("drift", "found, and a retraining begun", happened, begun, seconds, 0, told, evidence)

    def _retrained(self) -> str:
        """Wait a while for the retraining's verdict, which depends on the project's own pipeline."""

        def ended() -> bool:
            return signals.going_on(self._stage.store, self._stage.model) is None

        wait(ended, 45.0)
        newest = signals.retrainings(self._stage.store, self._stage.model, limit=1)
        return newest[0].verdict or newest[0].state if newest and ended() else ""


def _what_became(trial: Trial) -> str:
    """Say how a trial of something bad ended."""
    said = {"promoted": "promoted: not noticed", "aborted": f"held on trial, undecided after {trial.sent:,} requests"}
    return said.get(trial.rollout.state, trial.rollout.state.replace("_", " "))


def _evidence(trial: Trial) -> dict[str, Any]:
    reason = f"{trial.rollout.reason}: {trial.said}" if trial.said else trial.rollout.reason
    numbers = {"sent": trial.sent, "answered_by_candidate": trial.answered}
    return {"reason": reason, "injected": trial.injected, "rollout": trial.rollout.id, **numbers}


def _has_loaded(stage: Stage, digest: str) -> bool:
    """Whether the data plane has loaded a release, or cannot."""
    states = {one.release: one.state for one in loads.every(stage.store, stage.model)}
    return states.get(digest) in ("Loaded", "FailedToLoad")


def _load_failure(stage: Stage, digest: str) -> str:
    found = [one for one in loads.every(stage.store, stage.model) if one.release == digest]
    return found[0].message if found and found[0].state == "FailedToLoad" else ""


def _answers_again(stage: Stage, before: int) -> bool:
    live = running.find(stage.settings.home)
    return live is not None and live.pids["data"] != before and running.is_ready(stage.settings.data)

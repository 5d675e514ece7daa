"""What the tests of the loop share: a project's text, releases that need no model, and hands that only remember."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondol.base import ids
from ondol.base.settings import Settings
from ondol.records.release import ModelManifest
from ondol.records.rollout import Decision, Observation, Route
from ondol.registry.models import RegisteredModel
from ondol.rollout import split
from ondol.store import loads, observations, releases, rollouts, routes
from ondol.store.connection import Store

MODEL = "m"
PROJECT = """
name: small
models:
  m:
    pipeline: pipeline.py
    model: train.model
    evaluate: {data: prepare.test, target: late}
rollout:
  steps: [50, 100]
  judge: {metrics: [error_rate], margin: 0.05, min_requests: 20, bake_seconds: 0}
retrain: {on: [drift], debounce: 0s, cool_down: 0s}
"""


@dataclass
class Shelf:
    """A registry in memory: aliases and nothing else."""

    aliases: dict[str, str] = field(default_factory=lambda: {"champion": "1"})
    moved: list[str] = field(default_factory=list)

    def mirror(self) -> int:
        """Nothing is mirrored."""
        return 0

    def models(self) -> list[RegisteredModel]:
        """One model."""
        return [RegisteredModel(MODEL, (), dict(self.aliases))]

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Move an alias."""
        assert name == MODEL
        self.aliases[alias] = version
        self.moved.append(version)


@dataclass
class Trainer:
    """Somebody who retrains, and is at it for as long as a test says."""

    started: list[str] = field(default_factory=list)
    busy: bool = False

    def start(self, model: str, because: str) -> None:
        """Begin."""
        assert model == MODEL
        self.started.append(because)

    def running(self, model: str) -> bool:
        """Whether it is at it."""
        return self.busy


def project(settings: Settings, text: str = PROJECT) -> None:
    """Write the project's file."""
    Path(settings.project / "ondol.yaml").write_text(text, encoding="utf-8")


def release(store: Store, version: str) -> str:
    """Put a release of a version; return its digest."""
    manifest = ModelManifest(f"files of {version}", f"models:/{MODEL}/{version}", model=MODEL, version=version)
    return releases.put(store, MODEL, manifest).digest


def serving(store: Store, version: str = "1") -> str:
    """Let a version serve; return its release's digest."""
    digest = release(store, version)
    routes.put(store, Route(MODEL, "model", digest))
    loads.put(store, MODEL, digest, "Loaded")
    return digest


def decided(store: Store, action: str, verdict: str, **evidence: Any) -> str:
    """Write a decision as the loop does; return its id."""
    made = Decision(ids.new_id("decision"), time.time(), MODEL, action, verdict, "because the test says so", evidence)
    rollouts.decide(store, made)
    return made.id


def passed(store: Store, version: str, because: str = "asked for") -> str:
    """Let a new version pass its gate; return its release's digest."""
    digest = release(store, version)
    decided(store, "gate", "pass", release=digest, because=because)
    return digest


def _names(prefix: str) -> Iterator[str]:
    while True:
        yield prefix + ids.new_id("r")


def requests(store: Store, count: int, bad_candidate: bool = False, prefix: str = "") -> None:
    """Serve some requests as the data plane would; every second one of a bad candidate fails.

    The arms get exactly their shares: of units drawn at random the judge says once in a thousand trials, as it should,
    that the split is broken.
    """
    route = routes.get(store, MODEL)
    assert route is not None
    batch: list[Observation] = []
    tried = 0
    for number in range(1, count + 1):
        arm = "candidate" if route.candidate and tried < number * route.weight / 100 - 0.5 else "stable"
        name = next(one for one in _names(prefix) if split.assign(route, one) == arm)
        tried += arm == "candidate"
        digest = route.candidate if arm == "candidate" else route.stable
        status = 500 if bad_candidate and arm == "candidate" and tried % 2 else 200
        batch.append(
            Observation(name, time.time(), MODEL, digest, arm, name, status, 1.0, route.rollout, weight=route.weight)
        )
    observations.append(store, batch)


def actions(store: Store, *only: str) -> list[str]:
    """Return what was decided, oldest first."""
    found = [one.action for one in reversed(rollouts.decisions(store, MODEL, limit=1000))]
    return [one for one in found if not only or one in only]

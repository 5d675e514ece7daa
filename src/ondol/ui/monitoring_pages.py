"""The pages about watching and acting: what drifts, how right the answers are, what the loop did, who was told.

Must not judge: the verdicts come from the decisions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from starlette.requests import Request

from ondol.base import errors
from ondol.records.rollout import Decision
from ondol.records.signal import Retraining, Signal
from ondol.store import alerts, observations, overview, rollouts, segments, signals
from ondol.store.connection import Store
from ondol.ui import sparks
from ondol.ui.sparks import Spark
from ondol.ui.words import Words

Context = dict[str, Any]
_WINDOWS = 60  # looks that are drawn
_BUCKETS, _BUCKET_SECONDS = 24, 3600.0
_ACTIONS = ("retrain", "gate", "start", "promote", "roll_back", "inconclusive", "abort", "supersede", "alias")


class MonitoringPages:
    """The handlers, over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def pages(self) -> dict[str, Callable[[Request, Words], tuple[str, Context]]]:
        """Return the pages by path."""
        return {
            "/monitoring": self._monitoring,
            "/monitoring/{name:path}": self._watched,
            "/loop": self._loop,
            "/alerts": self._alerts,
        }

    def _monitoring(self, _: Request, words: Words) -> tuple[str, Context]:
        names = [view.route.service for view in overview.services(self._store)]
        return "monitoring.html", {"services": [self._card(name, words) for name in names]}

    def _card(self, name: str, words: Words) -> Context:
        """Return the newest look at a service, its volume of the last day, and how right it was."""
        drift, quality = (
            rollouts.decisions(self._store, name, action, limit=_WINDOWS) for action in ("drift", "quality")
        )
        volume = self._volume(name)
        return {
            "name": name,
            "drift": drift[0] if drift else None,
            "quality": quality[0] if quality else None,
            "volume": sparks.bars(volume, label=words("requests per hour")),
            "requests": round(sum(volume)),
            "loss": loss_of(quality),
        }

    def _volume(self, name: str) -> list[float]:
        """Return the requests of each of the last 24 hours, oldest first, wherever they are kept."""
        began = time.time() - _BUCKETS * _BUCKET_SECONDS
        here, moved = (
            of(self._store, name, began, _BUCKET_SECONDS, _BUCKETS) for of in (observations.volume, segments.volume)
        )
        return [one + other for one, other in zip(here, moved, strict=True)]

    def _watched(self, request: Request, words: Words) -> tuple[str, Context]:
        name = request.path_params["name"]
        if name not in {view.route.service for view in overview.services(self._store)}:
            raise errors.NotFoundError(f"no service {name!r}", code="NOF-030")
        drift = rollouts.decisions(self._store, name, "drift", limit=_WINDOWS)
        return "monitored.html", {
            **self._card(name, words),
            "columns": columns_of(drift),
            "windows": sum(one.verdict != "not-enough-data" for one in drift),
            "decisions": [*drift[:20], *rollouts.decisions(self._store, name, "quality", limit=20)],
        }

    def _loop(self, _: Request, __: Words) -> tuple[str, Context]:
        heard = signals.every(self._store, limit=300)
        found = signals.retrainings(self._store, limit=50)
        return "loop.html", {
            "open": [one for one in heard if not one.retraining],
            "episodes": [self._episode(one, heard) for one in found],
            "decisions": [one for one in rollouts.decisions(self._store, limit=200) if one.action in _ACTIONS][:60],
        }

    def _episode(self, retraining: Retraining, heard: Sequence[Signal]) -> Context:
        """Return one story: what was heard, what was done, what was decided in the end."""
        gates = rollouts.decisions(self._store, retraining.subject, "gate", limit=200)
        gate = next((one for one in gates if one.evidence.get("because") == retraining.id), None)
        release = str(gate.evidence.get("release", "")) if gate else ""
        trials = rollouts.of_service(self._store, retraining.subject) if release else []
        walks = rollouts.decisions(self._store, retraining.subject, "retrain", limit=200)
        return {
            "retraining": retraining,
            "failed": next(
                (
                    one
                    for one in walks
                    if one.evidence.get("retraining") == retraining.id and one.verdict in ("failed", "given up")
                ),
                None,
            ),
            "signals": [one for one in heard if one.retraining == retraining.id],
            "gate": gate,
            "rollout": next((one for one in trials if one.candidate == release), None),
        }

    def _alerts(self, _: Request, __: Words) -> tuple[str, Context]:
        found = alerts.every(self._store, limit=100)
        return "alerts.html", {
            "alerts": [(one, alerts.deliveries(self._store, one.id)) for one in found],
            "silences": alerts.silences(self._store, time.time()),
        }


def columns_of(drift: Sequence[Decision]) -> list[Spark]:
    """Return one small line per column: its effect in each look, the ones that drifted most first.

    :param drift: newest first.
    """
    looks = [one for one in reversed(drift) if one.evidence.get("report")]
    found: dict[str, list[tuple[float, bool]]] = {}
    said: dict[str, str] = {}
    for look in looks:
        newest: dict[str, tuple[float, bool]] = {}
        for one in look.evidence["report"]["columns"]:
            before = newest.get(one["column"], (0.0, False))
            newest[one["column"]] = (max(before[0], one["effect"]), before[1] or one["drifted"])
            said[one["column"]] = str(one["change"])
        for name, value in newest.items():
            found.setdefault(name, []).append(value)
    if not found:
        return []
    limit = float(looks[-1].evidence["report"]["effect"])
    top = max(limit * 1.5, *(effect for values in found.values() for effect, _ in values))
    made = [
        Spark(name, tuple(effect for effect, _ in values), tuple(bad for _, bad in values), said[name])
        for name, values in found.items()
    ]
    made.sort(key=lambda one: (-one.marked[-1], -sum(one.marked), -one.values[-1], one.name))
    return [replace(one, svg=sparks.line(one.values, one.marked, top=top, limit=limit, label=one.name)) for one in made]


def loss_of(quality: Sequence[Decision]) -> str:
    """Return the loss of each window of the release that serves as a small line; newest first comes in."""
    if not quality:
        return ""
    release = quality[0].evidence.get("release")
    looks = [one for one in reversed(quality) if one.evidence.get("release") == release and one.evidence.get("current")]
    values = [float(one.evidence["current"]["loss"]) for one in looks]
    marked = [one.verdict == "degraded" for one in looks]
    if not values:
        return ""
    limit = values[0] + float(looks[0].evidence.get("margin", 0.0))
    return sparks.line(values, marked, top=max([*values, limit]) * 1.2, limit=limit, label="loss")

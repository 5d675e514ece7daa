"""A service that was watched for weeks: drift in two columns, fallen quality, a retraining, alerts."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from ondol.base import ids
from ondol.records.alert import Delivery
from ondol.records.release import ModelManifest
from ondol.records.rollout import Decision, Observation, Route
from ondol.records.signal import Retraining, Signal
from ondol.store import alerts, observations, releases, rollouts, routes, signals
from ondol.store.connection import Store

COLUMNS = ("dep_hour", "distance", "wind_gust", "temp", "humid", "pressure", "visib", "carrier_late", "origin_late",
           "seats", "age", "prediction")  # fmt: skip
WINDOWS = 24


def seed(store: Store, service: str) -> None:
    """Write everything down as the loop would."""
    chance, now = random.Random(3), time.time()
    manifest = ModelManifest("sha256:" + "d" * 64, f"models:/{service}/4", "sklearn", service, "4")
    release = releases.put(store, service, manifest).digest
    routes.put(store, Route(service, "model", release))
    rows = [
        Observation(f"{service}-{n}", now - chance.random() ** 2 * 86_000, service, release, "stable", "u", 200, 1.0)
        for n in range(1500)
    ]
    observations.append(store, rows)
    drift = _drift(store, service, release, chance, now)
    for window in range(8):
        loss = 0.15 + 0.003 * chance.random() + (0.05 if window > 5 else 0)
        verdict = "baseline" if not window else "degraded" if window > 5 else "stable"
        evidence = {"release": release, "margin": 0.01, "current": {"loss": loss, "rows": 2000}}
        reason = f"loss 0.1502 → {loss:.4f} over 2,000 labelled requests"
        at = now - 3600 * (8 - window)
        rollouts.decide(store, Decision(ids.new_id("decision"), at, service, "quality", verdict, reason, evidence))
    heard = Signal(
        ids.new_id("sig"), now - 3000, service, "drift", f"drift/{release}", drift.reason, {"decision": drift.id}
    )
    signals.hear(store, heard)
    made = Retraining(ids.new_id("retraining"), now - 2900, service, (heard.id,), "because of drift", attempts=1)
    signals.answer(store, made)
    reason = "log_loss 0.4712 against the champion's 0.4805: better by 0.0093"
    rollouts.decide(
        store, Decision(ids.new_id("decision"), now - 2800, service, "gate", "pass", reason, {"because": made.id})
    )
    signals.end(store, made, "done", "pass", "", now - 2700)
    asked = Signal(ids.new_id("sig"), now - 60, service, "hand", "hand/1", "the labels of October are corrected")
    signals.hear(store, asked)
    leased: list[Delivery] = []
    while not leased:  # the control process, which has nobody to tell, may be quicker and put an alert away
        told = alerts.make("drift", service, f"{service}: {drift.reason}", evidence={"decision": drift.id})
        alerts.put(store, told)
        leased = alerts.lease(store, told.id, ["slack-1f2e3d4c"], now, 60)
    alerts.settle(store, leased[0], "sent")
    broken = alerts.make("worker", "data", "the data plane (process 4711) died", severity="critical")
    alerts.put(store, replace(broken, at=now - 30))
    alerts.silence(store, "drift", "other", now + 3600, "holiday season")


def _drift(store: Store, service: str, release: str, chance: random.Random, now: float) -> Decision:
    """Write one look per window; return the newest."""
    made = None
    for window in range(WINDOWS):
        columns = []
        for name in COLUMNS:
            moving = name in ("temp", "humid") and window > 12
            effect = 0.03 + 0.03 * chance.random() + (0.02 * (window - 12) if moving else 0)
            change = f"mean 12.1 → {12 + 40 * effect:.1f}"
            columns.append({"column": name, "effect": effect, "drifted": effect > 0.1, "change": change})
        names = [str(one["column"]) for one in columns if one["drifted"]]
        reason = f"{len(names)} of {len(COLUMNS)} columns drifted in 2,000 requests" + (
            f": {', '.join(names)}" if names else ""
        )
        evidence = {"release": release, "report": {"columns": columns, "effect": 0.1}}
        verdict = "drift" if names else "stable"
        made = Decision(
            ids.new_id("decision"), now - 3600 * (WINDOWS - window), service, "drift", verdict, reason, evidence
        )
        rollouts.decide(store, made)
    assert made is not None
    return made

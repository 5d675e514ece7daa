"""Alerts, signals, retrainings, segments and volumes, on every database."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ondol.base import ids
from ondol.monitoring import retention
from ondol.monitoring.request_archive import Archive
from ondol.records.project import MonitoringSpec
from ondol.records.rollout import Observation, Route
from ondol.records.signal import Retraining, Signal
from ondol.store import alerts, observations, routes, segments, signals
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

DAY = 86_400.0


def test_alerts_are_raised_leased_settled_and_silenced(store: Store) -> None:
    one = alerts.make("drift", "m", "drifted", key="drift/m/r1", evidence={"release": "r1"})
    assert alerts.put(store, one)
    assert not alerts.put(store, alerts.make("drift", "m", "again", key="drift/m/r1"))
    now = time.time()
    (delivery,) = alerts.lease(store, one.id, ["webhook-1"], now, 60)
    assert alerts.lease(store, one.id, ["webhook-1"], now, 60) == []
    alerts.settle(store, delivery, "waiting", now + 5, "the target answered 503")
    assert [(each.state, each.attempts) for each in alerts.deliveries(store, one.id)] == [("waiting", 1)]
    assert alerts.every(store, "drift", undelivered=True, subject="m")[0].evidence == {"release": "r1"}
    silence = alerts.silence(store, "drift", "", now + 60, "holidays")
    assert alerts.silences(store, now) == [silence]
    alerts.unsilence(store, silence.id)
    alerts.acknowledge(store, one.id, "mina")
    assert alerts.every(store, undelivered=True) == []


def test_signals_are_heard_and_answered_once(store: Store) -> None:
    heard = Signal(ids.new_id("sig"), 1.0, "m", "drift", "drift/r1", "2 columns drifted")
    assert signals.hear(store, heard)
    assert not signals.hear(store, heard)
    first = Retraining(ids.new_id("retraining"), 2.0, "m", (heard.id,), "drift", attempts=1)
    assert signals.answer(store, first)
    again = Retraining(ids.new_id("retraining"), 3.0, "m", (heard.id,), "drift", attempts=1)
    assert not signals.answer(store, again)
    assert signals.begin_again(store, first, 60.0)
    assert not signals.begin_again(store, first, 60.0)
    going_on = signals.going_on(store, "m")
    assert going_on is not None
    assert going_on.attempts == 2
    assert signals.end(store, going_on, "given up", "", "it failed", 9.0)
    assert not signals.end(store, going_on, "done", "pass", "", 10.0)
    assert not signals.answer(store, again)  # the signal is answered, if in vain
    assert signals.unanswered(store, "m") == ()
    assert not signals.withdraw(store, "m", "drift/r1")


def test_requests_are_moved_counted_and_pruned(store: Store, tmp_path: Path) -> None:
    now = time.time()
    routes.put(store, Route("m", "model", "r1"))
    rows = [Observation(f"r{n}", now - 3 * DAY + n, "m", "r1", "stable", "u", 200, 1.0) for n in range(1200)]
    new = [Observation(f"n{n}", now - 5400 + n, "m", "r1", "stable", "u", 200, 1.0) for n in range(10)]
    observations.append(store, rows + new)
    observations.label(store, {"r1": "1", "n1": "0"})
    blobs = Blobs(tmp_path / "blobs")
    assert observations.volume(store, "m", now - 2 * 3600, 3600.0, 2) == [10, 0]
    assert retention.tidy(store, blobs, MonitoringSpec(recent="1d", retention="30d"), (), now).moved == 1200
    moved = segments.volume(store, "m", now - 3 * DAY - 600, 600.0, 4)
    assert moved == [0, pytest.approx(600, abs=1), pytest.approx(600, abs=1), 0]
    assert segments.volume(store, "m", now - 3600, 600.0, 6) == [0] * 6
    archive = Archive(store, blobs)
    found = {one.id: one.label for one in archive.read("m")}
    assert (len(found), found["r1"], found["n1"]) == (1210, "1", "0")
    with store.write() as tx:
        tx.execute("UPDATE labels SET at = at - 10", ())
    assert [request for _, request, _ in observations.labels_after(store, 0, 10)] == ["r1", "n1"]
    assert [one.id for one in observations.by_ids(store, ["n1", "r1"])] == ["n1"]
    kept = retention.tidy(store, blobs, MonitoringSpec(recent="1h", retention="1d"), (), now)
    assert (kept.files, segments.every(store)) == (1, [])

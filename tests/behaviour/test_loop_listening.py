"""What the loop says it listens for, in each state that can be brought about."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from tests.behaviour import loop_tools as tools
from tests.behaviour.loop_tools import MODEL
from tests.behaviour.test_loop_watch import Watched, rows, watched

from ondol.base.settings import Settings
from ondol.formats import project as projects
from ondol.loop import listening, watch
from ondol.records.project import Project
from ondol.records.signal import Retraining, Signal
from ondol.store import counters, observations, signals
from ondol.store.connection import Store

__all__ = ["watched"]  # the fixture

TEXT = tools.PROJECT.replace("on: [drift]", 'on: [drift, quality, data, change, "0 3 * * *"], data: [data.csv]')
NOON = 1_764_244_800.0  # 2025-11-27T12:00:00Z


@pytest.fixture
def project(home: Settings) -> Project:
    tools.project(home, TEXT.replace("evaluate:", "monitor: {window: 200}\n    evaluate:"))
    return projects.load(home.project)


def said(store: Store, project: Project, release: str) -> dict[str, str]:
    found = listening.sentences(store, project, MODEL, release, NOON)
    return {one.partition(": ")[0]: one.partition(": ")[2] for one in found}


def test_it_says_how_far_every_reason_is(store: Store, project: Project, watched: Watched) -> None:
    assert listening.sentences(store, project, MODEL, "", NOON) == ()
    watched.send(rows(37, watched.generator))
    observations.label(store, {"r1": "1", "r2": "0", "of another service": "1"})
    with store.write() as tx:
        tx.execute("UPDATE labels SET at = at - 10")
    first = said(store, project, watched.release)
    assert list(first) == ["drift", "quality", "data", "change", "0 3 * * *"]
    assert first["drift"].startswith("37 of the 200 requests of the next window have come")
    assert first["quality"].startswith("2 of the 200 labels of the next window have come")
    assert first["data"] == "data.csv to change"
    assert first["change"] == "pipeline.py to change"
    assert first["0 3 * * *"] == "due in 15 h, at 2025-11-28T03:00:00.000Z"
    watched.send(rows(163, watched.generator))
    assert said(store, project, watched.release)["drift"].startswith("a full window of 200 requests waits")


def test_it_says_what_is_not_heard_and_why(store: Store, project: Project, watched: Watched) -> None:
    assert said(store, project, "sha256:somebody else's")["drift"].startswith(
        "not watched: the release that serves has"
    )
    heard = Signal("sig-1", time.time(), MODEL, "drift", f"drift/{watched.release}", "it moved")
    signals.hear(store, heard)
    assert "next window" in said(store, project, watched.release)["drift"]
    assert signals.answer(store, Retraining("ret-1", time.time(), MODEL, ("sig-1",), "drift", attempts=1))
    assert said(store, project, watched.release)["drift"].startswith("answered once already")
    silent = replace(project, retrain=replace(project.retrain, on=()))
    (only,) = listening.sentences(store, silent, MODEL, watched.release, NOON)
    assert only.startswith("drift and quality are watched, but start nothing")


def test_a_large_window_that_is_counted_in_part_is_not_begun_again(
    store: Store, project: Project, watched: Watched
) -> None:
    window = watch.WHOLE + 1000
    model = replace(project.models[MODEL], monitor=replace(project.models[MODEL].monitor, window=window))
    watched.send(rows(500, np.random.default_rng(0)))
    assert watched.look(model.monitor) is None
    assert counters.fact(store, f"watch/{MODEL}/counting")["requests"] == 500
    watched.send(rows(11, watched.generator))
    heard = said(store, replace(project, models={MODEL: model}), watched.release)["drift"]
    assert heard.startswith(f"511 of the {window:,} requests of the next window have come")


def test_status_says_what_the_newest_gate_refused(store: Store, project: Project, ondol: Callable[..., str]) -> None:
    tools.serving(store)
    tools.passed(store, "2")
    assert "newest gate" not in ondol("loop", "status")
    tools.decided(store, "gate", "fail", because="asked for")
    assert f"{MODEL}'s newest gate said fail at " in ondol("loop", "status")
    (state,) = json.loads(ondol("loop", "status", "--json"))
    assert state["refused"].endswith(": because the test says so")

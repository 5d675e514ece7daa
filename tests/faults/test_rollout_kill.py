"""kill -9 in the middle of rollouts: the route, the rollout and its decisions always tell one story."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ondol.records.release import ModelManifest
from ondol.records.rollout import Route
from ondol.rollout import controller, panel
from ondol.store import loads, releases, rollouts, routes
from ondol.store.connection import Store

WORKER = """
import itertools, sys, time
from ondol.records.rollout import JudgePolicy, Observation
from ondol.rollout import controller, panel, split
from ondol.store import observations, releases, routes
from ondol.base import errors
from ondol.store.connection import Store

store = Store(sys.argv[1])
policy = JudgePolicy(metrics=("error_rate",), margin=0.05, min_requests=20, steps=(20.0, 50.0, 100.0), bake_seconds=0.0)
ab = JudgePolicy(metrics=("error_rate",), strategy="ab", steps=(60.0,), decide_on="error_rate", margin=0.05,
                 min_requests=20, bake_seconds=0.0)
found = sorted(one.digest for one in releases.of_name(store, "s"))
print("ready", flush=True)
for turn in itertools.count():
    route = routes.get(store, "s")
    if not route.rollout:
        other = found[1] if route.stable == found[0] else found[0]
        try:
            controller.start(store, "s", other, ab if turn % 2 else policy)
        except errors.OndolError:
            pass
        route = routes.get(store, "s")
    batch = []
    for index in range(300):
        name = f"{sys.argv[2]}-{turn}-{index}"
        arm = split.assign(route, name)
        status = 500 if arm == "candidate" and turn % 3 == 0 and index % 2 else 200
        batch.append(
            Observation(name, time.time(), "s", "d", arm, name, status, 1.0, route.rollout, weight=route.weight)
        )
    observations.append(store, batch)
    controller.tick(store)
"""


def start_worker(database: Path, name: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(database), name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
    return process


def check(store: Store) -> int:
    """Assert that what is stored is consistent; return how many rollouts have ended."""
    route = routes.get(store, "s")
    assert route is not None
    decided = rollouts.decisions(store, "s", limit=100_000)
    ended = 0
    for rollout in rollouts.of_service(store, "s"):
        mine = [one for one in decided if one.evidence.get("rollout") == rollout.id]
        last = [one for one in mine if one.verdict != "progressing"]
        assert [one.action for one in mine].count("advance") == rollout.step
        if rollout.state == "progressing":
            assert (route.rollout, route.candidate) == (rollout.id, rollout.candidate)
            assert route.weight == rollout.policy.steps[rollout.step]
            assert last == []
            continue
        ended += 1
        assert len(last) == 1, [one.action for one in last]
        assert last[0].verdict == rollout.state
        assert route.rollout != rollout.id
        again = panel.replay(last[0].evidence)
        assert (again.action, again.reason) == (last[0].action, last[0].reason)
    return ended


@pytest.mark.slow
def test_two_processes_tick_and_are_killed_again_and_again(tmp_path: Path) -> None:
    database, generator = tmp_path / "ondol.db", random.Random(1)
    with Store(database) as store:
        first, second = (releases.put(store, "s", ModelManifest(name, f"file:///{name}")).digest for name in "ab")
        routes.put(store, Route("s", "model", first))
        for one in (first, second):
            loads.put(store, "s", one, "Loaded")
        ended, turn, deadline = 0, 0, time.monotonic() + 240
        while turn < 6 or ended < 3:  # a slow machine needs more turns to end as many
            assert time.monotonic() < deadline, ended
            turn += 1
            victims = [start_worker(database, f"{name}{turn}") for name in "xy"]
            for victim in victims:
                time.sleep(generator.uniform(0.05, 0.4))
                os.kill(victim.pid, signal.SIGKILL)
            for victim in victims:
                _, said = victim.communicate()
                assert said == ""
            ended = check(store)
        controller.tick(store)
        check(store)

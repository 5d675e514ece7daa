"""kill -9 of a conductor between any two of its writes: the next one finishes, and nothing is done or said twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.behaviour import loop_tools as tools
from tests.behaviour.loop_tools import MODEL

from ondol.base.settings import Settings
from ondol.rollout import controller
from ondol.store import counters, loads, rollouts, routes
from ondol.store.connection import Store

# Goes round until everything has happened, or until its write number `sys.argv[2]`, which it dies in and loses.
WORKER = """
import contextlib, os, signal, sys
from pathlib import Path
from ondol.base.settings import Settings
from ondol.loop.conductor import Conductor, Hands
from ondol.registry.models import RegisteredModel
from ondol.store import counters, rollouts, routes, signals
from ondol.store.connection import Store
from tests.behaviour import loop_tools as tools

folder, last = Path(sys.argv[1]), int(sys.argv[2])
settings = Settings(home=folder / ".ondol", project=folder)
store, writes, acting = Store(settings.database), 0, False
plain = store.write


@contextlib.contextmanager
def write():
    global writes
    writes += acting
    with plain() as tx:
        yield tx
        if acting and writes == last:
            os.kill(os.getpid(), signal.SIGKILL)


store.write = write


class Shelf(tools.Shelf):
    def models(self):
        return [RegisteredModel("m", (), {"champion": counters.fact(store, "test/champion")})]

    def set_alias(self, name, alias, version):
        counters.put_fact(store, "test/champion", version)


class Trainer(tools.Trainer):
    def start(self, model, because):
        champion = routes.get(store, "m").stable
        tools.decided(store, "gate", "fail", because=because, champion=champion, release="")


conductor = Conductor(store, settings, Hands(registry=Shelf(), retraining=Trainer()))
for turn in range(60):
    acting = False
    tools.requests(store, 100)
    acting = True
    conductor.fast()
    conductor.slow()
    promoted = rollouts.decisions(store, "m", "promote")
    if promoted and not rollouts.decisions(store, "m", "drift"):
        acting = False
        tools.decided(store, "drift", "drift", release=promoted[0].evidence["candidate"])
    if tools.actions(store, "retrain") and not signals.going_on(store, "m"):
        break
conductor.slow()
print(writes, dict(conductor._hands.errors))
"""


def go_round(folder: Path, last: int = 0) -> tuple[int, str]:
    """Run the worker; return its exit code and what it said."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(folder), str(last)],
        capture_output=True, text=True, cwd=root, check=False, timeout=280,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


def prepared(folder: Path) -> Settings:
    """One release serves, two have passed their gate."""
    folder.mkdir()
    settings = Settings(home=folder / ".ondol", project=folder)
    tools.project(settings, tools.PROJECT.replace("cool_down: 0s", "cool_down: 0s, back_off: 0s"))
    with Store(settings.database) as store:
        tools.serving(store, "1")
        counters.put_fact(store, "test/champion", "1")
        for version in "23":
            loads.put(store, MODEL, tools.passed(store, version), "Loaded")
    return settings


def check(settings: Settings, exactly: bool) -> None:
    """Assert that each thing was done, and decided, once."""
    with Store(settings.database) as store:
        (rollout,) = rollouts.of_service(store, MODEL)
        assert rollout.state == "promoted"
        route = routes.get(store, MODEL)
        assert route is not None
        assert (route.stable, route.rollout) == (rollout.candidate, "")
        assert counters.fact(store, "test/champion") == "3"
        found = [one for one in tools.actions(store) if one != "drift"]
        said = {one: found.count(one) for one in set(found)}
        aliases = said.pop("alias", 0)
        assert said == {"gate": 3, "supersede": 1, "start": 1, "promote": 1, "retrain": 1}
        assert aliases == 1 if exactly else aliases <= 1  # killed between moving it and saying so, it is not said
        assert controller.tick(store) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_write_another_conductor_finishes(tmp_path: Path) -> None:
    settings = prepared(tmp_path / "whole")
    code, said = go_round(tmp_path / "whole")
    assert code == 0
    writes, _, failed = said.partition(" ")
    assert failed == "{}"
    check(settings, exactly=True)
    assert int(writes) >= 7
    for number in range(1, int(writes) + 1):
        folder = tmp_path / f"killed{number}"
        settings = prepared(folder)
        code, _ = go_round(folder, number)
        if code == 0:  # the judge needed fewer looks this time: there was no such write
            continue
        assert code == -signal.SIGKILL
        code, _ = go_round(folder)
        assert code == 0
        check(settings, exactly=False)

"""Any sequence of findings, schedules, people, walks, requests and crashes.

The loop never acts twice on one signal, and when everything is quiet a release serves that passed its gate.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.behaviour import loop_tools as tools
from tests.behaviour.loop_tools import MODEL

from ondol.base import ids
from ondol.base.settings import Settings
from ondol.loop import signals as signalling
from ondol.loop import standing
from ondol.loop.conductor import Conductor, Hands
from ondol.store import loads, rollouts, routes, signals
from ondol.store.connection import Store, Tx

PROJECT = tools.PROJECT.replace(
    "on: [drift], debounce: 0s, cool_down: 0s",
    'on: [drift, quality, "0 3 * * *"], debounce: 30s, cool_down: 1h, attempts: 2, back_off: 1m',
)


pytestmark = pytest.mark.slow


class Killed(BaseException):
    """The process is gone: nothing catches this."""


class FragileStore(Store):
    """A store whose process dies in its n-th write, which is lost."""

    dies_in = 0

    @contextlib.contextmanager
    def write(self) -> Iterator[Tx]:
        """Open a transaction, and die in it when it is time."""
        with super().write() as tx:
            yield tx
            if self.dies_in:
                self.dies_in -= 1
                if not self.dies_in:
                    raise Killed


class Walker:
    """Somebody who walks, one walk at a time, until the test says what comes of it."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.at = ""

    def start(self, model: str, because: str) -> None:
        """Begin a walk."""
        assert model == MODEL
        assert not self.at, "two walks at a time"
        self.begun.append(because)
        self.at = because

    def running(self, model: str) -> bool:
        """Whether one is going on."""
        return bool(self.at)


class LoopMachine(RuleBasedStateMachine):
    """The conductor of one model, its walker, its requests, and a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name)
        self.settings = Settings(home=root / ".ondol", project=root)
        tools.project(self.settings, PROJECT)
        self.store = FragileStore(self.settings.database)
        self.walker, self.versions = Walker(), 1
        self.time = time.time()
        self.first = tools.serving(self.store)
        self.conductor = self._conductor()

    def _conductor(self) -> Conductor:
        self.hands = Hands(retraining=self.walker)
        return Conductor(self.store, self.settings, self.hands, self)

    def now(self) -> float:
        """The clock of the conductor."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Nobody sleeps here."""
        raise AssertionError

    def stable(self) -> str:
        route = routes.get(self.store, MODEL)
        assert route is not None
        return route.stable

    @rule(action=st.sampled_from(["drift", "quality"]), bad=st.booleans())
    def a_look_ends(self, action: str, bad: bool) -> None:
        verdict = {"drift": "drift", "quality": "degraded"}[action] if bad else "stable"
        tools.decided(self.store, action, verdict, release=self.stable())

    @rule()
    def somebody_asks(self) -> None:
        signalling.by_hand(self.store, MODEL, "asked", self.time)

    @rule(held=st.booleans())
    def somebody_holds(self, held: bool) -> None:
        standing.hold(self.store, MODEL, "an audit" if held else "")

    @rule(seconds=st.sampled_from([1, 40, 600, 4000, 90_000]))
    def time_goes_by(self, seconds: int) -> None:
        self.time += seconds

    @rule(dies_in=st.integers(0, 6))
    def the_conductor_looks(self, dies_in: int) -> None:
        self.store.dies_in = dies_in
        try:
            self.conductor.fast()
            self.conductor.slow()
        except Killed:
            self.conductor = self._conductor()
            self.walker.at = self.walker.at if dies_in % 2 else ""  # with or without its child
        self.store.dies_in = 0

    @precondition(lambda self: self.walker.at)
    @rule(outcome=st.sampled_from(["pass", "fail", "failed", "vanished"]))
    def the_walk_ends(self, outcome: str) -> None:
        because, self.walker.at = self.walker.at, ""
        about: dict[str, Any] = {"because": because, "retraining": because, "champion": self.stable()}
        if outcome == "pass":
            self.versions += 1
            digest = tools.release(self.store, str(self.versions))
            loads.put(self.store, MODEL, digest, "Loaded")
            tools.decided(self.store, "gate", "pass", release=digest, **about)
        elif outcome == "fail":
            tools.decided(self.store, "gate", "fail", release="", **about)
        elif outcome == "failed":
            tools.decided(self.store, "retrain", "failed", **about)

    @rule(bad=st.booleans())
    def requests_come(self, bad: bool) -> None:
        tools.requests(self.store, 200, bad_candidate=bad, prefix=ids.new_id("p"))

    @invariant()
    def what_serves_has_passed(self) -> None:
        passed = {
            str(one.evidence.get("release"))
            for one in rollouts.decisions(self.store, MODEL, "gate", limit=1000)
            if one.verdict == "pass"
        }
        assert self.stable() in passed | {self.first}

    @invariant()
    def nothing_failed(self) -> None:
        assert self.hands.errors == {}

    @invariant()
    def no_signal_is_answered_twice(self) -> None:
        found = signals.retrainings(self.store, MODEL, limit=1000)
        answered = [signal for one in found for signal in one.signals]
        assert len(answered) == len(set(answered))
        assert sum(one.state == "started" for one in found) <= 1
        started = [
            one for one in rollouts.decisions(self.store, MODEL, "retrain", limit=1000) if one.verdict == "started"
        ]
        assert len(started) == len(found)
        assert all(self.walker.begun.count(one.id) <= one.attempts <= 2 for one in found)
        keys = [one.key for one in signals.every(self.store, MODEL, limit=1000)]
        assert len(keys) == len(set(keys))

    def teardown(self) -> None:
        """Let everything come to its end."""
        standing.hold(self.store, MODEL, "")
        for _ in range(60):
            self.time += 4000
            self.the_conductor_looks(0)
            if self.walker.at:
                self.the_walk_ends("fail")
            self.requests_come(bad=True)
            route = routes.get(self.store, MODEL)
            assert route is not None
            if not (route.candidate or signals.going_on(self.store, MODEL) or signals.unanswered(self.store, MODEL)):
                break
        else:
            raise AssertionError("it does not come to rest")
        self.what_serves_has_passed()
        self.no_signal_is_answered_twice()
        self.store.close()
        self.folder.cleanup()


TestLoopMachine = LoopMachine.TestCase
TestLoopMachine.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)

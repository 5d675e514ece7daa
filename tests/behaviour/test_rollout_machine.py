"""Any sequence of traffic, verdicts, hands, restarts and clashes leaves one consistent story."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ondol.base import errors
from ondol.records.release import ModelManifest
from ondol.records.rollout import JudgePolicy, Observation, Route
from ondol.rollout import controller, panel, split, watching
from ondol.store import loads, observations, releases, rollouts, routes
from ondol.store.connection import Store

POLICY = JudgePolicy(
    steps=(20.0, 50.0, 100.0), metrics=("error_rate",), margin=0.05, min_requests=10, max_requests=2000, bake_seconds=5
)
POLICIES = (
    POLICY,
    replace(POLICY, steps=(0.0, 20.0, 100.0)),
    replace(POLICY, strategy="blue-green", steps=(0.0, 100.0)),
    replace(POLICY, strategy="shadow", steps=(0.0,)),
    replace(POLICY, strategy="ab", steps=(60.0,), decide_on="error_rate"),
)


class Rollouts(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store(Path(self.folder.name) / "ondol.db")
        self.digests: list[str] = []
        self.served = 0
        self.rolled_back: set[str] = set()

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()

    @initialize()
    def serve(self) -> None:
        for name in "abc":
            self.digests.append(releases.put(self.store, "s", ModelManifest(name, f"file:///{name}")).digest)
        routes.put(self.store, Route("s", "model", self.digests[0]))

    def route(self) -> Route:
        """Return the route as it is, but that units are split alike in every run."""
        route = routes.get(self.store, "s")
        assert route is not None
        return replace(route, salt="salt")

    @rule(which=st.integers(0, 2), policy=st.sampled_from(POLICIES), third=st.booleans())
    def start(self, which: int, policy: JudgePolicy, third: bool) -> None:
        others = {"third": self.digests[(which + 1) % 3]} if third and policy.strategy == "ab" else {}
        try:
            rollout = controller.start(self.store, "s", self.digests[which], policy, others)
        except (errors.ConflictError, errors.StateError):
            return
        assert self.route().rollout == rollout.id

    @rule(n=st.integers(1, 400), broken=st.sampled_from([0.0, 0.0, 0.5]), labelled=st.booleans())
    def traffic(self, n: int, broken: float, labelled: bool) -> None:
        route, batch = self.route(), []
        for index in range(n):
            self.served += 1
            name = f"r{self.served}"
            arm = split.assign(route, name)
            bad = arm == "candidate" and index % 2 < 2 * broken
            batch.append(
                Observation(name, time.time(), "s", "d", arm, name, 500 if bad else 200, 1.0, route.rollout,
                            prediction="0", weight=route.weight)
            )  # fmt: skip
            if route.mirror:
                spoiled = index % 2 < 2 * broken
                batch.append(
                    Observation(name, time.time(), "s", "d", "candidate", name, 500 if spoiled else 200, 1.0,
                                route.rollout, weight=0.0, shadow=True, signals={"primary_status": 200.0})
                )  # fmt: skip
        observations.append(self.store, batch)
        if labelled:
            observations.label(self.store, {one.id: "0" for one in batch})

    @rule(which=st.integers(0, 2), state=st.sampled_from(["Loaded", "Loading", "FailedToLoad"]))
    def load(self, which: int, state: loads.State) -> None:
        loads.put(self.store, "s", self.digests[which], state)

    @rule(later=st.sampled_from([0.0, 10.0]))
    def tick(self, later: float) -> None:
        for decision in controller.tick(self.store, time.time() + later):
            if decision.action == "promote":
                found = {one.release: one.state for one in loads.every(self.store, "s")}
                assert found[decision.evidence["route"]["stable"]] == "Loaded"
        assert controller.tick(self.store, time.time() + later) == [] or self.route().rollout

    @rule()
    def restart(self) -> None:
        for rollout in rollouts.of_service(self.store, "s"):
            watching.forget(self.store, rollout.id)

    @rule(action=st.sampled_from(["promote", "abort", "rollback"]))
    def by_hand(self, action: str) -> None:
        try:
            getattr(controller, action)(self.store, "s", "by hand")
        except (errors.StateError, errors.ConflictError):
            return

    @precondition(lambda self: bool(self.digests))
    @rule(which=st.integers(0, 2))
    def somebody_else_moves_the_route(self, which: int) -> None:
        cleared = replace(self.route().with_variants((), 0.0), rollout="", salt="", previous="")
        routes.put(self.store, replace(cleared, stable=self.digests[which]))

    @invariant()
    def one_story(self) -> None:
        if not self.digests:
            return
        route = self.route()
        every = rollouts.of_service(self.store, "s")
        decisions = rollouts.decisions(self.store, "s", limit=10_000)
        assert sum(one.state == "progressing" for one in every) <= 1
        for rollout in every:
            mine = [one for one in decisions if one.evidence.get("rollout") == rollout.id]
            terminal = [one for one in mine if one.verdict != "progressing"]
            assert len(terminal) == (rollout.state != "progressing")
            if rollout.state != "progressing":
                assert route.rollout != rollout.id
                assert terminal[0].verdict == rollout.state
            if terminal and "facts" in terminal[0].evidence and not terminal[0].evidence.get("by_hand"):
                again, said = panel.replay(terminal[0].evidence), terminal[0].action
                assert again.action == said or (again.action, said) == ("bake", "promote")  # when its time was over
        if route.rollout:
            rollout = rollouts.get(self.store, route.rollout)
            assert rollout.state == "progressing"
            assert (route.weight, route.mirror > 0) == (rollout.weight, rollout.weight == 0)
            assert [one.name for one in route.variants] == [one.name for one in rollout.variants]
            for one in route.variants:
                assert (one.release == rollout.stable) == (one.name in rollout.dropped)
        else:
            assert (route.candidate, route.weight, route.mirror, route.others) == ("", 0.0, 0.0, ())
        assert route.stable in self.digests


TestRollouts = Rollouts.TestCase
TestRollouts.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)

"""Blue/green, A/B, shadow and the guard: what each does on a real store, and how often chance fools it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondol.base import errors
from ondol.records.release import ApplicationManifest, ModelManifest
from ondol.records.rollout import STRATEGIES, Decision, JudgePolicy, Observation, Route
from ondol.rollout import calibration, controller, judge, panel, policies, split
from ondol.store import loads, observations, releases, rollouts, routes
from ondol.store.connection import Store

Answer = Callable[[random.Random, str], dict[str, Any]]
SMALL = JudgePolicy(metrics=("error_rate",), margin=0.05, min_requests=100)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "ondol.db") as opened:
        yield opened


def serve(store: Store, *names: str) -> list[str]:
    """Serve the first release and load the others."""
    digests = [releases.put(store, "s", ModelManifest(name, f"file:///{name}")).digest for name in ("a", *names)]
    routes.put(store, Route("s", "model", digests[0]))
    for digest in digests:
        loads.put(store, "s", digest, "Loaded")
    return digests


def of_strategy(strategy: str, **changes: Any) -> JudgePolicy:
    chosen = {key: tuple(value) if isinstance(value, list) else value for key, value in STRATEGIES[strategy].items()}  # type: ignore[index]
    return replace(SMALL, strategy=strategy, **{**chosen, **changes})  # type: ignore[arg-type]


def route_of(store: Store) -> Route:
    """Return the route as it is, but that units are split alike in every run: else chance would decide some of them."""
    route = routes.get(store, "s")
    assert route is not None
    return replace(route, salt="salt")


def traffic(store: Store, n: int, answer: Answer, seed: int = 0) -> None:
    """Log what the data plane would: each unit's arm by the route, and a copy when requests are mirrored."""
    generator, route, batch = random.Random(seed), route_of(store), []
    for index in range(n):
        name = f"{seed}-{index}"
        arm = split.assign(route, name)
        made = {"status": 200, "latency_ms": 5.0, **answer(generator, arm)}
        batch.append(Observation(name, time.time(), "s", "d", arm, name, rollout=route.rollout, weight=route.weight,
                                 **{key: made[key] for key in made if key != "copy"}))  # fmt: skip
        if route.mirror:
            copy = {"status": 200, "latency_ms": 5.0, **made.get("copy", {})}
            signals = {"primary_status": float(made["status"]), "latency_ratio": 1.0, **copy.pop("signals", {})}
            batch.append(Observation(name, time.time(), "s", "d", route.candidate_name, name, rollout=route.rollout,
                                     weight=route.weight, signals=signals, shadow=True, **copy))  # fmt: skip
    observations.append(store, batch)


def copied(disagree: float = 0.0, failing: float = 0.0) -> Answer:
    def answer(generator: random.Random, _: str) -> dict[str, Any]:
        status = 500 if generator.random() < failing else 200
        signals = {"disagreement": float(generator.random() < disagree)} if status == 200 else {}
        return {"copy": {"status": status, "signals": signals}}

    return answer


def only(decisions: list[Decision]) -> Decision:
    (decision,) = decisions
    again = panel.replay(decision.evidence)
    assert again.reason == decision.reason
    return decision


def test_a_shadow_is_compared_and_nothing_is_moved(store: Store) -> None:
    stable, candidate = serve(store, "b")
    rollout = controller.start(store, "s", candidate, of_strategy("shadow"))
    assert (route_of(store).weight, route_of(store).mirror, route_of(store).candidate) == (0.0, 100.0, candidate)
    traffic(store, 2500, copied(0.001))
    decision = only(controller.tick(store))
    assert (decision.verdict, rollouts.get(store, rollout.id).state) == ("compared", "compared")
    assert (route_of(store).stable, route_of(store).candidate, route_of(store).mirror) == (stable, "", 0.0)
    assert "disagreement 0." in decision.reason


def test_a_shadow_that_answers_otherwise_is_found_before_anybody_saw_it(store: Store) -> None:
    _, candidate = serve(store, "b")
    controller.start(store, "s", candidate, of_strategy("shadow"))
    traffic(store, 600, copied(0.2))
    decision = only(controller.tick(store))
    assert decision.verdict == "rolled_back"
    assert decision.reason.startswith("disagreement")


def test_copies_that_fail_where_stable_does_not_are_harm(store: Store) -> None:
    _, candidate = serve(store, "b")
    controller.start(store, "s", candidate, of_strategy("shadow"))
    traffic(store, 600, copied(failing=0.05))
    assert only(controller.tick(store)).reason.startswith("errors")


def test_labels_compare_an_answer_with_its_copy(store: Store) -> None:
    """Both answered the same requests, so that a small difference shows with few of them."""
    _, candidate = serve(store, "b")
    controller.start(store, "s", candidate, of_strategy("shadow", metrics=("quality",), margin=0.05))

    def answer(generator: random.Random, _: str) -> dict[str, Any]:
        hard = generator.random() < 0.3
        wrong = hard or generator.random() < 0.1
        return {"prediction": "[0]" if hard else "[1]", "copy": {"prediction": "[0]" if wrong else "[1]"}}

    traffic(store, 600, answer)
    observations.label(store, {f"0-{index}": "1" for index in range(600)})
    decision = only(controller.tick(store))
    assert decision.verdict == "rolled_back"
    assert decision.evidence["findings"][0]["paired"] is True


def test_blue_green_moves_everybody_after_a_dark_phase_and_promotes_after_the_bake_time(store: Store) -> None:
    stable, candidate = serve(store, "b")
    controller.start(store, "s", candidate, of_strategy("blue-green", bake_seconds=60.0))
    traffic(store, 2500, copied(0.001))
    assert only(controller.tick(store)).action == "advance"
    route = route_of(store)
    assert (route.weight, route.mirror, route.stable, route.candidate) == (100.0, 0.0, stable, candidate)
    traffic(store, 300, lambda *_: {}, seed=1)
    assert controller.tick(store) == []
    assert only(controller.tick(store, time.time() + 61)).verdict == "promoted"
    assert (route_of(store).stable, route_of(store).previous) == (candidate, stable)


def test_blue_green_goes_back_at_once_when_the_new_one_breaks_under_everybody(store: Store) -> None:
    stable, candidate = serve(store, "b")
    controller.start(store, "s", candidate, of_strategy("blue-green", bake_seconds=60.0))
    traffic(store, 2500, copied())
    controller.tick(store)
    traffic(store, 300, lambda generator, _: {"status": 500 if generator.random() < 0.3 else 200}, seed=2)
    decision = only(controller.tick(store))
    assert decision.verdict == "rolled_back"
    assert "since the candidate serves everybody" in decision.reason
    assert (route_of(store).stable, route_of(store).weight) == (stable, 0.0)


def test_a_canary_may_begin_in_the_dark(store: Store) -> None:
    _, candidate = serve(store, "b")
    policy = replace(SMALL, steps=(0.0, 20.0, 100.0), metrics=("error_rate", "disagreement"))
    controller.start(store, "s", candidate, policy)
    traffic(store, 2500, copied(0.001))
    assert only(controller.tick(store)).action == "advance"
    assert (route_of(store).weight, route_of(store).mirror) == (20.0, 0.0)
    traffic(store, 3000, lambda *_: {}, seed=1)
    assert only(controller.tick(store)).verdict == "promoted"


def scores(**means: float) -> Answer:
    def answer(generator: random.Random, arm: str) -> dict[str, Any]:
        value = min(max(generator.gauss(means.get(arm, 0.6), 0.15), 0.0), 1.0)
        return {"signals": {"quality": value, "cost": generator.lognormvariate(0, 0.3)}}

    return answer


AB = of_strategy("ab", metrics=("error_rate", "quality", "cost"), steps=(66.0,), margin=0.03)


def test_the_better_of_three_arms_is_promoted_and_the_harmful_one_dropped_on_the_way(store: Store) -> None:
    _, second, third = serve(store, "b", "c")
    rollout = controller.start(store, "s", second, AB, {"c": third}, "b")
    assert [one.name for one in route_of(store).variants] == ["b", "c"]
    traffic(store, 900, scores(b=0.3, c=0.61))
    dropped = only(controller.tick(store))
    assert (dropped.action, rollouts.get(store, rollout.id).dropped) == ("drop", ("b",))
    route = route_of(store)
    assert {one.name: one.release for one in route.variants} == {"b": route.stable, "c": third}
    assert controller.tick(store) == []
    traffic(store, 3000, scores(b=0.6, c=0.75), seed=1)
    ended = only(controller.tick(store))
    assert (ended.verdict, route_of(store).stable) == ("promoted", third)
    assert ended.reason.startswith("c: quality better")
    assert controller.rollback(store, "s").evidence["to"] == route.stable


def test_an_a_b_test_may_end_with_no_difference_worth_having(store: Store) -> None:
    stable, second = serve(store, "b")
    controller.start(store, "s", second, replace(AB, steps=(50.0,), metrics=("quality",)))
    traffic(store, 12_000, scores(candidate=0.6))
    decision = only(controller.tick(store))
    assert (decision.verdict, route_of(store).stable) == ("no_difference", stable)
    assert "no difference of 0.03 or more" in decision.reason


def test_an_a_b_test_without_a_difference_declares_a_winner_as_rarely_as_promised() -> None:
    policy = policies.check(replace(AB, steps=(50.0,), metrics=("quality",), max_requests=100_000, alpha=0.05))
    won = 0
    for seed in range(40):
        generator, found = random.Random(seed), judge.Judge(policy)
        for index in range(1500):
            arm = "candidate" if generator.random() < 0.5 else "stable"
            signals = {"quality": min(max(generator.gauss(0.6, 0.3), 0.0), 1.0)}
            found.add(Observation(f"{index}", 1.0, "s", "d", arm, "", 200, 1.0, weight=50.0, signals=signals))
            if index % 250 == 249 and found.verdict(intervals=False).action in ("promote", "roll_back"):
                won += 1
                break
    assert won <= 8  # each side at most 0.045: 3.6 expected at most; P(more than 8) < 2 %


def test_numbers_about_units_decide_once_the_unit_is_known(store: Store) -> None:
    _, second = serve(store, "b")
    policy = replace(AB, steps=(50.0,), metrics=("revenue:higher",), decide_on="revenue:higher", min_requests=50)
    rollout = controller.start(store, "s", second, policy)
    names = [f"0-{index}" for index in range(1200)]
    value = {name: 15.0 if split.assign(route_of(store), name) == "candidate" else 5.0 for name in names}
    early = {name: {"revenue": value[name]} for name in names[:600]}
    assert observations.signal_units(store, rollout.id, early) == 600
    assert observations.signal_units(store, rollout.id, early) == 0  # once is once
    traffic(store, 1200, lambda *_: {})
    observations.signal_units(store, rollout.id, {name: {"revenue": value[name]} for name in names[600:]})
    assert only(controller.tick(store)).verdict == "promoted"


def test_the_guard_stops_a_catastrophe_whatever_is_compared() -> None:
    found = judge.Judge(policies.check(replace(SMALL, metrics=("quality",))))
    for index in range(40):
        found.add(Observation(f"s{index}", 1.0, "s", "d", "stable", "", 200, 1.0, weight=10.0))
    for index in range(3):
        assert found.verdict(intervals=False).action == "go_on"
        found.add(Observation(f"c{index}", 1.0, "s", "d", "candidate", "", 503, 1.0, weight=10.0))
    verdict = found.verdict()
    assert verdict.action == "roll_back"
    assert "with probability 0.001 at most" in verdict.reason


def test_the_guard_is_fooled_by_chance_as_rarely_as_promised() -> None:
    """Every request fails in both arms: the worst that can happen to a guard."""
    generator, fired = np.random.default_rng(1), 0
    policy = policies.check(replace(SMALL, metrics=("quality",), alpha=0.1))
    for _ in range(1500):
        found = judge.Judge(policy)
        for index, mine in enumerate(generator.random(20) < 0.3):
            arm = "candidate" if mine else "stable"
            found.add(Observation(f"{index}", 1.0, "s", "d", arm, "", 503, 1.0, weight=30.0))
            if found.verdict(intervals=False).action == "roll_back":
                fired += 1
                break
            if not mine:
                break  # stable has failed: the guard is silent from here on
    assert fired <= 27  # 1 % of 1500 is 15; P(more than 27) < 0.2 %


@pytest.mark.parametrize("weight", [0.01, 0.1, 0.5])
def test_a_computed_line_is_crossed_as_rarely_as_promised_and_lower_than_ville_s(weight: float) -> None:
    alpha = 0.005
    line = calibration.line(weight, calibration.threshold(weight, alpha))
    exact = calibration.crossing(line, weight)
    assert 0.8 * alpha < exact <= alpha
    assert calibration.crossing(line, weight / 2) < exact  # a candidate that is better is stopped more rarely
    generator = np.random.default_rng(3)
    walks = np.cumsum(generator.random((4000, calibration.MOST)) < weight, axis=1)
    stable = np.arange(1, calibration.MOST + 1) - walks
    crossed = (walks >= line[stable]).any(axis=1).mean()
    assert abs(crossed - exact) < 0.004
    assert (line <= calibration.line(weight, -np.log(alpha))).all()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"strategy": "ab", "steps": (50.0,)}, "decide_on"),
        ({"strategy": "shadow", "steps": (0.0,), "metrics": ("cost",)}, "metrics"),
        ({"metrics": ("disagreement",)}, "metrics"),
        ({"strategy": "blue-green"}, "steps"),
        ({"metrics": ("latency_p0",)}, "metrics"),
    ],
)
def test_a_strategy_that_cannot_be_followed_is_refused_by_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.InputError, match=field):
        policies.check(replace(SMALL, **changes))


def test_variants_that_make_no_sense_are_refused(store: Store) -> None:
    _, second, third = serve(store, "b", "c")
    with pytest.raises(errors.InputError, match="strategy 'canary'"):
        controller.start(store, "s", second, SMALL, {"c": third})
    with pytest.raises(errors.InputError, match="'stable'"):
        controller.start(store, "s", second, AB, {"stable": third})
    controller.start(store, "s", second, AB, {"c": third})
    with pytest.raises(errors.NotFoundError, match="'d'"):
        controller.promote(store, "s", variant="d")
    assert controller.promote(store, "s", variant="c").evidence["by_hand"] is True
    assert route_of(store).stable == third


def test_a_dark_step_of_an_application_is_refused(store: Store) -> None:
    first, second = (releases.put(store, "chat", ApplicationManifest(llm=name)).digest for name in "ab")
    routes.put(store, Route("chat", "application", first))
    with pytest.raises(errors.UnsupportedError, match="LLM application"):
        controller.start(store, "chat", second, of_strategy("shadow"))

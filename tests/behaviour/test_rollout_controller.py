"""Rollouts carried out on a real store."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ondol.app.demo import trial
from ondol.base import errors
from ondol.records.release import ModelManifest
from ondol.records.rollout import JudgePolicy, Observation, Rollout, Route
from ondol.rollout import controller, panel, split, watching
from ondol.store import loads, observations, releases, rollouts, routes
from ondol.store.connection import Store
from ondol.ui import evidence_plots
from ondol.ui.words import Words

POLICY = JudgePolicy(metrics=("error_rate",), margin=0.02, min_requests=100)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "ondol.db") as opened:
        yield opened


def release(store: Store, artifact: str) -> str:
    return releases.put(store, "s", ModelManifest(artifact, f"file:///{artifact}")).digest


def serve(store: Store) -> tuple[str, str]:
    stable, candidate = release(store, "a"), release(store, "b")
    routes.put(store, Route("s", "model", stable))
    return stable, candidate


def traffic(store: Store, n: int, *, broken: float = 0.0, seed: int = 0) -> None:
    """What the data plane would log: every request assigned by the route as it is now."""
    generator, route, batch = random.Random(seed), route_of(store), []
    for index in range(n):
        name = f"{seed}-{index}"
        arm = split.assign(route, name)
        bad = generator.random() < (broken if arm == "candidate" else 0.0)
        batch.append(
            Observation(
                name, time.time(), "s", route.stable, arm, name, 500 if bad else 200, 5.0,
                rollout=route.rollout, weight=route.weight,
            )
        )  # fmt: skip
    observations.append(store, batch)


def route_of(store: Store) -> Route:
    """Return the route as it is, but that units are split alike in every run: else chance would decide some of them."""
    route = routes.get(store, "s")
    assert route is not None
    return replace(route, salt="salt")


def only(store: Store) -> Rollout:
    found = rollouts.of_service(store, "s")
    assert len(found) == 1
    return found[0]


def test_a_good_candidate_serves_everybody_once_it_is_loaded_and_the_old_one_stays_warm(store: Store) -> None:
    stable, candidate = serve(store)
    rollout = controller.start(store, "s", candidate, POLICY)
    assert (route_of(store).weight, route_of(store).rollout) == (10.0, rollout.id)
    traffic(store, 8000)
    assert controller.tick(store) == []  # nobody has loaded it
    loads.put(store, "s", candidate, "Loaded")
    (decision,) = controller.tick(store)
    assert (decision.action, decision.verdict) == ("promote", "promoted")
    route = route_of(store)
    assert (route.stable, route.candidate, route.previous) == (candidate, "", stable)
    again = panel.replay(decision.evidence)
    assert (again.action, again.reason) == ("promote", decision.reason)
    assert controller.tick(store) == []
    assert controller.tick(store, time.time() + 31) == []
    assert route_of(store).previous == ""  # the bake time is over


def test_a_bad_candidate_goes_by_itself_and_the_rows_prove_it(store: Store) -> None:
    stable, candidate = serve(store)
    rollout = controller.start(store, "s", candidate, POLICY)
    traffic(store, 2000, broken=0.3)
    (decision,) = controller.tick(store)
    assert (decision.action, only(store).state) == ("roll_back", "rolled_back")
    route = route_of(store)
    assert (route.stable, route.candidate, route.weight, route.previous) == (stable, "", 0.0, "")
    seen = [one for seq, one in observations.of_rollout(store, rollout.id)]
    raw = panel.recompute(seen, rollout.policy, decision.evidence["step_times"])
    assert (raw.action, raw.reason) == ("roll_back", decision.reason)


def test_labels_that_arrive_later_count(store: Store) -> None:
    _, candidate = serve(store)
    controller.start(store, "s", candidate, replace(POLICY, metrics=("quality",)))
    route = route_of(store)
    batch = [
        Observation(
            f"q{index}", time.time(), "s", "d", split.assign(route, f"q{index}"), "", 200, 5.0,
            rollout=route.rollout, prediction="[0]", weight=10.0,
        )
        for index in range(3000)
    ]  # fmt: skip
    observations.append(store, batch[:2000])
    assert controller.tick(store) == []
    # half of the labels after their requests were judged, half before their requests were even logged
    observations.label(store, {one.id: "1" if one.arm == "candidate" else "0" for one in batch[1500:]})
    observations.append(store, batch[2000:])
    (decision,) = controller.tick(store)
    assert decision.action == "roll_back"
    metric = decision.evidence["facts"]["metrics"][0]
    assert metric["stable_n"] + metric["candidate_n"] == 1500


def test_steps_are_climbed_and_nobody_leaves_the_candidate_on_the_way(store: Store) -> None:
    _, candidate = serve(store)
    controller.start(store, "s", candidate, replace(POLICY, steps=(10.0, 50.0, 100.0)))
    loads.put(store, "s", candidate, "Loaded")
    before = {unit for unit in map(str, range(1000)) if split.assign(route_of(store), unit) == "candidate"}
    traffic(store, 2000, seed=1)
    (decision,) = controller.tick(store)
    assert (decision.action, route_of(store).weight) == ("advance", 50.0)
    after = {unit for unit in map(str, range(1000)) if split.assign(route_of(store), unit) == "candidate"}
    assert before < after
    assert controller.tick(store) == []  # the new step wants requests of its own
    traffic(store, 4000, seed=2)
    assert [one.action for one in controller.tick(store)] == ["promote"]
    assert [one.action for one in rollouts.decisions(store, "s")] == ["promote", "advance", "start"]


def test_a_candidate_that_cannot_be_loaded_is_rolled_back_with_the_reason(store: Store) -> None:
    _, candidate = serve(store)
    controller.start(store, "s", candidate, POLICY)
    loads.put(store, "s", candidate, "FailedToLoad", "no module named 'xgboost'")
    (decision,) = controller.tick(store)
    assert decision.action == "roll_back"
    assert "xgboost" in decision.reason


def test_start_is_idempotent_and_refuses_what_makes_no_sense(store: Store) -> None:
    stable, candidate = serve(store)
    first = controller.start(store, "s", candidate, POLICY)
    assert controller.start(store, "s", candidate, POLICY) == first
    with pytest.raises(errors.ConflictError, match="another candidate"):
        controller.start(store, "s", release(store, "c"), POLICY)
    controller.abort(store, "s")
    with pytest.raises(errors.StateError, match="serves 's' already"):
        controller.start(store, "s", stable, POLICY)
    with pytest.raises(errors.NotFoundError, match="'nobody'"):
        controller.start(store, "nobody", candidate, POLICY)
    assert controller.start(store, "s", candidate, POLICY).id != first.id


def test_by_hand(store: Store) -> None:
    stable, candidate = serve(store)
    controller.start(store, "s", candidate, POLICY)
    with pytest.raises(errors.StateError, match="not loaded"):
        controller.promote(store, "s")
    loads.put(store, "s", candidate, "Loaded")
    decision = controller.promote(store, "s", "the release notes say so")
    assert decision.evidence["by_hand"] is True
    assert route_of(store).stable == candidate
    back = controller.rollback(store, "s", "customers call")
    assert (back.evidence["from"], back.evidence["to"]) == (candidate, stable)
    assert (route_of(store).stable, route_of(store).previous) == (stable, "")
    with pytest.raises(errors.StateError, match="no earlier release"):
        controller.rollback(store, "s")
    with pytest.raises(errors.StateError, match="no candidate on trial"):
        controller.abort(store, "s")


def test_rollback_after_the_bake_time_and_during_a_trial(store: Store) -> None:
    stable, candidate = serve(store)
    controller.start(store, "s", candidate, POLICY)
    loads.put(store, "s", candidate, "Loaded")
    controller.promote(store, "s")
    controller.tick(store, time.time() + 100)
    assert route_of(store).previous == ""
    controller.rollback(store, "s")
    assert route_of(store).stable == stable
    controller.start(store, "s", candidate, POLICY)
    assert controller.rollback(store, "s").verdict == "rolled_back"
    assert route_of(store).candidate == ""


def test_a_route_taken_over_by_somebody_else_ends_the_rollout(store: Store) -> None:
    _, candidate = serve(store)
    controller.start(store, "s", candidate, POLICY)
    other = release(store, "c")
    routes.put(store, replace(route_of(store), stable=other, candidate="", weight=0.0, rollout=""))
    traffic(store, 10)
    observations.append(
        store,
        [Observation(f"x{i}", time.time(), "s", "d", "candidate", "", 500, 1.0, only(store).id) for i in range(9)],
    )
    (decision,) = controller.tick(store)
    assert (decision.action, only(store).state, route_of(store).stable) == ("abort", "aborted", other)


def test_a_judge_built_again_says_the_same(store: Store) -> None:
    _, candidate = serve(store)
    rollout = controller.start(store, "s", candidate, replace(POLICY, min_requests=5000))
    for seed in range(3):
        traffic(store, 700, broken=0.01, seed=seed)
        watching.verdict(store, rollout)
    warm = watching.verdict(store, rollout)
    watching.forget(store, rollout.id)
    assert watching.verdict(store, rollout) == warm


def test_scores_and_business_numbers_that_arrive_later_count_once(store: Store) -> None:
    _, candidate = serve(store)
    rollout = controller.start(store, "s", candidate, replace(POLICY, metrics=("quality", "revenue:higher")))
    route = route_of(store)
    batch = [
        Observation(f"q{index}", time.time(), "s", "d", split.assign(route, f"q{index}"), "", 200, 5.0,
                    rollout=route.rollout, weight=10.0, signals={"quality": 0.9} if index < 100 else {})
        for index in range(3000)
    ]  # fmt: skip
    values = {one.id: {"quality": 0.2 if one.arm == "candidate" else 0.9, "revenue": 5.0} for one in batch}
    observations.signal(store, dict(list(values.items())[1500:]))  # before the requests are logged
    observations.append(store, batch[:1000])
    watching.verdict(store, rollout)
    assert observations.signal(store, dict(list(values.items())[:1500])) == 3000
    assert observations.signal(store, dict(list(values.items())[:10])) == 0
    observations.append(store, batch[1000:])
    (decision,) = controller.tick(store)
    assert decision.action == "roll_back"
    assert decision.reason.startswith("loss worse by")
    revenue = decision.evidence["facts"]["metrics"][1]
    assert revenue["stable_n"] + revenue["candidate_n"] == 3000
    drawn = [title for title, _ in evidence_plots.of_rollout(store, only(store), Words("en"))]
    assert "revenue:higher: candidate − stable, 95 % at all times" in drawn
    with pytest.raises(errors.InputError, match="nan"):
        observations.signal(store, {"q1": {"quality": float("nan")}})


def test_a_trial_is_given_up_once_and_not_after_its_verdict(store: Store) -> None:
    """The demo runs out of requests while the judge decides: whoever is first counts, and neither is an error."""
    _, candidate = serve(store)
    undecided = controller.start(store, "s", candidate, POLICY)
    assert trial.give_up(store, undecided, "no more requests").state == "aborted"
    assert trial.give_up(store, undecided, "again").reason.endswith("no more requests")
    decided = controller.start(store, "s", candidate, POLICY)
    loads.put(store, "s", candidate, "Loaded")
    controller.promote(store, "s")
    assert trial.give_up(store, decided, "no more requests").state == "promoted"

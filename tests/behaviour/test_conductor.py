"""The conductor on a real store: what it does from what is on record, once, and whatever else fails."""

from __future__ import annotations

import threading

import pytest
from tests.behaviour import loop_tools as tools
from tests.behaviour.loop_tools import MODEL, Shelf, Trainer

from ondol.base.settings import Settings
from ondol.formats import project as projects
from ondol.loop import standing
from ondol.loop.conductor import Conductor, Hands
from ondol.store import loads, rollouts, routes
from ondol.store.connection import Store


@pytest.fixture
def conducted(home: Settings, store: Store) -> tuple[Conductor, Shelf, Trainer]:
    tools.project(home)
    shelf, trainer = Shelf(), Trainer()
    return Conductor(store, home, Hands(registry=shelf, retraining=trainer)), shelf, trainer


def test_a_release_that_passed_is_tried_once_by_however_many_conductors(home: Settings, store: Store) -> None:
    tools.project(home)
    tools.serving(store)
    candidate = tools.passed(store, "2")
    both = [Conductor(store, home, Hands()), Conductor(store, home, Hands())]
    threads = [threading.Thread(target=lambda c=one: [c.slow() for _ in range(4)]) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (rollout,) = rollouts.of_service(store, MODEL)
    assert (rollout.candidate, rollout.state) == (candidate, "progressing")
    assert tools.actions(store) == ["gate", "start"]


def test_a_release_without_one_that_serves_waits(store: Store, conducted: tuple[Conductor, Shelf, Trainer]) -> None:
    tools.passed(store, "1")
    conducted[0].slow()
    assert tools.actions(store) == ["gate"]


def test_only_the_newest_that_waits_is_tried(
    home: Settings, store: Store, conducted: tuple[Conductor, Shelf, Trainer]
) -> None:
    tools.serving(store)
    older = [tools.passed(store, version) for version in "23"]
    newest = tools.passed(store, "4")
    for _ in range(3):
        conducted[0].slow()
    assert [one.candidate for one in rollouts.of_service(store, MODEL)] == [newest]
    given_up = rollouts.decisions(store, MODEL, "supersede")
    assert sorted(str(one.evidence["release"]) for one in given_up) == sorted(older)
    assert not conducted[0].state(MODEL, projects.load(home.project)).waiting


def test_a_good_candidate_is_promoted_and_the_alias_follows(
    store: Store, conducted: tuple[Conductor, Shelf, Trainer]
) -> None:
    conductor, shelf, _ = conducted
    tools.serving(store)
    candidate = tools.passed(store, "2")
    conductor.slow()
    for _ in range(40):
        tools.requests(store, 200)
        conductor.fast()
        conductor.slow()
        if tools.actions(store, "promote"):
            break
        assert shelf.moved == []  # a candidate on trial is no champion
        assert not tools.actions(store, "roll_back")
        loads.put(store, MODEL, candidate, "Loaded")
    conductor.slow()
    route = routes.get(store, MODEL)
    assert route is not None
    assert (route.stable, route.candidate) == (candidate, "")
    assert shelf.moved == ["2"]
    assert [one for one in tools.actions(store) if one != "advance"] == ["gate", "start", "promote", "alias"]


def test_a_bad_candidate_is_rolled_back_and_never_tried_again(
    store: Store, conducted: tuple[Conductor, Shelf, Trainer]
) -> None:
    conductor, shelf, _ = conducted
    stable = tools.serving(store)
    candidate = tools.passed(store, "2")
    loads.put(store, MODEL, candidate, "Loaded")
    conductor.slow()
    for _ in range(20):
        tools.requests(store, 200, bad_candidate=True)
        conductor.fast()
    tools.passed(store, "2")  # the same release passes its gate again
    for _ in range(3):
        conductor.slow()
    route = routes.get(store, MODEL)
    assert route is not None
    assert (route.stable, route.candidate) == (stable, "")
    assert tools.actions(store, "start", "roll_back", "promote", "alias") == ["start", "roll_back"]
    assert shelf.moved == []


def test_an_alias_that_somebody_moved_is_moved_back(store: Store, conducted: tuple[Conductor, Shelf, Trainer]) -> None:
    conductor, shelf, _ = conducted
    tools.serving(store)
    shelf.aliases["champion"] = "7"
    conductor.slow()
    conductor.slow()
    assert shelf.moved == ["1"]
    (decision,) = rollouts.decisions(store, MODEL, "alias")
    assert "version 1" in decision.reason


def test_an_alias_moved_to_a_release_that_was_never_tried_is_a_proposal(
    store: Store, conducted: tuple[Conductor, Shelf, Trainer]
) -> None:
    conductor, shelf, _ = conducted
    stable = tools.serving(store)
    proposed = tools.release(store, "2")
    loads.put(store, MODEL, proposed, "Loaded")
    shelf.aliases["champion"] = "2"
    conductor.slow()
    assert [one.candidate for one in rollouts.of_service(store, MODEL)] == [proposed]
    assert shelf.moved == []
    for _ in range(20):
        tools.requests(store, 200, bad_candidate=True)
        conductor.fast()
    conductor.slow()
    conductor.slow()
    route = routes.get(store, MODEL)
    assert route is not None
    assert (route.stable, route.candidate) == (stable, "")
    assert shelf.moved == ["1"]
    assert tools.actions(store) == ["start", "roll_back", "alias"]


def test_drift_is_answered_by_one_retraining(store: Store, conducted: tuple[Conductor, Shelf, Trainer]) -> None:
    conductor, _, trainer = conducted
    stable = tools.serving(store)
    drift = tools.decided(store, "drift", "drift", release=stable)
    conductor.slow()
    assert trainer.started == [drift]
    trainer.busy = True
    conductor.slow()
    tools.decided(store, "gate", "fail", because=drift, champion=stable, release="")
    trainer.busy = False
    conductor.slow()
    tools.decided(store, "drift", "drift", release=stable)  # the next window drifts as well: the same would come of it
    conductor.slow()
    assert trainer.started == [drift]
    assert tools.actions(store, "retrain") == ["retrain"]


def test_a_retraining_that_vanished_is_started_again_and_decided_once(
    store: Store, conducted: tuple[Conductor, Shelf, Trainer]
) -> None:
    conductor, _, trainer = conducted
    drift = tools.decided(store, "drift", "drift", release=tools.serving(store))
    conductor.slow()
    conductor.slow()  # nobody retrains, and nothing came of it: it was killed
    assert trainer.started == [drift, drift]
    assert tools.actions(store, "retrain") == ["retrain"]


def test_a_retraining_that_failed_is_not_tried_for_ever(
    store: Store, conducted: tuple[Conductor, Shelf, Trainer]
) -> None:
    conductor, _, trainer = conducted
    stable = tools.serving(store)
    drift = tools.decided(store, "drift", "drift", release=stable)
    conductor.slow()
    tools.decided(store, "retrain", "failed", because=drift, release=stable)
    conductor.slow()
    assert trainer.started == [drift]


@pytest.mark.parametrize("why", ["held", "stable since", "another release", "on trial", "not asked for"])
def test_when_drift_starts_nothing(
    home: Settings, store: Store, conducted: tuple[Conductor, Shelf, Trainer], why: str
) -> None:
    conductor, _, trainer = conducted
    stable = tools.serving(store)
    tools.decided(store, "drift", "drift", release="gone" if why == "another release" else stable)
    if why == "held":
        standing.hold(store, MODEL, "an audit")
    elif why == "stable since":
        tools.decided(store, "drift", "stable", release=stable)
    elif why == "on trial":
        tools.passed(store, "2")
    elif why == "not asked for":
        tools.project(home, tools.PROJECT.replace("retrain: {on: [drift]}", ""))
    for _ in range(2):
        conductor.slow()
    assert trainer.started == []
    assert tools.actions(store, "retrain") == []
    if why == "held":
        standing.hold(store, MODEL, "")
        conductor.slow()
        assert len(trainer.started) == 1


class Broken:
    """A registry that is away."""

    def mirror(self) -> int:
        raise OSError("no MLflow")

    def models(self) -> list[object]:
        raise OSError("no MLflow")

    def set_alias(self, name: str, alias: str, version: str) -> None:
        raise OSError("no MLflow")


def test_one_hand_that_fails_does_not_tie_the_others(home: Settings, store: Store) -> None:
    tools.project(home)
    tools.serving(store)
    reconciled: list[int] = []

    def fails() -> None:
        raise RuntimeError("this controller is broken")

    hands = Hands(reconcile=[fails, lambda: reconciled.append(1)], registry=Broken())  # type: ignore[arg-type]
    conductor = Conductor(store, home, hands)
    candidate = tools.passed(store, "2")
    conductor.slow()
    loads.put(store, MODEL, candidate, "Loaded")
    for _ in range(20):
        tools.requests(store, 200, bad_candidate=True)
        conductor.fast()
    assert len(reconciled) == 20
    assert hands.errors["controller 0"] == "this controller is broken"
    assert hands.errors["mirror"] == "no MLflow"
    assert tools.actions(store, "start", "roll_back") == ["start", "roll_back"]


def test_a_broken_project_file_stops_no_trial_and_is_said(home: Settings, store: Store) -> None:
    tools.project(home)
    tools.serving(store)
    candidate = tools.passed(store, "2")
    hands = Hands()
    conductor = Conductor(store, home, hands)
    conductor.slow()
    loads.put(store, MODEL, candidate, "Loaded")
    tools.project(home, "models: [not, a, mapping]")
    for _ in range(20):
        tools.requests(store, 200, bad_candidate=True)
        conductor.fast()
        conductor.slow()
    assert tools.actions(store, "start", "roll_back") == ["start", "roll_back"]
    assert "project" in hands.errors
    tools.project(home)
    conductor.slow()
    assert "project" not in hands.errors


def test_it_stops_when_told_to(home: Settings, store: Store) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=Conductor(store, home, Hands()).run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(10)
    assert not thread.is_alive()

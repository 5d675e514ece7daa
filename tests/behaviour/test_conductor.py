"""The conductor on a real store: what it does from what is on record, once, and whatever else fails."""

from __future__ import annotations

import sqlite3
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from tests.behaviour import loop_tools as tools
from tests.behaviour.loop_tools import MODEL, Shelf, Trainer

from ondol.base.settings import Settings
from ondol.formats import project as projects
from ondol.loop import actions, alarms, fingerprints, standing
from ondol.loop import signals as signalling
from ondol.loop.conductor import Conductor, Hands
from ondol.store import alerts, loads, rollouts, routes, signals
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
    tools.decided(store, "drift", "drift", release=stable)
    conductor.slow()
    (retraining,) = trainer.started
    trainer.busy = True
    conductor.slow()
    tools.decided(store, "gate", "fail", because=retraining, champion=stable, release="")
    trainer.busy = False
    conductor.slow()
    tools.decided(store, "drift", "drift", release=stable)  # the next window drifts as well: the same would come of it
    conductor.slow()
    assert trainer.started == [retraining]
    assert tools.actions(store, "retrain") == ["retrain"]
    (answered,) = signals.retrainings(store, MODEL)
    assert (answered.state, answered.verdict) == ("done", "fail")
    assert [one.retraining for one in signals.every(store, MODEL)] == [retraining]


class Hours:
    """A clock that is moved by hand."""

    def __init__(self, start: float) -> None:
        self.time = start

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def test_a_retraining_that_fails_or_vanishes_is_tried_again_ever_later_and_given_up(
    home: Settings, store: Store
) -> None:
    tools.project(home)
    tools.decided(store, "drift", "drift", release=tools.serving(store))
    trainer, hours = Trainer(), Hours(time.time())
    conductor = Conductor(store, home, Hands(retraining=trainer), hours)
    begun: list[int] = []
    for second in range(1000):
        conductor.slow()
        if len(trainer.started) > len(begun):
            begun.append(second)
            tools.decided(store, "retrain", "failed", retraining=trainer.started[-1])
        hours.sleep(1)
    assert begun == [0, 60, 180]  # 3 attempts; one minute, two minutes, four minutes
    assert len(set(trainer.started)) == 1
    said = [one.verdict for one in reversed(rollouts.decisions(store, MODEL, "retrain"))]
    assert said == ["started", *["failed"] * 3, "given up"]
    assert rollouts.decisions(store, MODEL, "retrain")[0].reason == (
        "3 walks came to no gate, the last one because of: because the test says so; "
        "the champion stays: `ondol loop retrain m` tries again"
    )
    signalling.by_hand(store, MODEL, "try again", hours.now())
    conductor.slow()
    assert len(set(trainer.started)) == 2
    alarms.look(store)
    assert sorted(one.kind for one in alerts.every(store)) == ["drift", *["retrain"] * 4]


def test_signals_are_debounced_answered_together_and_cooled_down(home: Settings, store: Store) -> None:
    tools.project(
        home,
        tools.PROJECT.replace(
            "on: [drift], debounce: 0s, cool_down: 0s", "on: [drift, quality], debounce: 30s, cool_down: 1h"
        ),
    )
    stable = tools.serving(store)
    trainer, hours = Trainer(), Hours(time.time())
    conductor = Conductor(store, home, Hands(retraining=trainer), hours)
    tools.decided(store, "drift", "drift", release=stable)
    conductor.slow()
    hours.sleep(20)
    tools.decided(store, "quality", "degraded", release=stable)
    conductor.slow()
    assert trainer.started == []
    assert "debounce" in actions.waits_for(conductor.state(MODEL, projects.load(home.project)))
    hours.sleep(11)
    conductor.slow()
    assert len(trainer.started) == 1
    assert len(signals.retrainings(store, MODEL)[0].signals) == 2
    tools.decided(store, "gate", "fail", because=trainer.started[0], champion=stable, release="")
    conductor.slow()
    route, other = routes.get(store, MODEL), tools.release(store, "2")
    assert route is not None
    routes.put(store, replace(route, stable=other))
    tools.decided(store, "drift", "drift", release=other)
    for _ in range(3):
        hours.sleep(1000)
        conductor.slow()
    assert len(trainer.started) == 1
    hours.sleep(1000)
    conductor.slow()
    assert len(trainer.started) == 2
    signalling.by_hand(store, MODEL, "now", hours.now())
    tools.decided(store, "gate", "fail", because=trainer.started[1], champion=other, release="")
    conductor.slow()
    conductor.slow()
    assert len(trainer.started) == 3  # a person waits for nothing


def test_a_schedule_that_was_missed_is_caught_up_once(home: Settings, store: Store) -> None:
    tools.project(home, tools.PROJECT.replace("on: [drift]", 'on: ["0 3 * * *"], timezone: Asia/Seoul'))
    stable = tools.serving(store)
    trainer, hours = Trainer(), Hours(datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp())
    conductor = Conductor(store, home, Hands(retraining=trainer), hours)
    conductor.slow()
    assert trainer.started == []  # what was due before is nobody's
    hours.sleep(5 * 86_400)  # nobody looked for five days
    conductor.slow()
    conductor.slow()
    assert len(trainer.started) == 1
    (heard,) = signals.every(store, MODEL)
    assert heard.key.endswith("2026-11-24T18:00:00.000Z")  # three in the morning in Seoul
    tools.decided(store, "gate", "fail", because=trainer.started[0], champion=stable, release="")
    hours.sleep(86_400)
    conductor.slow()
    conductor.slow()
    assert len(trainer.started) == 2


def test_new_data_and_changed_files_are_heard_once_a_walk(home: Settings, store: Store) -> None:
    text = tools.PROJECT.replace("on: [drift]", "on: [data, change], data: ['data/*.csv', 'sqlite:///t.db#rows']")
    tools.project(home, text)
    stable = tools.serving(store)
    (home.project / "data").mkdir()
    (home.project / "data/a.csv").write_text("1")
    (home.project / "pipeline.py").write_text("a pipeline")
    table = sqlite3.connect(home.project / "t.db")
    table.execute("CREATE TABLE rows (x)")
    table.commit()
    project, trainer = projects.load(home.project), Trainer()
    conductor = Conductor(store, home, Hands(retraining=trainer))

    def heard() -> list[str]:
        for _ in range(3):
            conductor.slow()
        kinds = [str(one.kind) for one in signals.unanswered(store, MODEL)]
        if trainer.started and (going_on := signals.going_on(store, MODEL)):
            kinds = [one.kind for one in signals.every(store, MODEL) if one.retraining == going_on.id]
            fingerprints.walked(store, home.project, project, MODEL)
            tools.decided(store, "gate", "fail", because=going_on.id, champion=stable, release="")
            conductor.slow()
        return kinds

    assert heard() == []
    (home.project / "data/b.csv").write_text("2")
    assert heard() == ["data"]
    assert heard() == []
    (home.project / "data/b.csv").unlink()  # as it was before: news all the same
    assert heard() == ["data"]
    table.execute("INSERT INTO rows VALUES (1)")
    table.commit()
    table.close()
    assert heard() == ["data"]
    (home.project / "pipeline.py").write_text("another pipeline")
    assert heard() == ["change"]
    (changed,) = (one for one in signals.every(store, MODEL) if one.kind == "change")
    assert changed.reason.endswith("since the last walk: pipeline.py or what ondol.yaml says of it")
    assert heard() == []
    assert len(trainer.started) == 4


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
        tools.project(home, tools.PROJECT.replace("on: [drift], ", ""))
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
    thread.join(120)
    assert not thread.is_alive()

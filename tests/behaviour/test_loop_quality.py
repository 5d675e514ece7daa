"""The quality watch on requests whose truth is known: silent while nothing changes, loud when the answers get worse."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from tests.behaviour import loop_tools as tools
from tests.behaviour.loop_tools import MODEL

from ondol.base.settings import Settings
from ondol.loop import quality
from ondol.monitoring.request_archive import Archive
from ondol.records.project import MonitorSpec
from ondol.records.rollout import Decision, JudgePolicy, Observation
from ondol.store import observations, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

SPEC = quality.Watched(
    MonitorSpec(window=400, alpha=0.05, blocks=10), JudgePolicy(margin=0.02), ("city",), ("city", "x")
)


@dataclass
class Labelled:
    """A service whose requests get their labels afterwards."""

    store: Store
    blobs: Blobs
    release: str
    random: np.random.Generator
    sent: int = 0

    def window(self, noise: float = 0.0, only: str = "", archive: bool = False, others: int = 0) -> Decision | None:
        """Answer and label one window: `noise` is the share of answers that are drawn at random, in one city or all.

        :param others: labelled requests of another service that come with each.
        """
        rows, labels = [], {}
        for _ in range(400):
            self.sent += 1
            city = str(self.random.choice(["seoul", "busan"]))
            chance = float(self.random.uniform(0.02, 0.98))
            truth = int(self.random.random() < chance)
            wrong = self.random.random() < noise and only in ("", city)
            said = float(self.random.uniform(0.02, 0.98)) if wrong else chance
            features = json.dumps([{"city": city, "x": 1.0}])
            one = Observation(f"r{self.sent}", time.time() - 100, MODEL, self.release, "stable", "u", 200, 1.0)
            rows.append(replace(one, features=features, prediction=json.dumps([said])))
            labels[one.id] = str(truth)
            for number in range(others):
                rows.append(replace(one, id=f"{one.id}-{number}", service="another"))
                labels[rows[-1].id] = str(truth)
        observations.append(self.store, rows)
        if archive:
            assert Archive(self.store, self.blobs).compact(MODEL, time.time(), least=1) >= 400
        observations.label(self.store, labels)
        with self.store.write() as tx:
            tx.execute("UPDATE labels SET at = at - 10", ())
        return self.look()

    def look(self) -> Decision | None:
        return quality.look(self.store, self.blobs, MODEL, SPEC)


@pytest.fixture
def labelled(home: Settings, store: Store) -> Labelled:
    return Labelled(store, Blobs(home.blobs), tools.serving(store), np.random.default_rng(3))


def test_the_first_window_is_the_promise_and_what_keeps_it_is_stable(labelled: Labelled) -> None:
    assert labelled.look() is None
    found = [labelled.window(archive=number == 2) for number in range(12)]
    verdicts = [one.verdict if one else "" for one in found]
    assert verdicts == ["baseline"] + ["stable"] * 11
    assert labelled.look() is None
    last = found[-1]
    assert last is not None
    assert 0 < last.evidence["current"]["calibration_error"] < 0.1
    assert {one["slice"] for one in last.evidence["tests"]} == {"", "city=seoul", "city=busan"}


def test_worse_answers_are_found_also_after_months_and_in_one_slice(labelled: Labelled) -> None:
    labelled.window()
    for _ in range(3):
        labelled.window()
    worse = labelled.window(noise=1.0, archive=True)
    assert worse is not None
    assert (worse.verdict, worse.evidence["release"]) == ("degraded", labelled.release)
    assert "all requests" in worse.reason
    sliced = labelled.window(noise=1.0, only="busan")
    assert sliced is not None
    assert sliced.verdict == "degraded"
    assert "city=busan" in sliced.reason
    assert "city=seoul" not in sliced.reason


def test_another_release_begins_anew(store: Store, labelled: Labelled) -> None:
    labelled.window()
    route = routes.get(store, MODEL)
    assert route is not None
    labelled.release = tools.release(store, "2")
    assert labelled.window(noise=1.0) is None  # it does not serve: not a word about it
    routes.put(store, replace(route, stable=labelled.release))
    found = labelled.window()
    assert found is not None
    assert found.verdict == "baseline"


def test_labels_of_other_services_in_between_hide_nothing(labelled: Labelled) -> None:
    verdicts = []
    for number in range(4):
        found = [labelled.window(noise=1.0 if number == 3 else 0.0, others=3)]
        found += [labelled.look() for _ in range(4)]
        verdicts.append([(one.verdict, one.evidence["current"]["rows"]) for one in found if one is not None])
    assert verdicts == [[("baseline", 400)], [("stable", 400)], [("stable", 400)], [("degraded", 400)]]


def test_false_alarms_over_many_windows_stay_below_alpha() -> None:
    random = np.random.default_rng(11)
    alarms = 0
    for _ in range(200):  # releases, each watched over 20 windows without any change
        before = list(random.beta(2, 10, size=10))
        for number in range(1, 21):
            p = quality.welch(before, list(random.beta(2, 10, size=10)), 0.0)
            if p <= 0.05 * 6 / (np.pi**2 * number**2):
                alarms += 1
                break
    assert alarms <= 0.05 * 200 + 3 * np.sqrt(0.05 * 0.95 * 200)


def test_a_difference_within_the_margin_is_none() -> None:
    assert quality.welch([0.1, 0.11, 0.12, 0.1], [0.12, 0.11, 0.13, 0.12], 0.02) > 0.3
    assert quality.welch([0.1, 0.11, 0.12, 0.1], [0.3, 0.31, 0.32, 0.33], 0.02) < 1e-4
    assert quality.welch([0.1] * 4, [0.2] * 4, 0.02) == 0.0

"""The drift watch on requests whose truth is known: silent when nothing changed, and it names what did."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from tests.behaviour import loop_tools as tools
from tests.behaviour.loop_tools import MODEL

from ondol.base.settings import Settings
from ondol.formats import project as projects
from ondol.loop import signals as signalling
from ondol.loop import watch
from ondol.records.project import MonitorSpec
from ondol.records.rollout import Decision, Observation
from ondol.store import counters, observations, rollouts, routes, signals
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

SPEC = MonitorSpec(window=200, alpha=0.05, effect=0.1, blocks=20)
COLUMNS = ["age", "income", "visits"]


def rows(count: int, generator: np.random.Generator, shift: float = 0.0) -> pd.DataFrame:
    frame = pd.DataFrame(generator.normal(size=(count, 3)), columns=COLUMNS)
    frame["income"] += shift
    return frame


@dataclass
class Watched:
    """A service with a reference, and requests to it."""

    store: Store
    blobs: Blobs
    release: str
    generator: np.random.Generator
    sent: int = 0

    def send(self, frame: pd.DataFrame, release: str = "", status: int = 200, prediction: float = 0.0) -> None:
        batch = []
        for record in frame.to_dict("records"):
            self.sent += 1
            said = json.dumps([[0.5, prediction + float(record["age"])]])
            features = json.dumps([list(record.values())])
            one = Observation(f"r{self.sent}", time.time(), MODEL, release or self.release, "stable", "u", status, 1.0)
            batch.append(replace(one, features=features, prediction=said))
        observations.append(self.store, batch)

    def look(self, spec: MonitorSpec = SPEC) -> Decision | None:
        return watch.look(self.store, self.blobs, MODEL, spec)


def refer(store: Store, blobs: Blobs, release: str, frame: pd.DataFrame) -> None:
    """Keep a reference as a walk round the loop does."""
    buffer = io.BytesIO()
    frame.assign(prediction=frame["age"]).to_parquet(buffer, index=False)
    counters.put_fact(store, f"reference/{release}", blobs.put_bytes(buffer.getvalue()))


@pytest.fixture
def watched(home: Settings, store: Store) -> Watched:
    generator = np.random.default_rng(7)
    release = tools.serving(store)
    blobs = Blobs(home.blobs)
    refer(store, blobs, release, rows(1000, generator))
    return Watched(store, blobs, release, generator)


def test_a_window_that_is_not_full_is_not_looked_at(watched: Watched) -> None:
    assert watched.look() is None
    watched.send(rows(199, watched.generator))
    assert watched.look() is None
    watched.send(rows(1, watched.generator))
    found = watched.look()
    assert found is not None
    assert found.evidence["window"] == [0, 200]
    assert watched.look() is None


@pytest.mark.parametrize("blocks", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_it_is_silent_when_nothing_changed(watched: Watched, blocks: int) -> None:
    spec = MonitorSpec(window=200, alpha=0.05, effect=0.1, blocks=blocks)
    watched.send(rows(100 * 200, watched.generator))
    found = []
    for _ in range(100):  # each against a reference of its own: chance in one would be in every comparison
        refer(watched.store, watched.blobs, watched.release, rows(1000, watched.generator))
        found.append(watched.look(spec))
    verdicts = [one.verdict for one in found if one is not None]
    assert len(verdicts) == 100
    assert verdicts.count("stable") >= 95
    assert watched.look(spec) is None


def test_it_names_the_column_that_moved(watched: Watched) -> None:
    watched.send(rows(200, watched.generator))
    watched.send(rows(200, watched.generator, shift=1.5))
    first, second = watched.look(), watched.look()
    assert first is not None
    assert second is not None
    assert (first.verdict, second.verdict) == ("stable", "drift")
    assert "income" in second.reason
    drifted = {one["column"] for one in second.evidence["report"]["columns"] if one["drifted"]}
    assert drifted == {"income"}


def test_it_sees_answers_move_when_the_questions_do_not(watched: Watched) -> None:
    watched.send(rows(200, watched.generator), prediction=1.5)
    found = watched.look()
    assert found is not None
    assert [one["role"] for one in found.evidence["report"]["columns"] if one["drifted"]] == ["prediction"]


def test_a_crash_between_decision_and_position_repeats_the_window_and_loses_none(
    home: Settings, watched: Watched
) -> None:
    watched.send(rows(400, watched.generator))
    first = watched.look()
    counters.put_fact(watched.store, f"watch/{MODEL}", 0)  # what a kill before the last line of `look` leaves behind
    with Store(home.database) as reopened:
        again = watch.look(reopened, watched.blobs, MODEL, SPEC)
        after = watch.look(reopened, watched.blobs, MODEL, SPEC)
    assert first is not None
    assert again is not None
    assert after is not None
    assert again.evidence == first.evidence  # the same numbers: nothing in it is chance
    assert after.evidence["window"] == [200, 400]


def test_another_releases_answers_are_no_drift(watched: Watched) -> None:
    watched.send(rows(80, watched.generator), release="sha256:the one before", prediction=3.0)
    watched.send(rows(120, watched.generator))
    found = watched.look()
    assert found is not None
    assert found.verdict == "stable"
    assert found.evidence["report"]["current_rows"] == 120


def test_a_window_that_is_mostly_another_releases_decides_nothing(watched: Watched) -> None:
    watched.send(rows(150, watched.generator), release="sha256:the one before")
    watched.send(rows(250, watched.generator))
    first, second = watched.look(), watched.look()
    assert first is not None
    assert second is not None
    assert (first.verdict, second.verdict) == (watch.TOO_FEW, "stable")
    assert "50 of 200" in first.reason


def test_requests_that_failed_are_left_out_and_stop_nothing(watched: Watched) -> None:
    watched.send(rows(200, watched.generator, shift=5.0), status=500)
    watched.send(rows(200, watched.generator))
    assert [one.verdict for one in (watched.look(), watched.look()) if one] == [watch.TOO_FEW, "stable"]


def test_too_few_to_tell_does_not_hide_drift_that_was_found(home: Settings, watched: Watched) -> None:
    tools.project(home)
    watched.send(rows(200, watched.generator, shift=1.5))
    watched.send(rows(200, watched.generator), status=503)
    drift, _ = watched.look(), watched.look()
    assert drift is not None
    assert signalling.look(watched.store, home, projects.load(home.project), MODEL, time.time()) == 1
    assert signals.unanswered(watched.store, MODEL)[0].evidence["decision"] == drift.id


def test_a_release_without_a_reference_is_passed_over(watched: Watched) -> None:
    route = routes.get(watched.store, MODEL)
    assert route is not None
    counters.put_fact(watched.store, f"reference/{watched.release}", "")
    watched.send(rows(200, watched.generator))
    assert watched.look() is None
    assert rollouts.decisions(watched.store, MODEL, "drift") == []


def test_named_features_and_nonsense_are_read(watched: Watched) -> None:
    frame = rows(198, watched.generator)
    watched.send(frame)
    named = json.dumps([{"income": 1.0, "age": 0.5}])
    odd = [("a", named, "[0.5]"), ("b", named, "not json")]
    observations.append(
        watched.store,
        [
            Observation(name, time.time(), MODEL, watched.release, "stable", "u", 200, 1.0, features=f, prediction=p)
            for name, f, p in odd
        ],
    )
    found = watched.look()
    assert found is not None
    assert found.verdict == "stable"
    assert found.evidence["report"]["current_rows"] == 200


def a_week_before(store: Store, first: int, count: int) -> None:
    """Let requests `first` … have come exactly a week before the `count` requests after them."""
    with store.write() as tx:
        for number in range(first, first + count):
            later = tx.row("SELECT at FROM observations WHERE id = ?", (f"r{number + count}",))
            row = tx.row("SELECT seq, body FROM observations WHERE id = ?", (f"r{number}",))
            assert row is not None
            assert later is not None
            body = {**json.loads(row["body"]), "at": later["at"] - 7 * 86_400}
            tx.execute(
                "UPDATE observations SET at = ?, body = ? WHERE seq = ?", (body["at"], json.dumps(body), row["seq"])
            )


def test_the_same_season_is_what_it_is_compared_with_when_the_project_says_so(watched: Watched) -> None:
    season = replace(SPEC, reference="season", season="7d")
    watched.send(rows(200, watched.generator, shift=1.5))  # last week: as moved as today
    plain = watched.look()
    assert plain is not None
    assert plain.verdict == "drift"  # against the training data
    watched.send(rows(200, watched.generator, shift=1.5))
    a_week_before(watched.store, 1, 200)
    same = watched.look(season)
    assert same is not None
    assert (same.verdict, same.evidence["reference"]) == ("stable", {"kind": "season", "rows": 200})
    watched.send(rows(200, watched.generator, shift=4.0))
    other = watched.look(replace(season, season="8d"))
    assert other is not None
    assert (other.verdict, "one season ago" in other.reason) == (watch.TOO_FEW, True)


def test_the_last_good_window_is_what_it_is_compared_with_when_the_project_says_so(watched: Watched) -> None:
    good = replace(SPEC, reference="last-good")
    found = []
    for shift in (0.0, 0.0, 1.5):
        watched.send(rows(200, watched.generator, shift=shift))
        found.append(watched.look(good))
    assert [one.verdict for one in found if one] == ["stable", "stable", "drift"]
    assert [one.evidence["reference"]["rows"] for one in found if one] == [1000, 200, 200]


@pytest.mark.slow
def test_a_window_too_large_to_be_read_is_counted_over_many_looks_and_crashes(watched: Watched) -> None:
    spec = MonitorSpec(window=21_000, blocks=20)
    watched.send(rows(21_000, watched.generator))
    shifted = rows(21_000, watched.generator, shift=1.0)
    watched.send(shifted)
    found: list[Decision] = []
    for _ in range(200):
        decision = watched.look(spec)  # every look begins from what is on record, as after a kill
        found += [decision] if decision else []
        if len(found) == 2:
            break
    assert [one.verdict for one in found] == ["stable", "drift"]
    assert [one.evidence["window"] for one in found] == [[0, 21_000], [21_000, 42_000]]
    report = found[1].evidence["report"]
    assert report["current_rows"] == 21_000
    assert {one["column"] for one in report["columns"] if one["drifted"]} == {"income"}
    assert watched.look(spec) is None

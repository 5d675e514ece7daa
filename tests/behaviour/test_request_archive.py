"""The request log over months: moved to files, joined with labels that came late, removed when it is old."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from tests.behaviour import loop_tools as tools
from tests.behaviour.loop_tools import MODEL

from ondol.base.settings import Settings
from ondol.monitoring import request_archive, retention
from ondol.monitoring.request_archive import Archive
from ondol.records.project import MonitoringSpec
from ondol.records.rollout import Observation
from ondol.records.span import Span
from ondol.store import counters, observations, routes, segments, spans
from ondol.store.blobs import Blobs
from ondol.store.connection import Store
from ondol.store.observations import Exchange

DAY = 86_400.0


def logged(store: Store, count: int, days_ago: float, prefix: str = "r", rollout: str = "") -> list[Observation]:
    at = time.time() - days_ago * DAY
    rows = [
        Observation(
            f"{prefix}{number}", at + number / 1000, MODEL, "r1", "stable", f"u{number % 7}", 200, 1.5, rollout,
            json.dumps([{"age": number, "city": "서울"}]), "[0.25]", signals={"cost": 0.5},
        )
        for number in range(count)
    ]  # fmt: skip
    observations.append(store, rows)
    return rows


@pytest.fixture
def archive(home: Settings, store: Store) -> Archive:
    tools.serving(store)
    return Archive(store, Blobs(home.blobs))


def in_database(store: Store) -> int:
    return len(observations.of_service(store, MODEL))


def test_what_is_moved_reads_the_same(store: Store, archive: Archive) -> None:
    old, new = logged(store, 2500, 3), logged(store, 30, 0.1, "n")
    assert archive.compact(MODEL, time.time() - DAY) == 2500
    assert archive.compact(MODEL, time.time() - DAY) == 0
    assert in_database(store) == 30
    assert list(archive.read(MODEL)) == old + new
    assert list(archive.read(MODEL, since=time.time() - DAY)) == new
    assert archive.find(["r7", "n1", "nobody"]) == [old[7]]
    (segment,) = segments.every(store)
    assert segment.requests == 2500
    assert segment.bytes < 40 * 2500  # columnar and compressed


def test_what_was_asked_reads_the_same_from_files_and_database(store: Store, archive: Archive) -> None:
    old = logged(store, 1200, 3)
    copy = replace(old[-1], id="copy", release="r2", shadow=True)
    observations.append(store, [copy])
    archive.compact(MODEL, time.time() - DAY)
    new = logged(store, 5100, 0.1, "n")
    wanted = [Exchange(one.release, one.status, one.features, one.prediction, one.shadow) for one in [*old, copy, *new]]
    assert list(archive.exchanges(MODEL, 0.0, 1e18)) == wanted
    assert list(archive.exchanges(MODEL, old[200].at, new[100].at)) == wanted[200:1301]


def test_labels_and_numbers_are_joined_whenever_they_come(store: Store, archive: Archive) -> None:
    logged(store, 1200, 3)
    observations.label(store, {"r1": "1"})
    archive.compact(MODEL, time.time() - DAY)
    observations.label(store, {"r2": "0", "n1": "1"})
    observations.signal(store, {"r2": {"quality": 0.5}})
    logged(store, 3, 0, "n")
    found = {one.id: one for one in archive.read(MODEL)}
    assert [found[name].label for name in ("r1", "r2", "r3", "n1", "n2")] == ["1", "0", "", "1", ""]
    assert found["r2"].signals == {"quality": 0.5, "cost": 0.5}


def test_a_trial_that_goes_on_and_what_nobody_watched_yet_stay(store: Store, archive: Archive) -> None:
    tools.passed(store, "2")
    with store.write() as tx:
        body = "INSERT INTO rollouts (id, service, state, body) VALUES ('ro', ?, 'progressing', '{}')"
        tx.execute(body, (MODEL,))
    logged(store, 1500, 3, "t", rollout="ro")
    logged(store, 3000, 3)
    assert archive.compact(MODEL, time.time(), watched=True) == 0
    counters.put_fact(store, f"watch/{MODEL}", 1500 + 2000)
    assert archive.compact(MODEL, time.time(), watched=True) == 2000
    assert in_database(store) == 1500 + 1000
    assert segments.prune(store, "observations", time.time()) == 1000  # however old: the judge reads the trial


def test_what_is_past_its_time_is_removed_with_its_file(home: Settings, store: Store, archive: Archive) -> None:
    logged(store, 1100, 40)
    archive.compact(MODEL, time.time() - DAY)
    logged(store, 1100, 5, "m")
    observations.label(store, {"r1": "1"})
    for trace, days in (("old", 20), ("new", 1)):
        at = time.time() - days * DAY
        spans.append(store, [Span(trace, "a", "", "ask", at, at + 1), Span(trace, "b", "a", "llm", at, at + 1)])
    spec, blobs = MonitoringSpec(recent="1d", retention="90d", traces="10d"), Blobs(home.blobs)
    kept = retention.tidy(store, blobs, spec, (), time.time())
    assert (kept.moved, kept.files, kept.rows) == (1100, 0, 1)
    assert [one.trace for one in spans.traces(store)] == ["new"]
    first, second = (blobs.path(one.blob) for one in segments.every(store))
    segments.retire(store, time.time() - 30 * DAY)  # and killed before the file went
    kept = retention.tidy(store, blobs, replace(spec, retention="30d"), (), time.time())
    assert kept.files == 1
    assert [first.exists(), second.exists()] == [False, True]
    assert {one.id[0] for one in archive.read(MODEL)} == {"m"}


def test_labels_from_files_and_the_log_on_the_command_line(
    store: Store, archive: Archive, tmp_path: Path, ondol: Callable[..., str]
) -> None:
    logged(store, 1100, 3)
    logged(store, 5, 0, "n")
    archive.compact(MODEL, time.time() - DAY)
    (tmp_path / "l.csv").write_text("request,late,other\nr1,1,x\nn1,0,y\nn2,late,z\n")
    assert "3 labels, 3 of them new" in ondol("data", "label", "l.csv", "--id", "request", "--label", "late")
    assert json.loads(ondol("data", "label", "l.csv", "--id", "request", "--label", "late", "--json"))["new"] == 0
    pd.DataFrame({"id": ["n3"], "label": [0.5]}).to_parquet(tmp_path / "l.parquet")
    (tmp_path / "l.jsonl").write_text('{"id": "n4", "label": [1, 2]}\n\n')
    ondol("data", "label", "l.parquet")
    ondol("data", "label", "l.jsonl")
    found = json.loads(ondol("data", "log", MODEL, "--since", "7d", "--labelled", "--json"))
    assert {one["id"]: one["label"] for one in found} == {
        "r1": "1", "n1": "0", "n2": '"late"', "n3": "0.5", "n4": "[1, 2]",
    }  # fmt: skip
    ondol("data", "log", MODEL, "--since", "7d", "--export", "x.parquet")
    frame = pd.read_parquet(tmp_path / "x.parquet")
    assert (len(frame), list(frame["age"][:3]), frame["city"][0]) == (1105, [0, 1, 2], "서울")
    (tmp_path / "bad.csv").write_text("request,late\nr5,\n")
    ondol("data", "label", "bad.csv", "--id", "request", "--label", "late", code=2)
    ondol("data", "label", code=2)


def test_parquet_keeps_every_field() -> None:
    one = Observation(
        "a", 1.5, MODEL, "r", "candidate", "u", 500, 2.5, "ro", "[1]", "[2]", "3", 12.5, {"x": 1.0}, shadow=True
    )
    assert request_archive.from_parquet(request_archive.to_parquet([one, replace(one, id="b")]))[0] == one


def test_two_compactors_move_each_request_once(home: Settings, store: Store, archive: Archive) -> None:
    logged(store, 1200, 3)
    found = segments.movable(store, MODEL, time.time(), 5000, watched=False)
    assert archive.compact(MODEL, time.time()) == 1200  # meanwhile
    late = segments.Segment("seg-x", MODEL, 0, 1, len(found), 1, "sha256:x")
    assert not segments.try_adopt(store, late, [seq for seq, _ in found])
    assert len(list(archive.read(MODEL))) == 1200
    assert routes.get(store, MODEL) is not None

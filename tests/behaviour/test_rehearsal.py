"""The drill on a small project: what is bad is caught, what is equal is left alone, nothing else is touched."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from tests.behaviour import loop_tools as tools
from tests.behaviour.loop_tools import MODEL

from ondol.app.rehearsal import page, play
from ondol.base import errors, hashing
from ondol.base.progress import SILENT
from ondol.base.settings import Settings
from ondol.records.release import ModelManifest
from ondol.records.rollout import Route
from ondol.store import alerts, counters, releases, rollouts, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store
from ondol.testing import mutants
from ondol.testing.mutants import Mutation

PROJECT = tools.PROJECT.replace(
    "metrics: [error_rate]", "metrics: [error_rate, quality, latency_p95], latency_floor_ms: 10"
)


def fitted() -> tuple[LogisticRegression, pd.DataFrame]:
    random = np.random.default_rng(5)
    frame = pd.DataFrame(random.normal(size=(600, 3)), columns=["age", "income", "visits"])
    late = random.random(600) < 1 / (1 + np.exp(-3 * frame["income"] + frame["age"]))
    return LogisticRegression().fit(frame, late.astype(int)), frame


@pytest.fixture
def served(home: Settings, store: Store, tmp_path: Path) -> Settings:
    """A project whose champion is on record; nothing runs."""
    tools.project(home, PROJECT)
    model, frame = fitted()
    (tmp_path / "files").mkdir()
    (tmp_path / "files/model.pkl").write_bytes(pickle.dumps(model))
    blobs, buffer = Blobs(home.blobs), io.BytesIO()
    release = releases.put(store, MODEL, ModelManifest(blobs.put_path(tmp_path / "files"), "files")).digest
    routes.put(store, Route(MODEL, "model", release))
    frame.assign(prediction=model.predict_proba(frame)[:, 1]).to_parquet(buffer, index=False)
    counters.put_fact(store, f"reference/{release}", blobs.put_bytes(buffer.getvalue()))
    return home


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_what_is_bad_is_rolled_back(served: Settings, store: Store) -> None:
    before = hashing.of_tree(served.project / "ondol.yaml")
    card = play.play(served, "", SILENT, only=("bad model", "failing model", "latency", "cost"))
    found = {one.drill: one for one in card.outcomes}
    assert [one.passed for one in found.values()] == [True] * 4, card
    bad = found["bad model"]
    assert (bad.happened, bad.told) == ("rolled back", True)
    assert bad.evidence["injected"] == {"change": "inverted", "amount": 1.0}
    assert 0 < bad.hurt < 1000
    assert found["cost blow-up"].evidence["spent"] <= found["cost blow-up"].evidence["limit"] + 1e-9
    html = page.render(card)
    assert "4 drills passed, 0 failed, 0 open" in html
    assert rollouts.of_service(store) == []  # nothing happened here
    assert alerts.every(store) == []
    assert hashing.of_tree(served.project / "ondol.yaml") == before


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_what_is_equal_is_left_alone(served: Settings) -> None:
    (equal,) = play.play(served, "", SILENT, only=("equal",)).outcomes
    assert equal.passed, equal


def test_without_a_champion_there_is_nothing_to_rehearse(home: Settings, store: Store) -> None:
    tools.project(home)
    with pytest.raises(errors.NotFoundError) as caught:
        play.play(home, "", SILENT)
    assert caught.value.code == "NOF-451"


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [("", "UNS-710", "support"), ("support", "UNS-710", "support"), ("nobody", "NOF-011", "nobody")],
)
def test_what_is_no_model_is_not_rehearsed(home: Settings, name: str, code: str, said: str) -> None:
    tools.project(home, "name: t\napplications: {support: {llm: fake/model}}\n")
    with pytest.raises(errors.OndolError, match=said) as caught:
        play.play(home, name, SILENT)
    assert caught.value.code == code


def test_a_failing_mutant_behaves_until_its_time_has_come(tmp_path: Path) -> None:
    model, frame = fitted()
    mutant = mutants.make(model, Mutation("fails", once=str(tmp_path / "now")))
    for _ in range(50):  # whoever loads it tries it before it is served
        assert len(mutant.predict(frame)) == len(frame)
    (tmp_path / "now").touch()
    with pytest.raises(RuntimeError, match="on purpose"):
        mutant.predict(frame)


@pytest.mark.parametrize("change", ["unit", "stuck", "swapped", "inverted", "overconfident", "none"])
def test_a_mutant_differs_from_its_model_in_what_it_says_it_does(change: str) -> None:
    model, frame = fitted()
    mutation = Mutation(change, column=1, amount=3.0, other=2)  # type: ignore[arg-type]
    mutant = pickle.loads(pickle.dumps(mutants.make(model, mutation)))
    kept = frame.copy()
    said, right = mutant.predict_proba(frame), model.predict_proba(frame)
    assert frame.equals(kept)  # its input is the caller's
    assert np.allclose(said.sum(axis=1), 1)
    assert np.allclose(said, right) == (change == "none")
    assert np.allclose(mutant.predict_proba(frame.to_numpy().tolist()), said)
    if change == "inverted":
        assert (mutant.predict(frame) != model.predict(frame)).all()

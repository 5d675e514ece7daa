"""The watch over what applications are asked: silent while people ask alike, and it says where new questions belong."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.data import embedding_drift
from ondol.data.drift import Options
from ondol.formats import project as projects
from ondol.loop import signals as signalling
from ondol.loop.questions import Questions
from ondol.records.project import QuestionsSpec
from ondol.records.release import ApplicationManifest
from ondol.records.retrieval import IndexOptions
from ondol.records.rollout import Observation, Route
from ondol.retrieval import embedding
from ondol.store import observations, releases, routes, signals
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

NAME = "support"
SPEC = QuestionsSpec(window=60)
THINGS = (
    "blue kettle",
    "garden chair",
    "desk lamp",
    "wool blanket",
    "steel pan",
    "oak shelf",
    "floor mat",
    "wall clock",
)
BUYING = ("What does the {} cost?", "Is the {} in stock?", "When will the {} be delivered?", "Can I return the {}?")
TRAVEL = ("{} 가는 기차는 몇 시에 있나요?", "{} 날씨가 내일 어떤가요?", "{}에서 묵을 만한 호텔이 있나요?")
TOWNS = ("서울", "부산", "대전", "경주", "강릉", "전주", "여수", "제주")


def vectors(rows: int, dimensions: int, generator: np.random.Generator, towards: float = 0.0) -> np.ndarray:
    made = generator.normal(size=(rows, dimensions))
    made[:, 0] += towards
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True))


def test_equal_sets_are_as_often_significant_as_alpha_says_and_other_ones_always() -> None:
    generator, options = np.random.default_rng(5), Options(permutations=199)
    same = [
        embedding_drift.difference(vectors(200, 16, generator), vectors(150, 16, generator), 10, options)
        for _ in range(60)
    ]
    assert sum(one.p_value <= 0.05 for one in same) <= 9  # 3 expected; more than 9 has probability 0.0006
    other = embedding_drift.difference(vectors(200, 16, generator), vectors(150, 16, generator, 6.0), 10, options)
    assert other.p_value <= 2 / 200  # the arrangement itself, or its mirror image, may be among those tried
    assert other.effect > 0.6


@settings(deadline=None)
@given(st.integers(30, 60), st.integers(30, 60), st.sampled_from([1, 5, 20]))
def test_any_two_sets_give_an_effect_and_shares_that_add_up(first: int, second: int, blocks: int) -> None:
    generator = np.random.default_rng(first * 100 + second)
    options = Options(permutations=19)
    found = embedding_drift.difference(vectors(first, 4, generator), vectors(second, 4, generator), blocks, options)
    assert 0 <= found.effect <= 1
    assert 0 < found.p_value <= 1
    assert sum(one.before for one in found.topics) == pytest.approx(1)
    assert sum(one.after for one in found.topics) == pytest.approx(1)


def ask(store: Store, release: str, forms: tuple[str, ...], things: tuple[str, ...], generator: object) -> None:
    """Log a window of questions that an application answered."""
    assert isinstance(generator, np.random.Generator)
    batch = []
    for _ in range(SPEC.window):
        question = str(generator.choice(forms)).format(generator.choice(things))
        one = Observation(f"r{generator.integers(1 << 60)}", time.time(), NAME, release, "stable", "u", 200, 1.0)
        batch.append(replace(one, features=json.dumps({"question": question})))
    observations.append(store, batch)


def test_other_questions_are_found_and_start_a_candidate_only_when_asked_for(home: Settings, store: Store) -> None:
    if not embedding.available():
        pytest.skip("no embedding model on this platform")
    release = releases.put(store, NAME, ApplicationManifest("fake/model")).digest
    routes.put(store, Route(NAME, "application", release))
    watch = Questions(store, Blobs(home.blobs), home.home, lambda: embedding.make(IndexOptions()), seconds=1e9)
    generator, verdicts = np.random.default_rng(3), []
    for forms, things in ((BUYING, THINGS), (BUYING, THINGS), (TRAVEL, TOWNS)):
        assert watch.look(NAME, SPEC) is None
        ask(store, release, forms, things, generator)
        found = watch.look(NAME, SPEC)
        assert found is not None
        verdicts.append(found.verdict)
    assert verdicts == ["baseline", "stable", "drift"]
    assert found is not None
    assert found.evidence["report"]["columns"][0]["effect"] > 0.5
    quoted = json.dumps(found.evidence, ensure_ascii=False) + found.reason
    assert not any(word in quoted for word in (*THINGS, *TOWNS))  # decisions outlive what people asked

    silent = projects.parse(f"name: t\napplications: {{{NAME}: {{llm: fake/model}}}}\n")
    heard = replace(silent, retrain=replace(silent.retrain, on=("drift",)))
    assert signalling.look(store, home, silent, NAME, time.time()) == 0
    assert signalling.look(store, home, heard, NAME, time.time()) == 1
    assert signals.unanswered(store, NAME)[0].kind == "drift"

    newer = releases.put(store, NAME, ApplicationManifest("fake/newer")).digest
    serving = routes.get(store, NAME)
    assert serving is not None
    routes.put(store, replace(serving, stable=newer))
    ask(store, newer, TRAVEL, TOWNS, generator)
    begun = watch.look(NAME, SPEC)
    assert begun is not None
    assert begun.verdict == "baseline"  # a release made for what is asked now is not measured by what was asked before


def test_a_window_is_embedded_piece_by_piece_and_a_backlog_is_skipped(home: Settings, store: Store) -> None:
    release = releases.put(store, NAME, ApplicationManifest("fake/model")).digest
    routes.put(store, Route(NAME, "application", release))

    class Letters:
        """LangChain's interface: counts letters."""

        def embed_query(self, text: str) -> list[float]:
            return [1.0 + text.count(letter) for letter in "aeiou"]

    embedder = embedding.wrap(Letters(), "letters")
    watch = Questions(store, Blobs(home.blobs), home.home, lambda: embedder, seconds=0.0)
    generator = np.random.default_rng(3)
    for _ in range(4):
        ask(store, release, BUYING, THINGS, generator)
    assert watch.look(NAME, SPEC) is None
    looks = [watch.look(NAME, SPEC) for _ in range(4 * SPEC.window)]
    done = [one for one in looks if one is not None]
    assert [one.evidence["window"] for one in done] == [[3 * SPEC.window, 4 * SPEC.window]]


@pytest.mark.parametrize("wrong", ["window: 10", "alpha: 0", "effect: 2", "blocks: 3", "window: -1"])
def test_values_that_cannot_be_tested_are_refused(wrong: str) -> None:
    with pytest.raises(errors.InputError, match=wrong.partition(":")[0]) as caught:
        projects.parse(f"name: t\napplications: {{support: {{monitor: {{{wrong}}}}}}}\n")
    assert caught.value.code == "INP-590"

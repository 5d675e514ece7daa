"""What every vector store must do, run on each one we ship."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ondol.base import errors
from ondol.retrieval.transform import unit
from ondol.retrieval.vectors import EmbeddedStore, VectorStore

STORES: dict[str, Callable[[int], VectorStore]] = {"embedded": EmbeddedStore}
DIMENSIONS = 16


@pytest.fixture(params=sorted(STORES))
def empty(request: pytest.FixtureRequest) -> VectorStore:
    """An empty store of each kind."""
    return STORES[request.param](DIMENSIONS)


def rows(count: int, seed: int = 0) -> Any:
    return unit(np.random.default_rng(seed).normal(size=(count, DIMENSIONS)).astype(np.float32))


def fill(store: VectorStore, count: int = 200) -> Any:
    vectors = rows(count)
    store.upsert(
        [f"id{number:03}" for number in range(count)],
        vectors,
        [
            {"group": number % 4, "tags": ["even" if number % 2 == 0 else "odd"], "rare": number == 7}
            for number in range(count)
        ],
    )
    return vectors


def test_the_nearest_come_first_and_are_exact(empty: VectorStore) -> None:
    vectors = fill(empty)
    query = rows(1, seed=9)[0]
    exact = np.argsort(-(vectors @ query))[:10]
    found = empty.search(query, 10)
    assert [match.id for match in found] == [f"id{number:03}" for number in exact]
    assert [match.score for match in found] == pytest.approx(
        [float(vectors[number] @ query) for number in exact], abs=1e-5
    )


def test_an_empty_store_finds_nothing(empty: VectorStore) -> None:
    assert empty.search(rows(1)[0], 3) == []
    assert (empty.count(), list(empty.ids()), empty.delete(["x"])) == (0, [], 0)


def test_upsert_replaces_and_the_new_place_is_found(empty: VectorStore) -> None:
    vectors = fill(empty)
    empty.upsert(["id003"], -vectors[3:4], [{"group": 9}])
    assert empty.count() == 200
    assert empty.search(-vectors[3], 1)[0].id == "id003"
    assert empty.search(vectors[3], 1)[0].id != "id003"
    assert [match.id for match in empty.search(vectors[3], 5, {"group": 9})] == ["id003"]


def test_the_last_of_equal_ids_in_one_call_wins(empty: VectorStore) -> None:
    vectors = rows(2)
    empty.upsert(["a", "a"], vectors, [{"n": 1}, {"n": 2}])
    assert empty.count() == 1
    assert empty.search(vectors[1], 1)[0].score == pytest.approx(1.0, abs=1e-5)
    assert empty.search(vectors[1], 1, {"n": 1}) == []


def test_deleted_rows_are_never_found_again(empty: VectorStore) -> None:
    vectors = fill(empty)
    gone = [f"id{number:03}" for number in range(0, 200, 2)]
    assert empty.delete([*gone, "unknown"]) == 100
    assert set(empty.ids()) == {f"id{number:03}" for number in range(1, 200, 2)}
    assert not {match.id for match in empty.search(vectors[0], 200)} & set(gone)


@pytest.mark.parametrize(
    ("where", "matching"),
    [
        ({"group": 1}, 50),
        ({"group": {"in": [1, 2]}}, 100),
        ({"tags": {"any_of": ["odd"]}}, 100),
        ({"group": {"gte": 1, "lt": 3}}, 100),
        ({"and": [{"group": 1}, {"not": {"tags": {"any_of": ["even"]}}}]}, 50),
        ({"or": [{"group": 0}, {"rare": True}]}, 51),
        ({"rare": True}, 1),
        ({"absent": 1}, 0),
    ],
)
def test_filters_apply_before_the_search(empty: VectorStore, where: dict[str, Any], matching: int) -> None:
    """A filter applied after it would return fewer than k although k match."""
    fill(empty)
    query = rows(1, seed=3)[0]
    assert len(empty.search(query, 200, where)) == matching
    assert len(empty.search(query, 10, where)) == min(10, matching)


def test_an_unknown_operator_is_refused(empty: VectorStore) -> None:
    fill(empty)
    with pytest.raises(errors.UsageError):
        empty.search(rows(1)[0], 1, {"group": {"near": 1}})


def test_rows_that_do_not_fit_are_refused_and_change_nothing(empty: VectorStore) -> None:
    fill(empty)
    for ids, vectors in ((["a"], np.zeros((1, 3), dtype=np.float32)), (["a", "b"], rows(1))):
        with pytest.raises(errors.UsageError):
            empty.upsert(ids, vectors, [{}] * len(ids))
    assert empty.count() == 200

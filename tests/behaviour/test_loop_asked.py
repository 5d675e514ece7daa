"""Logged requests as a table: what `pandas` would make of the same records, whatever clients send."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.loop import asked
from ondol.store.observations import Exchange

COLUMNS = ["age", "plan", "prediction", "visits"]
FEATURES = ["age", "plan", "visits"]
CELLS = st.one_of(st.none(), st.integers(-9, 9), st.floats(allow_infinity=False), st.sampled_from(["a", "b"]))
INSTANCES = st.one_of(st.lists(CELLS, max_size=4), st.dictionaries(st.sampled_from([*FEATURES, "more"]), CELLS))


@given(st.lists(st.tuples(st.lists(INSTANCES, min_size=1, max_size=3), st.sampled_from([200, 500])), max_size=6))
def test_a_table_has_the_cells_of_the_requests_that_were_answered(requests: list[tuple[list[Any], int]]) -> None:
    rows = [
        Exchange("r", status, json.dumps(instances), json.dumps([[0.2, at / 10] for at in range(len(instances))]))
        for instances, status in requests
    ]
    expected = []
    for instances, status in requests:
        for at, instance in enumerate(instances if status == 200 else []):
            record = instance if isinstance(instance, dict) else dict(zip(FEATURES, instance, strict=False))
            expected.append({**{name: record.get(name) for name in FEATURES}, "prediction": at / 10})
    found = asked.table(rows, COLUMNS)
    assert list(found.columns) == COLUMNS
    assert len(found) == len(expected)
    for name in COLUMNS:
        for cell, wanted in zip(found[name], [one[name] for one in expected], strict=True):
            assert cell == wanted or (pd.isna(cell) and pd.isna(wanted))


@pytest.mark.parametrize(
    ("features", "prediction", "cell", "answer"),
    [
        ("[1.5]", "[0.25]", 1.5, 0.25),
        ("[[1.5]]", "0.25", 1.5, 0.25),
        ("1.5", "[0.75, 0.25]", 1.5, 0.25),
        ('{"age": 1.5}', "not json", 1.5, None),
        ("[NaN]", "[NaN]", None, None),
        ('["old"]', '["yes"]', "old", None),
    ],
)
def test_one_row_in_every_shape(features: str, prediction: str, cell: object, answer: float | None) -> None:
    row = asked.table([Exchange("r", 200, features, prediction)], COLUMNS).iloc[0]
    assert [None if pd.isna(one) else one for one in row] == [cell, None, answer, None]


@given(st.integers(0, 300), st.integers(1, 40))
def test_evenly_chosen_ones_are_in_order_and_from_everywhere(count: int, most: int) -> None:
    rows = [Exchange(str(number), 200) for number in range(count)]
    copies = [Exchange("copy", 200, shadow=True)] * 3
    chosen = [int(one.release) for one in asked.evenly([*copies, *rows, *copies], most)]
    assert len(chosen) == count if count <= most else most / 2 <= len(chosen) <= most
    gaps = {later - earlier for earlier, later in itertools.pairwise(chosen)}
    assert len(gaps) <= 1
    assert not chosen or (chosen[0] == 0 and count - chosen[-1] <= max(gaps, default=count))

"""Many rows travel as one matrix, and are the same rows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.base import errors
from ondol.serving import payloads_v1
from ondol.serving import rows as rows_module
from ondol.serving.inputs import FLOAT32_MAX, InputSpec

cells = st.floats(allow_nan=False) | st.integers(-(2**70), 2**70) | st.none()


@given(st.lists(st.lists(cells, max_size=3), min_size=1, max_size=20), st.integers(0, 3))
def test_a_matrix_is_what_numpy_makes_of_the_rows(rows: list[list[Any]], width: int) -> None:
    even = [(row + [0.5] * 4)[: width + 1] for row in rows]
    np.testing.assert_array_equal(rows_module.matrix_of(even), np.array(even, dtype=np.float64))
    if len(set(map(len, rows))) > 1:  # never rows of others' values, though the cells may add up
        with pytest.raises(ValueError):
            rows_module.matrix_of(rows)


def test_long_lists_are_converted_in_parts() -> None:
    rows = [[float(index), -1.0] for index in range(5_000)]
    np.testing.assert_array_equal(rows_module.matrix_of(rows), rows)


def test_rows_of_several_requests_are_joined_and_copied() -> None:
    few, many = [[1.0, 2.0]], np.full((9, 2), 3.0)
    assert rows_module.joined([few, many]) == [[1.0, 2.0], *[[3.0, 3.0]] * 9]
    alone = rows_module.joined([many])
    assert isinstance(alone, np.ndarray)
    assert not np.shares_memory(alone, many)
    with pytest.raises(ValueError):
        rows_module.joined([many, np.zeros((9, 3))])


@pytest.mark.parametrize("count", [2, 32])
def test_a_value_out_of_range_is_named_however_many_rows_there_are(count: int) -> None:
    spec = InputSpec(2, limit=FLOAT32_MAX)
    rows = [[1.0, 2.0] for _ in range(count)]
    found, text = payloads_v1.read(json.dumps({"instances": rows}).encode(), spec)
    assert np.array_equal(found, rows)
    assert json.loads(text) == rows
    rows[1][1] = -1e39
    with pytest.raises(errors.InputError) as caught:
        payloads_v1.read(json.dumps({"instances": rows}).encode(), spec)
    assert (caught.value.where, caught.value.code) == ("instances[1][1]", "INP-204")


BODY_ENDS = st.sampled_from(["}", "}}", ', "x": 1}', ', "inputs": [[1.0]]}', ', "instances": [[7.0]]}', "", "]}"])


@given(
    st.lists(st.lists(cells.filter(lambda cell: cell is None or abs(cell) < 1e300), max_size=2), max_size=9),
    st.sampled_from(['{"instances":', '{"instances" :', '{ "instances":', '{"inputs":', '{"instances": \n']),
    BODY_ENDS,
    st.sampled_from([(), (True, False), (True, True)]),
)
def test_a_body_read_at_once_is_the_body_read_with_a_look_for_its_end(
    rows: list[list[Any]], start: str, end: str, nulls: tuple[bool, ...]
) -> None:
    def read(body: str) -> tuple[Any, str]:
        try:
            found, text = payloads_v1.read(body.encode(), InputSpec(2, nulls=nulls))
        except errors.InputError as error:
            return error.code, error.where
        return np.array(found, dtype=np.float64).tolist(), text

    body = start + json.dumps(rows) + end
    assert str(read(body)) == str(read(body + " "))  # with a space behind it, it is not read at once

"""Large bodies are read piece by piece, and are the same rows or the same refusal as when they are read whole."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.base import errors
from ondol.serving import inputs, large_bodies, payloads_v1, payloads_v2
from ondol.serving.inputs import FLOAT32_MAX, InputSpec

values = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5)
rows = st.lists(st.lists(values, min_size=2, max_size=2), max_size=12)
odd = values | st.none() | st.booleans() | st.text(alphabet='],}[{" a', max_size=3) | st.lists(values, max_size=2)
odd_rows = st.lists(st.lists(odd, max_size=3) | odd | st.fixed_dictionaries({"a": odd, "b": values}), max_size=8)
SPECS = (
    InputSpec(2),
    InputSpec(2, ("a", "b"), limit=FLOAT32_MAX),
    InputSpec(2, nulls=(True, False)),
    InputSpec(2, ("a", "b"), nulls=(True, True)),
    InputSpec(1),
    InputSpec(0),
)
ENDS = st.sampled_from(["}", "}}", ', "x": 1}', "", "]}", " }\n"])


@settings(max_examples=500)
@given(rows | odd_rows, st.sampled_from(SPECS), st.sampled_from([None, 1]), ENDS)
def test_instances_in_pieces_are_the_instances(given: Any, spec: InputSpec, indent: int | None, end: str) -> None:
    body = ('{"instances": ' + json.dumps(given, indent=indent) + end).encode()
    whole = _whole(body, spec)
    try:
        found = large_bodies.instances(body, spec, piece_bytes=6)
    except errors.InputError:
        found = None if whole is None else pytest.fail("right rows are refused")
    if found is not None:
        np.testing.assert_array_equal(found, np.array(whole, dtype=np.float64))


def _whole(body: bytes, spec: InputSpec) -> Any:
    """Return the rows as the field's plainest reader would see them; None: it is wrong."""
    try:
        document = json.loads(body)
        return inputs.rows_of(document["instances"], spec, "instances") if len(document) == 1 else None
    except (ValueError, errors.InputError):
        return None


@given(rows.filter(bool), st.integers(0, 40), odd)
def test_the_wrong_cell_is_named_wherever_it_is(given: list[list[Any]], place: int, cell: Any) -> None:
    given[place % len(given)][place % 2] = cell
    body = json.dumps({"instances": given}).encode()

    def read(how: Any) -> tuple[str, str] | None:
        try:
            how()
        except errors.InputError as error:
            return error.code, error.where
        return None

    spec = InputSpec(2, limit=FLOAT32_MAX)
    assert read(lambda: large_bodies.instances(body, spec, piece_bytes=6)) == read(lambda: payloads_v1.read(body, spec))


def _tensor(shape: list[int], data: Any, **more: Any) -> bytes:
    named = {"name": "x", "shape": shape, "datatype": "FP64", "data": data, **more}
    return json.dumps({"inputs": [named]}).encode()


@settings(max_examples=300)
@given(rows.filter(bool), st.sampled_from([None, "data", '"data": [1]']), st.booleans())
def test_a_tensor_in_pieces_is_the_tensor(given: list[list[float]], text: str | None, nested: bool) -> None:
    flat = [value for row in given for value in row]
    more: dict[str, Any] = {} if text is None else {"parameters": {"note": text}}
    if nested:
        more = {"parameters": {"data": flat}}
    body = _tensor([len(given), 2], flat, **more)
    found = large_bodies.tensor(body, InputSpec(2), piece_bytes=6)
    if nested:
        assert found is None
        return
    assert found is not None or text is not None
    if found is not None:
        rest, matrix = found
        document = json.loads(body)
        document["inputs"][0]["data"] = []
        assert msgspec.json.decode(rest) == document
        np.testing.assert_array_equal(matrix, given)


def test_a_large_tensor_is_read_whole_or_refused() -> None:
    spec, matrix = InputSpec(2), np.arange(40_000.0).reshape(-1, 2)
    flat = matrix.ravel().tolist()
    found, _ = payloads_v2.read(_tensor([20_000, 2], flat), spec)
    np.testing.assert_array_equal(found, matrix)
    for wrong in (
        _tensor([20_001, 2], flat),
        _tensor([10_000, 4], flat),
        _tensor([20_000, 2], [*flat[:-1], "x"]),
        _tensor([20_000, 2], [*flat[:-1], 1e400]),
        _tensor([20_000, 2], flat)[:-4] + b",]}]}",
    ):
        with pytest.raises(errors.InputError):
            payloads_v2.read(wrong, spec)


def test_many_raw_numbers_become_a_matrix_and_few_or_odd_ones_do_not() -> None:
    spec = InputSpec(2, limit=FLOAT32_MAX)
    for dtype, datatype in (("<f8", "FP64"), ("<f4", "FP32")):
        array = np.arange(40.0).reshape(-1, 2).astype(dtype)

        def read(sent: Any, datatype: str = datatype) -> Any:
            tensor = payloads_v2.Tensor("x", list(sent.shape), datatype)
            return payloads_v2.rows_of(payloads_v2.Body([tensor]), [sent.tobytes()], spec)

        found = read(array)
        assert isinstance(found, np.ndarray)
        np.testing.assert_array_equal(found, array)
        assert read(array[:2]) == array[:2].tolist()
        for odd_one in (np.nan, np.inf):
            broken = array.copy()
            broken[3, 1] = odd_one
            with pytest.raises(errors.InputError) as caught:
                read(broken)
            assert caught.value.where == "inputs[0].data[7]"

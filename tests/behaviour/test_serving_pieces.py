"""A list that is decoded in pieces is the list that is decoded whole."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.serving import pieces

ROWS, NUMBERS = msgspec.json.Decoder(list[list[float]]), msgspec.json.Decoder(list[float])
values = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5)
odd = values | st.none() | st.text(alphabet='],[" a', max_size=3) | st.lists(values, max_size=2)


def both(text: str, decoder: Any, separator: bytes) -> None:
    try:
        whole = decoder.decode(text)
    except msgspec.MsgspecError:
        with pytest.raises(msgspec.MsgspecError):
            pieces.decode(text.encode(), decoder, separator, piece_bytes=6)
        return
    assert pieces.decode(text.encode(), decoder, separator, piece_bytes=6) == whole


@settings(max_examples=300)
@given(st.lists(st.lists(odd, max_size=3), max_size=12), st.sampled_from([None, 1]), st.sampled_from([ROWS, NUMBERS]))
def test_pieces_make_the_whole(rows: list[Any], indent: int | None, decoder: Any) -> None:
    both(json.dumps(rows, indent=indent), decoder, b"]" if decoder is ROWS else b",")
    flat = [value for row in rows for value in row]
    both(json.dumps(flat, indent=indent), decoder, b",")


def test_a_long_list_is_really_cut() -> None:
    text = json.dumps([[0.25, 1.5]] * 100_000).encode()
    assert pieces.decode(text, ROWS, b"]") == [[0.25, 1.5]] * 100_000

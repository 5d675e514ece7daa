"""Long JSON lists of numbers, decoded in pieces: a decoder holds the interpreter for as long as one call lasts.

Must not change what is accepted: what cannot be cut safely is decoded whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

PIECE_BYTES = 256 * 1024
"""About a millisecond of decoding."""


def decode(
    raw: msgspec.Raw | bytes, decoder: msgspec.json.Decoder[Any], separator: bytes, piece_bytes: int = PIECE_BYTES
) -> list[Any]:
    """Return what `decoder.decode(raw)` returns, for a decoder of lists.

    :param raw: valid JSON.
    :param separator: `,` for a list of numbers; `]` for a list of lists of numbers, which is cut after it.
    :raises msgspec.MsgspecError: as the decoder does.
    """
    if len(raw) > 2 * piece_bytes:
        try:
            return _in_pieces(bytes(raw).strip(), decoder, separator, piece_bytes)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            pass  # nested deeper, or text with a separator in it: only the whole is a list
    found: list[Any] = decoder.decode(raw)
    return found


def cut(text: bytes, start: int, end: int, separator: bytes, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """Yield what is in a list, from `start` to `end`, as shorter lists; the commas between them are left out.

    A list that ends in a comma, which JSON has not, gives an empty one at last; so does an empty list.

    :param separator: as in `decode`; `}` for a list of objects.
    """
    while True:
        place = text.find(separator, start + piece_bytes, end)
        if place >= 0 and separator != b",":
            place = text.find(b",", place, end)
        if place < 0:
            yield b"[" + text[start:end] + b"]"
            return
        yield b"[" + text[start:place] + b"]"
        start = place + 1


def _in_pieces(text: bytes, decoder: msgspec.json.Decoder[Any], separator: bytes, piece_bytes: int) -> list[Any]:
    if text[:1] != b"[" or text[-1:] != b"]":
        raise msgspec.ValidationError("not a list")
    found: list[Any] = []
    for piece in cut(text, 1, len(text) - 1, separator, piece_bytes):
        found += decoder.decode(piece)
    return found

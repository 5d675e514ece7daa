"""Long JSON lists of numbers, decoded in pieces: a decoder holds the interpreter for as long as one call lasts.

Must not change what is accepted: what cannot be cut safely is decoded whole.
"""

from __future__ import annotations

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


def _in_pieces(text: bytes, decoder: msgspec.json.Decoder[Any], separator: bytes, piece_bytes: int) -> list[Any]:
    if text[:1] != b"[" or text[-1:] != b"]":
        raise msgspec.ValidationError("not a list")
    found: list[Any] = []
    start, end = 1, len(text) - 1
    while start < end:
        cut = text.find(separator, start + piece_bytes, end)
        if cut < 0:
            cut = end
        elif separator == b"]":
            cut = text.find(b",", cut, end)
            cut = cut if cut >= 0 else end
        found += decoder.decode(b"[" + text[start:cut] + b"]")
        start = cut + 1
    return found

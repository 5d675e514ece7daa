"""Names for things that have no content of their own: sortable by time, unique across processes."""

from __future__ import annotations

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case


def _encode(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 32)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def new_id(prefix: str) -> str:
    """Return `prefix-` and 20 characters: 48 bits of milliseconds, then 52 random bits.

    Ids made later sort later (to the millisecond), so that a listing by id is a listing by time.
    """
    milliseconds = time.time_ns() // 1_000_000
    random_bits = int.from_bytes(os.urandom(7), "big") & ((1 << 50) - 1)
    return f"{prefix}-{_encode(milliseconds, 10)}{_encode(random_bits, 10)}"

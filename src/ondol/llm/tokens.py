"""Counting tokens without a tokenizer: for reservations, and for calls whose provider does not say.

Ratios are of today's byte-pair vocabularies: about four characters a token in English, about 1.4 tokens per two Hangul
syllables. `estimate` is the likely count, `at_most` errs on the high side. Must not download anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

_ASCII_PER_TOKEN = 4.0
_OTHER_TOKENS = 0.75  # tokens per character outside ASCII: Hangul 0.6-0.8, kana and ideographs 0.7-1.2
_PER_MESSAGE = 4  # role and separators
_SAFETY = 1.35


def estimate(text: str) -> int:
    """Return the likely number of tokens of a text; 0 only for an empty one."""
    if not text:
        return 0
    if text.isascii():
        return math.ceil(len(text) / _ASCII_PER_TOKEN)
    ascii_characters = len(text.encode("ascii", "ignore"))
    return math.ceil(ascii_characters / _ASCII_PER_TOKEN + (len(text) - ascii_characters) * _OTHER_TOKENS)


def estimate_messages(texts: Iterable[str]) -> int:
    """Return the likely number of input tokens of a chat."""
    return sum(estimate(text) + _PER_MESSAGE for text in texts) + 3


def at_most(tokens: int) -> int:
    """Return an estimate on the safe side, for holding money."""
    return math.ceil(tokens * _SAFETY) + 8

"""Text to numbered features, the same way when training and when checking. numpy and plain Python only.

Three kinds: hashed character 2- to 5-grams, hashed words and word pairs, and concepts (what several languages say
with different words: "ignore", "무시", "忽略") with their pairs. The first two carry detail; concepts carry what
was learned in one language to others. A feature has a place in the text, so that a long text can be scored window by window.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

BITS = 17
SIZE = 1 << BITS
_GRAMS = (2, 3, 4, 5)
_MIX = np.uint32(0x9E3779B1)
_STEP = np.uint32(0x01000193)
_MAX_WORD = 24

Ints = NDArray[np.int64]


@cache
def _concepts() -> tuple[list[str], list[tuple[str, int]]]:
    data = json.loads((resources.files("ondol.guardrails") / "data" / "concepts.json").read_text("utf-8"))
    names = list(data)
    return names, [(stem, index) for index, name in enumerate(names) for stem in data[name]]


def concept_count() -> int:
    """Return how many concept features there are: one each, and one per pair."""
    count = len(_concepts()[0])
    return count + count * (count - 1) // 2


@dataclass(frozen=True, slots=True)
class Features:
    """All features of one plain text."""

    length: int
    """Characters of the text as padded."""

    index: Ints
    """Hashed features, 0 to SIZE - 1."""

    place: Ints
    """Where each starts."""

    hits: tuple[tuple[int, int], ...]
    """Concepts with every place they stand at: (concept, place)."""


def _gram_hashes(codes: NDArray[np.uint32], size: int) -> NDArray[np.uint32]:
    count = len(codes) - size + 1
    value = np.full(count, 2166136261 + size, dtype=np.uint32)
    for offset in range(size):
        value = (value ^ codes[offset : offset + count]) * _STEP
    return (value * _MIX) >> np.uint32(32 - BITS)


def extract(plain: str) -> Features:
    """Return the features of a text that went through `normalize.plain`."""
    padded = f" {plain} "
    codes = np.frombuffer(padded.encode("utf-32-le", "replace"), dtype=np.uint32)
    indices, places = [], []
    for size in _GRAMS:
        if len(codes) >= size:
            hashed = _gram_hashes(codes, size)
            indices.append(hashed.astype(np.int64))
            places.append(np.arange(len(hashed), dtype=np.int64))
    words = _word_features(padded)
    indices.append(np.array([index for index, _ in words], dtype=np.int64))
    places.append(np.array([place for _, place in words], dtype=np.int64))
    return Features(len(padded), np.concatenate(indices), np.concatenate(places), _hits(padded))


def _word_hash(text: str) -> int:
    return (zlib.crc32(text.encode("utf-8", "replace")) * 0x9E3779B1 & 0xFFFFFFFF) >> (32 - BITS)


def _word_features(padded: str) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = []
    previous, position = "^", 0
    for word in padded.split():
        position = padded.find(word, position)
        short = word[:_MAX_WORD].strip(".,!?:;\"'()[]")
        made.extend((_word_hash(text), position) for text in (short, f"{previous} {short}"))
        previous = short
        position += len(word)
    return made


def _hits(padded: str) -> tuple[tuple[int, int], ...]:
    found = []
    for stem, concept in _concepts()[1]:
        place = padded.find(stem)
        tries = 0
        while place >= 0 and tries < 50:
            found.append((concept, place))
            place = padded.find(stem, place + 1)
            tries += 1
    return tuple(found)


def concept_features(hits: tuple[tuple[int, int], ...], start: int = 0, end: int = 1 << 60) -> list[int]:
    """Return the concept features of a window: each concept once, each pair once, numbered from 0."""
    count = len(_concepts()[0])
    present = sorted({concept for concept, place in hits if start <= place < end})
    made = list(present)
    for left_index, left in enumerate(present):
        # Pairs in the order (0,1), (0,2), …, (1,2), …
        first = count + left * count - left * (left + 1) // 2 - left - 1
        made.extend(first + right for right in present[left_index + 1 :])
    return made

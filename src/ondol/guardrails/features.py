"""Text to numbered features, the same way when training and when checking. numpy and plain Python only.

Three kinds: hashed character 2- to 5-grams, hashed words and word pairs, and concepts (what several languages say
with different words: "ignore", "무시", "忽略") with their pairs. The first two carry detail; concepts carry what
was learned in one language to others. A feature has a place in the text, so that parts can be scored alone.
"""

from __future__ import annotations

import json
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
_MAX_WORD = 31
_POWERS = np.array([pow(0x01000193, power, 1 << 32) for power in range(_MAX_WORD + 1)], dtype=np.uint32)

Ints = NDArray[np.int64]
Codes = NDArray[np.uint32]


@cache
def _concepts() -> list[str]:
    return list(_stems())


@cache
def _stems() -> dict[str, list[str]]:
    data: dict[str, list[str]] = json.loads(
        (resources.files("ondol.guardrails") / "data" / "concepts.json").read_text("utf-8")
    )
    return data


Starts = dict[str, list[tuple[str, int]]]


@cache
def _index(size: int) -> tuple[NDArray[np.uint64], Starts]:
    """How stems begin, by their first characters: sorted keys for numpy, and what may begin there.

    Size 3 holds the stems of three characters and more, size 2 the shorter ones.
    """
    starts: Starts = {}
    for number, stems in enumerate(_stems().values()):
        for stem in stems:
            if min(len(stem), 3) == size:
                starts.setdefault(stem[:size], []).append((stem, number))
    keys = sorted(sum(ord(char) << (21 * place) for place, char in enumerate(start)) for start in starts)
    return np.array(keys, dtype=np.uint64), starts


def concept_count() -> int:
    """Return how many concept features there are: one each, and one per pair."""
    count = len(_concepts())
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


def _gram_hashes(codes: Codes, size: int) -> Codes:
    count = len(codes) - size + 1
    value = np.full(count, (2166136261 + size) & 0xFFFFFFFF, dtype=np.uint32)
    for offset in range(size):
        value = (value ^ codes[offset : offset + count]) * _STEP
    return (value * _MIX) >> np.uint32(32 - BITS)


def _word_hashes(codes: Codes) -> tuple[Codes, Ints]:
    """Hashes of words and of pairs of neighbours, with the place of their last word; punctuation parts words."""
    inside = (codes > 0x7F) | ((codes >= 0x30) & (codes <= 0x39)) | ((codes >= 0x61) & (codes <= 0x7A))
    edges = np.diff(inside.astype(np.int8), prepend=0)
    starts = np.flatnonzero(edges == 1)
    if not len(starts):
        return np.zeros(0, np.uint32), np.zeros(0, np.int64)
    number = np.cumsum(edges == 1) - 1
    within = np.arange(len(codes)) - starts[np.maximum(number, 0)]
    terms = np.where(inside & (number >= 0), (codes + np.uint32(1)) * _POWERS[np.clip(within, 0, _MAX_WORD)], 0)
    words = np.add.reduceat(terms.astype(np.uint32), starts, dtype=np.uint32)
    pairs = np.concatenate((np.array([7], np.uint32), words[:-1])) * _STEP ^ words
    both = np.concatenate((words ^ np.uint32(0x5BD1E995), pairs))
    return (both * _MIX) >> np.uint32(32 - BITS), np.concatenate((starts, starts)).astype(np.int64)


def extract(plain: str) -> Features:
    """Return the features of a text that went through `normalize.plain`."""
    padded = f" {plain} "
    codes = np.frombuffer(padded.encode("utf-32-le", "replace"), dtype=np.uint32)
    indices, places = [], []
    for size in _GRAMS:
        if len(codes) >= size:
            hashed = _gram_hashes(codes, size)
            indices.append(hashed)
            places.append(np.arange(len(hashed), dtype=np.int64))
    words, word_places = _word_hashes(codes)
    index = np.concatenate([*indices, words]).astype(np.int64)
    return Features(len(codes), index, np.concatenate([*places, word_places]), _hits(padded, codes))


def _hits(padded: str, codes: Codes) -> tuple[tuple[int, int], ...]:
    wide = codes.astype(np.uint64)
    hits = []
    for size in (2, 3):
        keys, starts = _index(size)
        count = len(wide) - size + 1
        if count < 1 or not len(keys):
            continue
        heads = wide[:count].copy()
        for offset in range(1, size):
            heads |= wide[offset : offset + count] << np.uint64(21 * offset)
        nearest = np.minimum(np.searchsorted(keys, heads), len(keys) - 1)
        for place in np.flatnonzero(keys[nearest] == heads).tolist():
            known = starts.get(padded[place : place + size], ())
            hits += [(number, place) for stem, number in known if padded.startswith(stem, place)]
    return tuple(hits)


def concept_features(present: set[int]) -> list[int]:
    """Return the features of a set of concepts: each once, each pair once, numbered from 0."""
    count = len(_concepts())
    ordered = sorted(present)
    made = list(ordered)
    for position, left in enumerate(ordered):
        # Pairs in the order (0,1), (0,2), …, (1,2), …
        first = count + left * count - left * (left + 1) // 2 - left - 1
        made.extend(first + right for right in ordered[position + 1 :])
    return made

"""BM25 over script-run words and Hangul pairs, as plain arrays that are memory-mapped.

Must not know documents or vectors. Per term, the rows it occurs in and its BM25 weight in each are computed when the
index is built, so that a query is one look-up per word and one weighted count. The same pass gives the coverage that
gates fusion: which share of the query's IDF mass a row has.

BM25: Robertson & Zaragoza (2009), with Lucene's non-negative IDF.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.base import text

VERSION = 1  # grows when the same passages would give other words or weights: part of a snapshot's identity
_K1, _B = 1.2, 0.75
_SMALL, _COMMON = 5000, 0.2  # in a collection larger than this, words in more than this share of it say nothing
_IDENTIFIER = 3.0  # an identifier in the question counts this many times in coverage: vectors confuse them
FILES = ("terms", "term_offsets", "posting_rows", "posting_weights")
Floats = NDArray[np.float32]


def _hash(term: str) -> int:
    """64 bits of a term: among a million terms the chance of any collision is 3e-8."""
    return int.from_bytes(hashlib.blake2b(term.encode(), digest_size=8).digest(), "little")


def _is_identifier(word: str) -> bool:
    """Whether a word names one thing: an error code, a version, a setting, a year."""
    return "_" in word or (len(word) > 1 and any(letter.isdigit() for letter in word))


def _idf(rows: int, having: int) -> float:
    return math.log(1.0 + (rows - having + 0.5) / (having + 0.5))


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Postings of one snapshot.

    :param terms: sorted 64-bit hashes, shape (terms,).
    :param offsets: where each term's postings begin and, last, end; shape (terms + 1,).
    :param rows: chunk rows, ascending within a term.
    :param weights: BM25 weight of the term in that row.
    :param size: number of chunks.
    """

    terms: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int32]
    weights: Floats
    size: int

    def scores(self, query: str) -> tuple[Floats, Floats]:
        """Return BM25 and coverage in [0, 1] of every row, both of shape (size,).

        In a large collection the words that are nearly everywhere are left out, unless there are no others: they cost
        most of the time and tell nothing apart.
        """
        found = []
        for word in text.subject_words(query):
            start, end = self._span(word)
            found.append((start, end, _idf(self.size, end - start) * (_IDENTIFIER if _is_identifier(word) else 1.0)))
        if self.size > _SMALL and any(end - start <= _COMMON * self.size for start, end, _ in found):
            found = [item for item in found if item[1] - item[0] <= _COMMON * self.size]
        mass = sum(idf for _, _, idf in found)
        score, coverage = np.zeros(self.size, dtype=np.float32), np.zeros(self.size, dtype=np.float32)
        for start, end, idf in found:
            rows = self.rows[start:end]  # each row once: a plain indexed addition is enough
            score[rows] += self.weights[start:end]
            coverage[rows] += np.float32(idf / mass)
        return score, coverage

    def _span(self, word: str) -> tuple[int, int]:
        """Return where a word's postings begin and end; the same twice when it occurs nowhere."""
        wanted = np.uint64(_hash(word))
        at = int(np.searchsorted(self.terms, wanted))
        if at == len(self.terms) or self.terms[at] != wanted:
            return 0, 0
        return int(self.offsets[at]), int(self.offsets[at + 1])

    def save(self, folder: Path) -> None:
        """Write the arrays into a folder."""
        arrays: tuple[NDArray[Any], ...] = (self.terms, self.offsets, self.rows, self.weights)
        for name, array in zip(FILES, arrays, strict=True):
            np.save(folder / f"{name}.npy", array)


def load(folder: Path, size: int) -> Lexicon:
    """Map a saved lexicon into memory."""
    terms, offsets, rows, weights = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in FILES)
    return Lexicon(terms, offsets, rows, weights, size)


def build(passages: Iterable[str]) -> Lexicon:
    """Index passages; row i is the i-th."""
    numbers: dict[str, int] = {}
    terms: list[int] = []
    rows: list[int] = []
    counts: list[int] = []
    lengths: list[int] = []
    for row, passage in enumerate(passages):
        words = text.words(passage)
        lengths.append(len(words))
        for word, count in Counter(words).items():
            terms.append(numbers.setdefault(word, len(numbers)))
            rows.append(row)
            counts.append(count)
    return _arrange(numbers, terms, rows, counts, lengths)


def _arrange(
    numbers: dict[str, int], terms: list[int], rows: list[int], counts: list[int], lengths: list[int]
) -> Lexicon:
    hashes = np.fromiter((_hash(word) for word in numbers), dtype=np.uint64, count=len(numbers))
    ranks = np.argsort(hashes)  # number of a term by rank
    rank_of = np.empty(len(ranks), dtype=np.int64)
    rank_of[ranks] = np.arange(len(ranks))
    term = rank_of[np.asarray(terms, dtype=np.int64)]
    order = np.argsort(term, kind="stable")  # rows stay ascending within a term
    row = np.asarray(rows, dtype=np.int32)[order]
    count = np.asarray(counts, dtype=np.float64)[order]
    having = np.bincount(term, minlength=len(ranks))
    offsets = np.concatenate([[0], np.cumsum(having)]).astype(np.int64)
    length = np.asarray(lengths, dtype=np.float64)
    mean = max(1.0, float(length.mean())) if len(length) else 1.0
    idf = np.log(1.0 + (len(lengths) - having + 0.5) / (having + 0.5))
    norm = _K1 * (1 - _B + _B * length[row] / mean)
    weights = np.repeat(idf, having) * count * (_K1 + 1) / (count + norm)
    return Lexicon(hashes[ranks], offsets, row, weights.astype(np.float32), len(lengths))

"""Vectors and their nearest rows: the port for vector stores, and the embedded one in numpy.

Must not know texts or documents. A filter is applied before the search, never after it: a filtered search returns k
rows whenever k match.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ondol.base import errors
from ondol.retrieval import filters
from ondol.retrieval.transform import Matrix

COARSE_FROM = 20_000
"""Rows from which a projection is searched first; below, one exact product takes 3 ms or less."""

COARSE_DIMENSIONS = 96
COARSE_CANDIDATES = 400
Mask = NDArray[np.bool_]
Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Match:
    """A stored vector near a query."""

    id: str
    score: float
    """Cosine similarity, greater is nearer."""


class VectorStore(Protocol):
    """What keeps vectors with metadata and finds the nearest; one namespace of any store.

    Vectors are unit rows. Every store passes the same contract (tests/contract/test_vector_store.py).
    """

    def upsert(self, ids: Sequence[str], vectors: Matrix, metadata: Sequence[Mapping[str, Any]]) -> None:
        """Write rows, replacing those with the same id; searchable when it returns."""
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows and return how many there were."""
        ...

    def search(self, vector: Matrix, k: int, where: Mapping[str, Any] | None = None) -> list[Match]:
        """Return the k nearest rows among those the filter lets through, nearest first, ties by id.

        :raises UsageError: for a filter the store cannot express.
        """
        ...

    def count(self) -> int:
        """Return the number of rows."""
        ...

    def ids(self) -> Iterator[str]:
        """Yield every row's id, in no particular order: what a synchronisation is verified with."""
        ...


@dataclass(frozen=True, slots=True)
class Flat:
    """A matrix searched row by row: exact, or through a projection first when it is large.

    :param matrix: unit rows, shape (n, d); may be memory-mapped.
    :param projection: shape (d, COARSE_DIMENSIONS), orthonormal columns; None for a small matrix.
    :param coarse: `matrix @ projection`, shape (n, COARSE_DIMENSIONS).
    """

    matrix: Matrix
    projection: Matrix | None = None
    coarse: Matrix | None = None

    def nearest(self, vector: Matrix, k: int, mask: Mask | None = None) -> tuple[Rows, Matrix]:
        """Return the rows of the k largest products among those in the mask, and the products, largest first."""
        rows: Rows | None = None if mask is None else np.flatnonzero(mask)
        if self.coarse is not None and self.projection is not None and (rows is None or rows.size > COARSE_FROM):
            rough = self.coarse @ (vector @ self.projection)
            if mask is not None:
                rough[~mask] = -np.inf
            rows = np.sort(largest(rough, max(COARSE_CANDIDATES, 4 * k)))
            if mask is not None:
                rows = rows[mask[rows]]
        scores = self.matrix @ vector if rows is None else self.matrix[rows] @ vector
        best = largest(scores, k)
        best = best[np.argsort(-scores[best], kind="stable")]
        found = best if rows is None else rows[best]
        return found, np.asarray(scores[best], dtype=np.float32)


def largest(scores: NDArray[Any], k: int) -> Rows:
    """Return the positions of the k largest scores, in ascending position; ties prefer the smaller position."""
    if k >= len(scores):
        return np.arange(len(scores))
    threshold = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > threshold)
    level = np.flatnonzero(scores == threshold)[: k - len(above)]
    return np.sort(np.concatenate([above, level]))


def flat(matrix: Matrix) -> Flat:
    """Prepare a matrix for search; large ones get a projection on their first principal directions."""
    if len(matrix) < COARSE_FROM or matrix.shape[1] <= COARSE_DIMENSIONS:
        return Flat(matrix)
    sample = matrix[:: max(1, len(matrix) // 20_000)].astype(np.float64)
    _, directions = np.linalg.eigh(sample.T @ sample)
    projection = np.ascontiguousarray(directions[:, ::-1][:, :COARSE_DIMENSIONS], dtype=np.float32)
    return Flat(matrix, projection, np.ascontiguousarray(matrix @ projection))


def save(vectors: Flat, folder: Path) -> None:
    """Write the arrays into a folder."""
    np.save(folder / "vectors.npy", vectors.matrix)
    if vectors.projection is not None and vectors.coarse is not None:
        np.save(folder / "projection.npy", vectors.projection)
        np.save(folder / "coarse.npy", vectors.coarse)


def load(folder: Path) -> Flat:
    """Map saved vectors into memory."""
    matrix = np.load(folder / "vectors.npy", mmap_mode="r")
    if not (folder / "coarse.npy").exists():
        return Flat(matrix)
    return Flat(matrix, np.load(folder / "projection.npy"), np.load(folder / "coarse.npy", mmap_mode="r"))


class EmbeddedStore:
    """The embedded `VectorStore`: rows in memory.

    :param dimensions: length of every vector.
    """

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._ids: list[str] = []
        self._row_of: dict[str, int] = {}
        self._metadata: list[dict[str, Any]] = []
        self._matrix = np.zeros((0, dimensions), dtype=np.float32)
        self._flat: Flat | None = None

    def upsert(self, ids: Sequence[str], vectors: Matrix, metadata: Sequence[Mapping[str, Any]]) -> None:
        if not len(ids) == len(vectors) == len(metadata):
            raise errors.UsageError(f"{len(ids)} ids, {len(vectors)} vectors, {len(metadata)} metadata", code="USE-042")
        if vectors.ndim != 2 or vectors.shape[1] != self._dimensions:
            raise errors.UsageError(
                f"vectors of shape {vectors.shape}, this store has {self._dimensions} dimensions", code="USE-042"
            )
        self.delete([identity for identity in ids if identity in self._row_of])
        latest = {identity: number for number, identity in enumerate(ids)}  # the last of equal ids in one call wins
        order = sorted(latest.values())
        for number in order:
            self._row_of[ids[number]] = len(self._ids)
            self._ids.append(ids[number])
            self._metadata.append(dict(metadata[number]))
        self._matrix = np.concatenate([self._matrix, np.asarray(vectors[order], dtype=np.float32)])
        self._flat = None

    def delete(self, ids: Sequence[str]) -> int:
        gone = {self._row_of[identity] for identity in ids if identity in self._row_of}
        if gone:
            kept = [row for row in range(len(self._ids)) if row not in gone]
            self._ids = [self._ids[row] for row in kept]
            self._metadata = [self._metadata[row] for row in kept]
            self._matrix = np.ascontiguousarray(self._matrix[kept])
            self._row_of = {identity: row for row, identity in enumerate(self._ids)}
            self._flat = None
        return len(gone)

    def search(self, vector: Matrix, k: int, where: Mapping[str, Any] | None = None) -> list[Match]:
        predicate = filters.compile_filter(where)
        mask = None
        if predicate is not None:
            mask = np.fromiter((predicate(item) for item in self._metadata), dtype=np.bool_, count=len(self._ids))
        if self._flat is None:
            self._flat = flat(self._matrix)
        rows, scores = self._flat.nearest(np.asarray(vector, dtype=np.float32), k, mask)
        found = [Match(self._ids[row], float(score)) for row, score in zip(rows, scores, strict=True)]
        return sorted(found, key=lambda match: (-match.score, match.id))

    def count(self) -> int:
        return len(self._ids)

    def ids(self) -> Iterator[str]:
        return iter(list(self._ids))

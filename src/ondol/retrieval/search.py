"""Searching one snapshot: vectors and words, fused with a gate.

Must not change anything. Reciprocal rank fusion (Cormack et al. 2009) lets a list vote whether it knows anything or
not, and BM25 always returns something; so a lexical hit counts only when it covers enough of what the question is
about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ondol.base import errors
from ondol.records.retrieval import Hit, SearchOptions, Snapshot
from ondol.retrieval import filters, vectors
from ondol.retrieval.cached import CachedEmbedder
from ondol.retrieval.chunking import Chunk
from ondol.retrieval.snapshot import Opened
from ondol.retrieval.transform import Matrix
from ondol.retrieval.vectors import Mask, Rows

DEFAULTS = SearchOptions()
MAX_QUERY = 4000
"""Characters of a question that are read; the rest cannot change what a 512-token model finds."""


class Index:
    """An opened snapshot with its embedder. Safe to use from several threads.

    :param opened: the snapshot's arrays.
    :param embedder: must be the one the snapshot was built with.
    :raises StateError: when it is another: its vectors would be compared with foreign ones.
    """

    def __init__(self, opened: Opened, embedder: CachedEmbedder) -> None:
        built_with = opened.manifest.snapshot.embedder
        if built_with != embedder.id:
            raise errors.StateError(
                f"the index was built with {built_with!r}, this machine embeds with {embedder.id!r}",
                way_out="Build the index again here, or install the embedder it was built with.",
                code="STA-044",
            )
        self._opened = opened
        self._embedder = embedder

    @property
    def snapshot(self) -> Snapshot:
        return self._opened.manifest.snapshot

    @property
    def chunks(self) -> Sequence[Chunk]:
        """All chunks, by row."""
        return self._opened.chunks

    def search(
        self, query: str, k: int = 5, *, where: Mapping[str, Any] | None = None, options: SearchOptions = DEFAULTS
    ) -> list[Hit]:
        """Return the k best chunks among the documents the filter lets through, best first; deterministic.

        :raises UsageError: for an empty query, k below 1, or a filter that means nothing.
        """
        query = query.strip()[:MAX_QUERY]
        if not query:
            raise errors.UsageError("the query is empty", code="USE-043")
        if k < 1:
            raise errors.UsageError(f"k is {k}", way_out="Ask for one hit or more.", code="USE-044")
        mask = self._mask(where)
        bm25, coverage = self._opened.lexicon.scores(query)
        if self._opened.flat is None:
            rows = _best(bm25, coverage > 0, mask, k)
            return [self._hit(row, coverage[row], 0.0, bm25[row], coverage[row]) for row in rows]
        vector = self._embedder.embed_query(query)
        length = max(options.candidates, k)
        dense, _ = self._opened.flat.nearest(vector, length, mask)
        words = _best(bm25, coverage >= max(options.gate, 1e-6), mask, length)
        fused = fuse(dense, words, options)[:k]
        found = np.asarray([row for row, _ in fused], dtype=np.intp)
        cosines = self._opened.flat.matrix[found] @ vector if len(found) else found
        return [
            self._hit(row, score, cosine, bm25[row], coverage[row])
            for (row, score), cosine in zip(fused, cosines, strict=True)
        ]

    def similarities(self, question: str, passages: Sequence[str]) -> list[float]:
        """Return the cosine of a question and each of some short passages; [] without vectors. Cached."""
        if self._opened.flat is None or not passages:
            return []
        vector = self._embedder.embed_query(question.strip()[:MAX_QUERY])
        return [float(value) for value in self._embedder.embed_documents(passages) @ vector]

    def _mask(self, where: Mapping[str, Any] | None) -> Mask | None:
        predicate = filters.compile_filter(where)
        if predicate is None:
            return None
        documents = self.snapshot.documents
        passing = np.fromiter((predicate(item.metadata) for item in documents), dtype=np.bool_, count=len(documents))
        return np.asarray(passing[self._opened.documents], dtype=np.bool_)

    def _hit(self, row: int, score: float, dense: float, bm25: float, coverage: float) -> Hit:
        chunk: Chunk = self._opened.chunks[int(row)]
        metadata = self.snapshot.documents[int(self._opened.documents[row])].metadata
        return Hit(
            chunk_id=chunk.id,
            document=chunk.document,
            title=chunk.title,
            text=chunk.text,
            score=round(float(score), 6),
            dense=round(float(dense), 6),
            lexical=round(float(bm25), 6),
            start=chunk.start,
            end=chunk.end,
            coverage=round(float(coverage), 6),
            page=chunk.page,
            metadata=metadata,
        )


def _best(scores: Matrix, admitted: Mask, mask: Mask | None, k: int) -> Rows:
    """Return the k rows with the largest scores among those admitted and let through, best first."""
    rows = np.flatnonzero(admitted if mask is None else admitted & mask)
    best = vectors.largest(scores[rows], k)
    return rows[best[np.argsort(-scores[rows[best]], kind="stable")]]


def fuse(dense: Rows, lexical: Rows, options: SearchOptions) -> list[tuple[int, float]]:
    """Fuse two ranked lists by weighted reciprocal ranks; scores are scaled so that first in both lists is 1.

    Ties go to the list order of the dense list, then to the smaller row.
    """
    lists = [(dense, 1.0)] + ([(lexical, options.lexical_weight)] if len(lexical) else [])
    best = sum(weight for _, weight in lists) / (options.rrf_constant + 1)
    scores: dict[int, float] = {}
    for rows, weight in lists:
        for rank, row in enumerate(rows):
            scores[int(row)] = scores.get(int(row), 0.0) + weight / (options.rrf_constant + rank + 1)
    place = {int(row): rank for rank, row in enumerate(dense)}
    order = sorted(scores, key=lambda row: (-scores[row], place.get(row, len(place)), row))
    return [(row, scores[row] / best) for row in order]

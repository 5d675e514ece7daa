"""An embedder with a memory: vectors shipped with the package, then those of this home, then the model.

Must not change a vector. Every batch is remembered as soon as it is computed, so that an interrupted build goes on
where it stopped.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from ondol.base.progress import SILENT, Progress
from ondol.retrieval.embedding import Embedder
from ondol.retrieval.transform import Matrix, unit
from ondol.store import vector_cache

CACHE_FILE = "embeddings.db"
SHIPPED = "docs_vectors.npz"
STAGE = "embedding"
_AT_ONCE = 8  # passages per call: seconds of work at most are lost when it is killed


class CachedEmbedder:
    """Embeds passages, asking the caches first.

    :param embedder: what computes the vectors that are not known.
    :param home: the folder with this home's cache; None: only the shipped vectors.
    """

    def __init__(self, embedder: Embedder, home: Path | None) -> None:
        self.inner = embedder
        self._cache = vector_cache.VectorCache(home / CACHE_FILE) if home else None
        self.computed = 0
        self.known = 0

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def dimensions(self) -> int:
        return self.inner.dimensions

    def embed_query(self, query: str) -> Matrix:
        """Return the unit vector of a question, shape (dimensions,)."""
        known = shipped(self.id).get(vector_cache.key(self.id, "query", query))
        return self.inner.embed_query(query) if known is None else known

    def embed_documents(self, texts: Sequence[str], progress: Progress = SILENT) -> Matrix:
        """Return unit vectors of passages, shape (n, dimensions)."""
        if not self.dimensions or not texts:
            return np.zeros((len(texts), self.dimensions), dtype=np.float32)
        keys = [vector_cache.key(self.id, "passage", text) for text in texts]
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        missing = self._recall(keys, vectors)
        progress.start(STAGE, len(texts))
        progress.advance(STAGE, len(texts) - len(missing))
        for start in range(0, len(missing), _AT_ONCE):
            rows = missing[start : start + _AT_ONCE]
            fresh = np.asarray(self.inner.embed_documents([texts[row] for row in rows]), dtype=np.float32)
            vectors[rows] = fresh
            if self._cache is not None:
                self._cache.put([(keys[row], vector.tobytes()) for row, vector in zip(rows, fresh, strict=True)])
            progress.advance(STAGE, len(rows))
        self.computed += len(missing)
        self.known += len(texts) - len(missing)
        progress.finish(STAGE, f"{len(texts)} chunks, {len(missing)} of them new")
        return vectors

    def _recall(self, keys: list[bytes], vectors: Matrix) -> list[int]:
        """Fill in what is known and return the rows that are not; equal texts are computed once per batch at most."""
        packaged = shipped(self.id)
        here = self._cache.get([key for key in keys if key not in packaged]) if self._cache is not None else {}
        missing: list[int] = []
        for row, key in enumerate(keys):
            known = packaged.get(key)
            if known is None and len(here.get(key, b"")) == 4 * self.dimensions:
                known = np.frombuffer(here[key], dtype=np.float32)
            if known is None:
                missing.append(row)
            else:
                vectors[row] = known
        return missing

    def close(self) -> None:
        """Close the cache file."""
        if self._cache is not None:
            self._cache.close()


@cache
def shipped(embedder: str) -> dict[bytes, Matrix]:
    """Return the vectors that ship with the package for this embedder, by key; {} when there are none."""
    asset = resources.files("ondol.assets").joinpath(SHIPPED)
    if not asset.is_file():
        return {}
    return unpack(asset.read_bytes(), embedder)


def unpack(data: bytes, embedder: str) -> dict[bytes, Matrix]:
    """Return packed vectors by key; {} when another embedder made them."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        if str(file["embedder"]) != embedder:
            return {}
        vectors = unit(file["vectors"].astype(np.float32))  # a vector's scale goes out with its length
        return {row.tobytes(): vector for row, vector in zip(file["keys"], vectors, strict=True)}


def pack(embedder: str, keys: Sequence[bytes], vectors: Matrix) -> bytes:
    """Return what `unpack` reads: a byte a number, 0.4 KB a vector; cosines change by less than 0.002."""
    buffer = io.BytesIO()
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    np.savez_compressed(
        buffer,
        embedder=np.array(embedder),
        keys=np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(keys), -1),
        vectors=np.round(vectors / np.where(largest > 0, largest, 1) * 127).astype(np.int8),
    )
    return buffer.getvalue()

"""Hybrid search over 100,000 chunks: time per query, and recall against the exact product.

Vectors are random around 1,000 centres in 50 subjects (a stand-in for the structure of real ones; the model itself
would need hours); texts are words drawn by Zipf's law, Korean and English. Embedding the question is not in the times.
Beside it, the same texts in SQLite FTS5 with the same words.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ondol.base import text
from ondol.records.retrieval import DocumentEntry, IndexOptions, SearchOptions, Snapshot
from ondol.retrieval import lexical, snapshot, vectors
from ondol.retrieval.cached import CachedEmbedder
from ondol.retrieval.chunking import Chunk
from ondol.retrieval.search import Index
from ondol.retrieval.transform import Matrix, unit

DIMENSIONS, QUERIES, K = 384, 200, 10


class Given:
    """An embedder that knows the vectors of the benchmark's questions."""

    id, dimensions = "given", DIMENSIONS

    def __init__(self, known: dict[str, Matrix]) -> None:
        self.known = known

    def embed_documents(self, texts: Any) -> Matrix:
        return np.stack([self.known[item] for item in texts])

    def embed_query(self, query: str) -> Matrix:
        return self.known[query]


def clustered(count: int, generator: np.random.Generator) -> tuple[Matrix, Matrix]:
    """Return rows and queries around the same centres."""
    subjects = generator.normal(size=(50, DIMENSIONS))
    centres = subjects[generator.integers(0, 50, 1000)] + 0.7 * generator.normal(size=(1000, DIMENSIONS))
    rows, queries = (
        unit(
            (centres[generator.integers(0, 1000, size)] + 0.8 * generator.normal(size=(size, DIMENSIONS))).astype(
                np.float32
            )
        )
        for size in (count, QUERIES)
    )
    return rows, queries


def passages(count: int, generator: np.random.Generator) -> list[str]:
    """Return texts of 60 words by Zipf's law from 30,000 made-up words, a third of them Korean."""
    latin = np.array(list("abcdefghijklmnoprstuvwy"))
    hangul = [chr(code) for code in range(0xAC00, 0xD7A4, 17)]
    words = ["".join(generator.choice(latin, generator.integers(3, 10))) for _ in range(20_000)]
    words += ["".join(generator.choice(hangul, generator.integers(2, 5))) for _ in range(10_000)]
    generator.shuffle(words)
    drawn = np.minimum(generator.zipf(1.15, size=(count, 60)), len(words)) - 1
    return [" ".join(words[number] for number in row) for row in drawn]


def times(call: Callable[[int], Any]) -> dict[str, float]:
    for number in range(10):
        call(number)
    spent = []
    for number in range(QUERIES):
        began = time.perf_counter()
        call(number)
        spent.append(1000 * (time.perf_counter() - began))
    return {"p50_ms": round(float(np.percentile(spent, 50)), 2), "p99_ms": round(float(np.percentile(spent, 99)), 2)}


def open_index(home: Path, rows: Matrix, texts: list[str], known: dict[str, Matrix]) -> Index:
    documents = tuple(DocumentEntry(f"{n}.txt", "", "", 0, {"group": n % 20}) for n in range(100))
    built = Snapshot("sha256:bench", "bench", IndexOptions(), Given.id, DIMENSIONS, documents, len(rows))
    chunks = [Chunk(str(n), f"{n % 100}.txt", "", item, 0, len(item)) for n, item in enumerate(texts)]
    snapshot.write(home, {"documents": []}, built, chunks, vectors.flat(rows), lexical.build(texts))
    return Index(snapshot.open_at(home, built.digest), CachedEmbedder(Given(known), None))


def fts5(texts: list[str], questions: list[str]) -> dict[str, float]:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE VIRTUAL TABLE t USING fts5(words, content='', tokenize='unicode61')")
    connection.executemany(
        "INSERT INTO t (rowid, words) VALUES (?, ?)", ((n, " ".join(text.words(item))) for n, item in enumerate(texts))
    )
    asked = [" OR ".join(f'"{word}"' for word in text.subject_words(question)) for question in questions]
    query = "SELECT rowid FROM t WHERE t MATCH ? ORDER BY rank LIMIT 50"
    figures = times(lambda number: connection.execute(query, (asked[number],)).fetchall())
    connection.close()
    return figures


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    generator = np.random.default_rng(0)
    rows, queries = clustered(count, generator)
    texts = passages(count, generator)
    questions = [" ".join(texts[generator.integers(count)].split()[:6]) for _ in range(QUERIES)]
    known = dict(zip(questions, queries, strict=True))
    exact = [set(np.argpartition(-(rows @ query), K)[:K].tolist()) for query in queries]
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        opened = open_index(Path(folder), rows, texts, known)
        written = time.perf_counter() - began
        dense_only = SearchOptions(gate=2)
        found = [{int(hit.chunk_id) for hit in opened.search(one, K, options=dense_only)} for one in questions]
        recall = sum(len(a & b) for a, b in zip(found, exact, strict=True)) / (K * QUERIES)
        results: dict[str, Any] = {
            "chunks": count,
            "write_seconds_without_embedding": round(written, 1),
            "recall@10 of vectors": round(recall, 4),
            "hybrid": times(lambda number: opened.search(questions[number], K)),
            "vectors only": times(lambda number: opened.search(questions[number], K, options=dense_only)),
            "hybrid, 5 % filter": times(lambda number: opened.search(questions[number], K, where={"group": 3})),
            "exact product": times(lambda number: rows @ queries[number]),
        }
    results["words only, FTS5"] = fts5(texts, questions)
    for name, value in results.items():
        print(f"{name:34} {value}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()

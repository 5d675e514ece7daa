"""Building an index: documents to a snapshot, and the pointer of the index's name moved to it.

Only what changed is embedded; the same content and options give the same snapshot. A build that fails or is killed
leaves the pointer and every snapshot as they were.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ondol.base import errors, hashing
from ondol.base.progress import SILENT, Progress
from ondol.records import codec
from ondol.records.retrieval import BuildReport, DocumentEntry, Hit, IndexOptions, Skipped, Snapshot
from ondol.retrieval import chunking, documents, embedding, lexical, snapshot, vectors
from ondol.retrieval.cached import CachedEmbedder
from ondol.retrieval.chunking import Chunk
from ondol.retrieval.documents import Source
from ondol.retrieval.embedding import Embedder
from ondol.retrieval.search import Index
from ondol.store import indexes
from ondol.store.connection import Store

__all__ = ["Hit", "Index", "IndexOptions", "Plan", "Snapshot", "build", "open_index", "open_snapshot", "plan"]

DEFAULTS = IndexOptions()
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_READING = "reading"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a build would do; `digest` equal to `current` means nothing."""

    digest: str
    current: str
    """The snapshot the name means now; empty when there is none."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int
    skipped: tuple[Skipped, ...]

    @property
    def up_to_date(self) -> bool:
        return self.digest == self.current


def check_name(name: str) -> None:
    """Refuse a name that would not fit a reference `name@digest` or a URL.

    :raises UsageError: saying what a name may be.
    """
    if not _NAME.fullmatch(name):
        raise errors.UsageError(
            f"{name!r} is no index name",
            way_out="Use lower case letters, digits, '.', '_' and '-', beginning with a letter or digit.",
            code="USE-045",
        )


def plan(
    name: str,
    source: Path,
    *,
    home: Path,
    store: Store,
    options: IndexOptions = DEFAULTS,
    embedder: Embedder | None = None,
) -> Plan:
    """Return what a build would change, without building.

    :raises OndolError: as `build`.
    """
    check_name(name)
    sources, skipped = documents.scan(source)
    chosen = embedder or embedding.make(options)
    return _plan(name, sources, skipped, _identity(sources, options, chosen), home, store)


def _identity(sources: list[Source], options: IndexOptions, embedder: Embedder) -> dict[str, Any]:
    return {
        "documents": [[source.name, source.digest] for source in sources],
        "chunks": codec.plain(options.chunks),
        "embedder": embedder.id,
        "versions": {
            "format": snapshot.FORMAT,
            "reader": documents.READER_VERSION,
            "chunker": chunking.CHUNKER_VERSION,
            "lexical": lexical.VERSION,
        },
    }


def _plan(
    name: str, sources: list[Source], skipped: list[Skipped], identity: dict[str, Any], home: Path, store: Store
) -> Plan:
    current = indexes.current(store, name) if name in indexes.names(store) else ""
    before: dict[str, str] = {}
    if current and snapshot.exists(home, current):
        before = dict(snapshot.read_manifest(home, current).identity["documents"])
    now = {source.name: source.digest for source in sources}
    return Plan(
        digest=hashing.of_json(identity),
        current=current,
        added=tuple(path for path in now if path not in before),
        changed=tuple(path for path, digest in now.items() if before.get(path, digest) != digest),
        removed=tuple(path for path in before if path not in now),
        unchanged=sum(before.get(path) == digest for path, digest in now.items()),
        skipped=tuple(skipped),
    )


def build(
    name: str,
    source: Path,
    *,
    home: Path,
    store: Store,
    options: IndexOptions = DEFAULTS,
    progress: Progress = SILENT,
    embedder: Embedder | None = None,
) -> Snapshot:
    """Index a folder of documents (or one file) and point `name` at the snapshot.

    :param embedder: overrides `options.embedder`; its id becomes part of the snapshot.
    :raises UsageError: for a bad name or option.
    :raises NotFoundError: when there is nothing at `source`.
    :raises InputError: when no document could be read; the index stays as it was.
    :raises UpstreamError: when an embedding endpoint fails; the index stays as it was.
    """
    started = time.monotonic()
    check_name(name)
    check_options(options)
    sources, skipped = documents.scan(source)
    if not sources:
        raise _nothing_readable(source, skipped)
    remembering = CachedEmbedder(embedder or embedding.make(options), home)
    try:
        identity = _identity(sources, options, remembering)
        todo = _plan(name, sources, skipped, identity, home, store)
        if snapshot.exists(home, todo.digest):
            snapshot.touch(home, todo.digest)
            built = snapshot.read_manifest(home, todo.digest).snapshot
        else:
            built = _write(name, source, sources, identity, options, remembering, home, progress)
        unread = {item.path for item in built.report.skipped}
        report = BuildReport(
            added=tuple(path for path in todo.added if path not in unread),
            changed=tuple(path for path in todo.changed if path not in unread),
            removed=todo.removed,
            unchanged=todo.unchanged,
            skipped=(*skipped, *built.report.skipped),
            embedded=remembering.computed,
            cached=built.chunks - remembering.computed,
            seconds=round(time.monotonic() - started, 3),
            notes=built.report.notes,
        )
    finally:
        remembering.close()
    indexes.point(store, name, built.digest, "build", _move_body(source, built, report))
    return replace(built, name=name, report=report)


def options_of(given: Mapping[str, Any]) -> IndexOptions:
    """Return options as `ondol.yaml` writes them: flat, `{tokens: 300, overlap: 20, embedder: lexical}`.

    :raises UnsupportedError: naming a key that means nothing.
    :raises InputError: naming a value of the wrong type.
    """
    inner, outer = {"tokens", "overlap", "headings"}, {"embedder", "base_url"}
    if unknown := sorted(set(given) - inner - outer):
        raise errors.UnsupportedError(
            f"unknown index option {unknown[0]!r}",
            way_out=f"Known: {', '.join(sorted(inner | outer))}.",
            code="UNS-041",
        )
    chunks = {key: value for key, value in given.items() if key in inner}
    return codec.typed({**{key: given[key] for key in outer & set(given)}, "chunks": chunks}, IndexOptions)


def check_options(options: IndexOptions) -> None:
    """Refuse sizes no chunker can honour.

    :raises UsageError: with the value.
    """
    size, overlap = options.chunks.tokens, options.chunks.overlap
    if not 20 <= size <= 480:
        raise errors.UsageError(
            f"chunks of {size} tokens", way_out="Use 20 to 480: the model reads 512 with the headings.", code="USE-046"
        )
    if not 0 <= overlap <= size // 2:
        raise errors.UsageError(f"an overlap of {overlap} tokens", way_out=f"Use 0 to {size // 2}.", code="USE-046")


def _nothing_readable(source: Path, skipped: list[Skipped]) -> errors.InputError:
    first = "; ".join(f"{item.path!r} {item.reason}" for item in skipped[:3])
    return errors.InputError(
        f"no document to index in {str(source)!r}" + (f": {first}" if first else ""),
        way_out="Give Markdown, text, HTML or PDF files with text in them.",
        code="INP-041",
    )


def _move_body(source: Path, built: Snapshot, report: BuildReport) -> dict[str, Any]:
    return {
        "source": str(source.resolve()),  # so that `sync` works from any folder
        "documents": len(built.documents),
        "chunks": built.chunks,
        "embedder": built.embedder,
        "added": len(report.added),
        "changed": len(report.changed),
        "removed": len(report.removed),
        "skipped": len(report.skipped),
    }


def _write(
    name: str,
    source: Path,
    sources: list[Source],
    identity: dict[str, Any],
    options: IndexOptions,
    embedder: CachedEmbedder,
    home: Path,
    progress: Progress,
) -> Snapshot:
    entries, chunks, skipped, notes = _cut(sources, options, progress)
    if not chunks:
        raise _nothing_readable(source, skipped)
    texts = [chunk.searchable(options.chunks.headings) for chunk in chunks]
    flat = vectors.flat(embedder.embed_documents(texts, progress)) if embedder.dimensions else None
    if flat is None:
        notes.append("lexical only: no embedding model here, so only shared words are found")
    built = Snapshot(
        digest=hashing.of_json(identity),
        name=name,
        options=options,
        embedder=embedder.id,
        dimensions=embedder.dimensions,
        documents=tuple(entries),
        chunks=len(chunks),
        report=BuildReport(skipped=tuple(skipped), notes=tuple(notes)),
    )
    snapshot.write(home, identity, built, chunks, flat, lexical.build(texts))
    return built


def _cut(
    sources: list[Source], options: IndexOptions, progress: Progress
) -> tuple[list[DocumentEntry], list[Chunk], list[Skipped], list[str]]:
    entries: list[DocumentEntry] = []
    chunks: list[Chunk] = []
    skipped: list[Skipped] = []
    notes: list[str] = []
    progress.start(_READING, len(sources))
    for source in sources:
        try:
            document = documents.read(source)
        except documents.Unreadable as error:
            skipped.append(Skipped(source.name, str(error)))
        else:
            pieces = chunking.cut(document, options.chunks)
            chunks.extend(pieces)
            entries.append(
                DocumentEntry(document.path, document.digest, document.title, len(pieces), document.metadata)
            )
            if document.note:
                notes.append(f"{document.path}: {document.note}")
        progress.advance(_READING)
    progress.finish(_READING, f"{len(entries)} documents, {len(chunks)} chunks")
    return entries, chunks, skipped, notes


def open_snapshot(digest: str, *, home: Path, embedder: Embedder | None = None) -> Index:
    """Open a snapshot for searching.

    :param embedder: must be the one it was built with; default: made from the snapshot's own options.
    :raises NotFoundError: when this home has no such snapshot.
    :raises StateError: when it is damaged, or was built with another embedder than this machine has.
    """
    opened = snapshot.open_at(home, digest)
    if embedder is None:
        lexical_only = not opened.manifest.snapshot.dimensions
        embedder = embedding.LEXICAL if lexical_only else embedding.make(opened.manifest.snapshot.options)
    return Index(opened, CachedEmbedder(embedder, home))


def open_index(reference: str, *, home: Path, store: Store, embedder: Embedder | None = None) -> Index:
    """Open what `name` means now, or exactly `name@digest`.

    :raises NotFoundError: when there is no such index or snapshot.
    """
    return open_snapshot(resolve(reference, store), home=home, embedder=embedder)


def resolve(reference: str, store: Store) -> str:
    """Return the digest of `name` (its current snapshot) or `name@digest`.

    :raises NotFoundError: when there is no such index.
    """
    name, _, digest = reference.partition("@")
    return digest or indexes.current(store, name)

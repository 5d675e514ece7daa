"""Documents to chunks: along headings, paragraphs, code fences, then sentences; never through the middle of a word.

Invariant, tested: `document.text[chunk.start:chunk.end] == chunk.text`, and chunks without overlap do not overlap.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import re
from collections import Counter
from dataclasses import dataclass

from ondol.base import text as texts
from ondol.records.retrieval import ChunkOptions
from ondol.retrieval import markup
from ondol.retrieval.documents import Document

CHUNKER_VERSION = 1  # grows when the same text and options would give other chunks: part of a snapshot's identity
_WIDE = re.compile("[가-힣\u3040-\u30ff\u4e00-\u9fff]")
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document."""

    id: str
    """Digest of the document's path, the headings and the text: stable while those are."""

    document: str
    title: str
    """Document title and headings, joined by ` > `."""

    text: str
    start: int
    end: int
    page: int = 0

    def searchable(self, headings: bool) -> str:
        """Return what is embedded and searched: the headings give a paragraph its subject."""
        return f"{self.title}\n{self.text}" if headings else self.text


def estimate_tokens(text: str) -> float:
    """Estimate multilingual-e5's tokens: half a token a Hangul, Han or Kana character, a quarter any other."""
    return 0.25 * len(text) + 0.25 * len(_WIDE.findall(text))


def cut(document: Document, options: ChunkOptions) -> list[Chunk]:
    """Cut a document into chunks of about `options.tokens` tokens; a section starts a new chunk."""
    chunks: list[Chunk] = []
    seen: Counter[str] = Counter()
    for headings, first, last in _parts(document):
        pieces = _pieces(document.text, first, last, options.tokens)
        title = _title(document.title, headings)
        for start, end in _pack(document.text, pieces, options):
            body = document.text[start:end]
            identity = f"{document.path}\x00{title}\x00{body}"
            seen[identity] += 1
            name = hashlib.sha256(f"{identity}\x00{seen[identity]}".encode()).hexdigest()[:16]
            page = bisect.bisect_right(document.pages, start)
            chunks.append(Chunk(name, document.path, title, body, start, end, page))
    return chunks


def _parts(document: Document) -> list[tuple[tuple[str, ...], int, int]]:
    """Return what no chunk crosses: sections, and in a PDF pages, so that a citation names the right page."""
    parts: list[tuple[tuple[str, ...], int, int]] = []
    for section in markup.sections(document.text):
        inside = [page for page in document.pages if section.start < page < section.end]
        borders = [section.start, *inside, section.end]
        parts.extend((section.headings, first, last) for first, last in itertools.pairwise(borders))
    return parts


def _title(title: str, headings: tuple[str, ...]) -> str:
    path = headings if headings and headings[0] == title else (title, *headings)
    return " > ".join(part for part in path if part)


def _pieces(text: str, start: int, end: int, tokens: int) -> list[Span]:
    """Return the smallest units that are kept whole: paragraphs and fences, or sentences and lines of larger ones."""
    pieces: list[Span] = []
    for block in _blocks(text, start, end):
        if estimate_tokens(text[block[0] : block[1]]) <= 1.5 * tokens:
            pieces.append(block)
            continue
        for first, last in texts.sentences(text[block[0] : block[1]]):
            pieces.extend(_halves(text, block[0] + first, block[0] + last, tokens))
    return pieces


def _blocks(text: str, start: int, end: int) -> list[Span]:
    """Return paragraphs, lists, tables and fences: what blank lines outside of fences separate."""
    blocks: list[Span] = []
    begin: int | None = None
    position = start
    fence = ""
    for line in text[start:end].splitlines(keepends=True):
        mark = re.match(r" {0,3}(```+|~~~+)", line)
        if fence:
            fence = "" if mark and line.strip().startswith(fence) else fence
        elif mark:
            fence = mark[1]
        if line.strip() or fence:
            begin = position if begin is None else begin
            last = position + len(line.rstrip())
        elif begin is not None:
            blocks.append((begin, last))
            begin = None
        position += len(line)
    if begin is not None:
        blocks.append((begin, last))
    return blocks


def _halves(text: str, start: int, end: int, tokens: int) -> list[Span]:
    """Cut a sentence or fence that is too large at line ends, else at spaces, else anywhere."""
    if estimate_tokens(text[start:end]) <= 1.5 * tokens:
        return [(start, end)]
    spans: list[Span] = []
    room = tokens * 4
    while start < end:
        stop = start
        budget = float(tokens)
        for character in text[start : min(end, start + room)]:
            budget -= 0.5 if _WIDE.match(character) else 0.25
            stop += 1
            if budget <= 0:
                break
        if stop < end:
            for separator in ("\n", " "):
                if (at := text.rfind(separator, start + 1, stop)) > start:
                    stop = at
                    break
        if text[start:stop].strip():
            spans.append((start, stop))
        start = stop
        while start < end and text[start].isspace():
            start += 1
    return spans


def _pack(text: str, pieces: list[Span], options: ChunkOptions) -> list[Span]:
    """Join neighbouring pieces up to the size; repeat the last sentences of the one before when asked to."""
    packed: list[Span] = []
    for start, end in pieces:
        if packed and estimate_tokens(text[packed[-1][0] : end]) <= options.tokens:
            packed[-1] = (packed[-1][0], end)
        else:
            packed.append((start, end))
    if options.overlap <= 0:
        return packed
    return (
        [packed[0], *(_overlapped(text, before, span, options.overlap) for before, span in _pairs(packed))]
        if packed
        else []
    )


def _pairs(spans: list[Span]) -> list[tuple[Span, Span]]:
    return list(itertools.pairwise(spans))


def _overlapped(text: str, before: Span, span: Span, overlap: int) -> Span:
    start = span[0]
    for first, _ in reversed(texts.sentences(text[before[0] : before[1]])):
        if estimate_tokens(text[before[0] + first : span[0]]) > overlap:
            break
        start = before[0] + first
    return start, span[1]

"""Files to documents: normalised text, a title and metadata. A file that cannot be read is skipped with its reason.

Must not cut or embed. Reads Markdown, plain text, HTML and PDF; other formats are refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondol.base import errors, hashing, text
from ondol.records.retrieval import Skipped
from ondol.retrieval import markup, pdf

READER_VERSION = 1  # grows when the same file would give another text: part of a snapshot's identity
MAX_BYTES = 50 * 1024 * 1024  # a larger "document" is a dump; reading it would fill the memory of a small machine
_MARKDOWN = {".md", ".markdown", ".mdx"}
_TEXT = {".txt", ".text", ".rst"}
_HTML = {".html", ".htm", ".xhtml"}
READ = _MARKDOWN | _TEXT | _HTML | {".pdf"}
_KNOWN_UNREAD = {
    ".docx": "Word files are not read: save it as PDF or Markdown",
    ".doc": "Word files are not read: save it as PDF or Markdown",
    ".pptx": "PowerPoint files are not read: save it as PDF",
    ".xlsx": "Excel files are not read: save the sheet as Markdown or text",
    ".hwp": "HWP files are not read: save it as PDF",
    ".hwpx": "HWPX files are not read: save it as PDF",
}


@dataclass(frozen=True, slots=True)
class Document:
    """A document as text."""

    path: str
    """Relative to the folder that is indexed, with `/`."""

    digest: str
    text: str
    """NFC, `\\n` line ends; Markdown for HTML too."""

    title: str
    metadata: dict[str, Any] = field(default_factory=dict)
    pages: tuple[int, ...] = ()
    """Where each page of a PDF starts in `text`."""

    note: str = ""
    """What the user should know about how it was read."""


class Unreadable(Exception):
    """Why a file cannot be a document; becomes a `Skipped` entry, or an `InputError` for a single file."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file that looks like a document, not read yet."""

    path: Path
    name: str
    digest: str


def scan(source: Path, max_bytes: int = MAX_BYTES) -> tuple[list[Source], list[Skipped]]:
    """List the documents below a folder (or the one file), hashed but not parsed, and what is left out.

    Hidden files and folders are passed over silently, links that leave the folder are not followed.

    :raises NotFoundError: when there is nothing at `source`.
    :raises InputError: when a single file is given and it cannot be a document.
    """
    if not source.exists():
        raise errors.NotFoundError(
            f"no file or folder {str(source)!r}", way_out="Give a folder of documents.", code="NOF-040"
        )
    found: list[Source] = []
    skipped: list[Skipped] = []
    root = source if source.is_dir() else source.parent
    for path in _files(source):
        name = text.normalise(path.relative_to(root).as_posix())
        try:
            _check_file(path, max_bytes)
            found.append(Source(path, name, hashing.of_file(path)))
        except (Unreadable, OSError) as error:
            reason = str(error) if isinstance(error, Unreadable) else f"cannot be read: {error.strerror}"
            if path == source:
                raise errors.InputError(f"{name!r} {_as_predicate(reason)}", where=str(path), code="INP-040") from error
            skipped.append(Skipped(name, reason))
    return found, skipped


def _as_predicate(reason: str) -> str:
    return reason if reason.startswith(("is ", "has ", "cannot ")) else f"was not read: {reason}"


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        for name in sorted(names):
            path = Path(folder) / name
            if not name.startswith(".") and path.is_file():
                yield path


def _check_file(path: Path, max_bytes: int) -> None:
    suffix = path.suffix.lower()
    if suffix in _KNOWN_UNREAD:
        raise Unreadable(_KNOWN_UNREAD[suffix])
    if suffix not in READ:
        raise Unreadable(f"is no document: {suffix or 'no suffix'!r} is not Markdown, text, HTML or PDF")
    size = path.stat().st_size
    if size == 0:
        raise Unreadable("is empty")
    if size > max_bytes:
        raise Unreadable(f"is {size / 1e6:.0f} MB; a document may have {max_bytes / 1e6:.0f} MB: split it")


def read(source: Source) -> Document:
    """Parse one file.

    :raises Unreadable: with the reason, when it is binary, broken, encrypted, in no known encoding, or without text.
    """
    suffix = source.path.suffix.lower()
    data = source.path.read_bytes()
    pages: tuple[int, ...] = ()
    note = ""
    metadata: dict[str, Any] = {}
    if suffix == ".pdf":
        try:
            content, pages = pdf.text_of(data)
        except pdf.BrokenPdf as error:
            raise Unreadable(str(error)) from error
    else:
        content, note = _decode(data)
        content = text.normalise(content)
        if suffix in _HTML:
            content, metadata = markup.from_html(content)
        elif suffix in _MARKDOWN:
            metadata = markup.front_matter(content)
    if not content.strip():
        raise Unreadable("has no text" + (" (a scan? run OCR first)" if suffix == ".pdf" else ""))
    title = str(metadata.get("title") or markup.first_heading(content) or source.path.stem)
    metadata = {
        **metadata,
        "title": title,
        "path": source.name,
        "folder": source.name.rpartition("/")[0],
        "type": suffix.removeprefix("."),
        "language": str(metadata.get("language") or metadata.get("lang") or text.language(content[:20_000])),
    }
    return Document(source.name, source.digest, content, title, metadata, pages, note)


def _decode(data: bytes) -> tuple[str, str]:
    """Return the text and, when the encoding is not UTF-8, a note that says which was taken."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16"), "read as UTF-16"
        except UnicodeDecodeError as error:
            raise Unreadable("is broken UTF-16") from error
    if b"\x00" in data[:65536]:
        raise Unreadable("is binary")
    try:
        return data.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        pass
    try:
        decoded = data.decode("cp949")
    except UnicodeDecodeError as error:
        raise Unreadable("is neither UTF-8 nor CP949 text: save it as UTF-8") from error
    foreign = [character for character in decoded if ord(character) > 0x7F]
    if len(text.HANGUL.findall(decoded)) < 0.5 * len(foreign):  # Latin-1 bytes often decode as rare CP949 signs
        raise Unreadable("is neither UTF-8 nor CP949 text: save it as UTF-8")
    return decoded, "read as CP949"

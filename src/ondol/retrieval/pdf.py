"""The text of a PDF by pypdfium2, the only module that imports it.

Must not draw pages or recognise scans.
"""

from __future__ import annotations

from typing import Any

from ondol.base import errors, text


class BrokenPdf(Exception):
    """Why a PDF cannot be read."""


def text_of(data: bytes) -> tuple[str, tuple[int, ...]]:
    """Return the text and where each page starts in it.

    :raises BrokenPdf: when it is no PDF, damaged or encrypted.
    :raises DependencyError: when pypdfium2 is not installed.
    """
    try:
        import pypdfium2
    except ImportError as error:
        raise errors.DependencyError(
            "reading PDF files needs pypdfium2", way_out="pip install pypdfium2", code="DEP-040"
        ) from error
    if not data.lstrip()[:5].startswith(b"%PDF-"):
        raise BrokenPdf("is no PDF: it does not begin with '%PDF-'")
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        reason = "is encrypted" if "password" in str(error).lower() else "is a broken PDF"
        raise BrokenPdf(f"{reason} ({error})") from error
    try:
        return _join(document, pypdfium2.PdfiumError)
    finally:
        document.close()


def _join(document: Any, broken: type[Exception]) -> tuple[str, tuple[int, ...]]:
    parts: list[str] = []
    starts: list[int] = []
    position = 0
    for number in range(len(document)):
        try:
            page = document[number]
            content = page.get_textpage()
            try:
                words = text.normalise(content.get_text_bounded()).strip()
            finally:
                content.close()
                page.close()
        except broken as error:
            raise BrokenPdf(f"is a broken PDF (page {number + 1}: {error})") from error
        starts.append(position)
        parts.append(words + "\n\n")
        position += len(words) + 2
    return "".join(parts), tuple(starts)

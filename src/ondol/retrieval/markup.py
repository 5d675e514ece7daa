"""Markdown and HTML as text with headings: front matter, sections, and HTML turned into plain Markdown.

Must not fetch anything a page refers to, nor run it.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any

import yaml

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S)
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
_INLINE = re.compile(r"\[([^\]]*)\]\([^)]*\)|[*_`]{1,3}([^*_`]+)[*_`]{1,3}")


@dataclass(frozen=True, slots=True)
class Section:
    """The text under one heading, up to the next heading of any level."""

    headings: tuple[str, ...]
    start: int
    end: int


def front_matter(text: str) -> dict[str, Any]:
    """Return the plain values of a Markdown file's YAML front matter; {} when there is none, or no mapping."""
    match = _FRONT_MATTER.match(text)
    if match is None:
        return {}
    try:
        values = yaml.safe_load(match[1])
    except yaml.YAMLError:
        return {}
    if not isinstance(values, dict):
        return {}
    return {str(key): plain for key, value in values.items() if (plain := _plain(value)) is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, list):
        return [str(item) for item in value]
    return None


def heading_text(raw: str) -> str:
    """Return a heading without its inline marks."""
    return _INLINE.sub(lambda match: match[1] or match[2] or "", raw).strip()


def first_heading(text: str) -> str:
    """Return the first top heading, or an empty string."""
    for section in sections(text):
        if section.headings:
            return section.headings[0]
    return ""


def sections(text: str) -> list[Section]:
    """Cut Markdown (or plain text: one section) at its headings; heading lines belong to no section.

    `#` inside a code fence is no heading. Front matter belongs to no section.
    """
    found: list[Section] = []
    path: list[tuple[int, str]] = []
    match = _FRONT_MATTER.match(text)
    position = begin = match.end() if match else 0
    fence = ""
    for line in text[position:].splitlines(keepends=True):
        bare = line.rstrip("\n")
        mark = _FENCE.match(bare)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) and bare.strip() == mark[1] else fence
        elif mark:
            fence = mark[1]
        elif heading := _HEADING.match(bare):
            found.append(Section(tuple(title for _, title in path), begin, position))
            level = len(heading[1])
            path = [(other, title) for other, title in path if other < level]
            path.append((level, heading_text(heading[2])))
            begin = position + len(line)
        position += len(line)
    found.append(Section(tuple(title for _, title in path), begin, position))
    return [section for section in found if text[section.start : section.end].strip()]


class _ToMarkdown(HTMLParser):
    _SILENT = frozenset({"script", "style", "noscript", "template", "svg", "nav", "iframe", "head"})
    _BLOCKS = frozenset({"p", "div", "section", "article", "main", "table", "ul", "ol", "blockquote", "dl", "dd", "dt"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.title = ""
        self.language = ""
        self._silent: list[str] = []
        self._in_title = False
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "html":
            self.language = (dict(attrs).get("lang") or "").partition("-")[0].lower()
        if tag == "title" and not self.title:
            self._in_title = True
        if tag in self._SILENT:
            self._silent.append(tag)
        if self._silent:
            return
        if tag == "pre":
            self._pre += 1
            self.parts.append("\n\n```\n")
        elif len(tag) == 2 and tag[0] == "h" and tag[1] in "123456":
            self.parts.append("\n\n" + "#" * int(tag[1]) + " ")
        elif tag == "li":
            self.parts.append("\n- ")
        elif tag in ("br", "tr"):
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" | ")
        elif tag in self._BLOCKS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        if self._silent:
            if tag in self._silent:  # an unclosed element inside ends with it
                del self._silent[self._silent.index(tag) :]
            return
        if tag == "pre" and self._pre:
            self._pre -= 1
            self.parts.append("\n```\n\n")
        elif tag in self._BLOCKS or (len(tag) == 2 and tag[0] == "h" and tag[1] in "123456"):
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        if not self._silent:
            self.parts.append(data if self._pre else re.sub(r"\s+", " ", data))


def from_html(text: str) -> tuple[str, dict[str, Any]]:
    """Return a page's text as Markdown (headings, lists, code, table rows) and its title and language.

    Scripts, styles and navigation are left out. Never fails: browsers read broken HTML too.
    """
    parser = _ToMarkdown()
    parser.feed(text)
    parser.close()
    body = re.sub(r"[ \t]*\n(?:[ \t]*\n)+[ \t]*", "\n\n", "".join(parser.parts)).strip() + "\n"
    metadata = {"title": parser.title.strip(), "language": parser.language}
    return body, {key: value for key, value in metadata.items() if value}

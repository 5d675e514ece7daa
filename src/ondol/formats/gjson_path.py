"""The grammar of GJSON paths: one component at a time, as the original cuts them (see `formats.gjson`).

Must not look at a document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MODIFIERS = ("this", "valid", "pretty", "ugly", "reverse", "keys", "values", "flatten", "join", "fromstr")
DEEPEST = 20
"""Brackets in brackets that are read."""


@dataclass(slots=True)
class Part:
    """One component of a path, and what follows it."""

    name: str = ""
    rest: str = ""
    more: bool = False
    pipe: str | None = None
    wild: bool = False
    hash: bool = False
    each: str | None = None
    """The path after `#.`."""

    query: Query | None = None
    every: bool = False
    """Whether the query ends with `#`: all that match, not the first."""


@dataclass(frozen=True, slots=True)
class Query:
    """`#(path operator value)`."""

    path: str
    operator: str
    value: str
    end: int
    """Where the query ends in the path it was read from."""


def balanced(bare: str) -> bool:
    """Whether every bracket of a path without strings and escapes closes, and none is nested too deeply."""
    closes, due = {"(": ")", "[": "]", "{": "}"}, list[str]()
    for char in bare:
        if char in closes:
            due.append(closes[char])
            if len(due) > DEEPEST:
                return False
        elif char in ")]}" and (not due or due.pop() != char):
            return False
    return not due and '"' not in bare


def pipes(rest: str) -> bool:
    """Whether what follows a dot is a modifier or a multipath, which a dot reaches as a pipe does."""
    if rest.startswith("@"):
        return re.split(r"[.|:]", rest[1:], maxsplit=1)[0] in MODIFIERS
    return rest[:1] in ("[", "{") and bool(rest)


def object_part(path: str) -> Part:
    """Return the first component of a path into an object."""
    part = Part()
    name: list[str] = []
    index = 0
    while index < len(path):
        char = path[index]
        if char == "\\":
            index += 1
            name.append(path[index : index + 1])
        elif char == "|":
            part.pipe = path[index + 1 :]
            break
        elif char == ".":
            rest = path[index + 1 :]
            if pipes(rest):
                part.pipe = rest
            else:
                part.rest, part.more = rest, True
            break
        else:
            part.wild = part.wild or char in "*?"
            name.append(char)
        index += 1
    part.name = "".join(name)
    return part


def array_part(path: str) -> Part:
    """Return the first component of a path into an array."""
    part = Part(name=path)
    index = 0
    while index < len(path):
        char = path[index]
        if char == "|":
            part.name, part.pipe = path[:index], path[index + 1 :]
            break
        if char == ".":
            part.name, rest = path[:index], path[index + 1 :]
            if not part.hash and pipes(rest):
                part.pipe = rest
            else:
                part.rest, part.more = rest, True
            break
        if char == "#":
            part.hash = True
            if index == 0 and path[1:2] == ".":
                part.each = path[2:]
            elif index == 0 and path[1:2] in ("(", "["):
                part.query = _parse_query(path)
                if part.query is None:
                    break
                index = part.query.end - 1
                part.every = path[index + 1 : index + 2] == "#"
        index += 1
    return part


def _parse_query(text: str) -> Query | None:
    """Read `#(path operator value)`; None when its brackets do not close."""
    begin, end = 0, _closing(text, 2, "([", ")]")
    if end is None:
        return None
    for index, depth in _scan(text, 2, end, "([", ")]"):
        if depth == 1 and text[index] in "!=<>%":
            begin = index
            break
    if not begin:
        return Query(text[2:end].strip(_BLANK), "", "", end + 1)
    right = text[begin:end].strip(_BLANK)
    alone = right if len(right) == 1 else ""
    operator = next((one for one in _OPERATORS if right.startswith(one)), alone)
    value = right[len(operator) :].strip(_BLANK)
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = re.sub(r"\\(.)", r"\1", value[1:-1])
    return Query(text[2:begin].strip(_BLANK), operator.replace("==", "="), value, end + 1)


_OPERATORS = ("!=", "!%", "<=", ">=", "==", "<", ">", "=", "%")
_BLANK = "".join(map(chr, range(33)))


def _scan(
    text: str, start: int, end: int | None = None, opening: str = "([{", closing: str = ")]}"
) -> Iterator[tuple[int, int]]:
    """Yield every plain character with the depth of brackets it stands in; strings and escapes are passed over."""
    depth, index = 1, start
    while index < (len(text) if end is None else end):
        char = text[index]
        if char == "\\":
            index += 1
        elif char == '"':
            index += 1
            while index < len(text) and text[index] != '"':
                index += 2 if text[index] == "\\" else 1
        else:
            if char in opening:
                depth += 1
            elif char in closing:
                depth -= 1
            yield index, depth
        index += 1


def _closing(text: str, start: int, opening: str = "([{", closing: str = ")]}") -> int | None:
    """Return where the bracket before `start` closes."""
    return next((index for index, depth in _scan(text, start, None, opening, closing) if depth == 0), None)


def split_pipe(path: str) -> tuple[str, str | None]:
    """Cut a path at its first pipe that is in no query, as the original looks for it.

    Of a path that begins with `{` only the pipe right after its end counts, and none when its first name is quoted.
    """
    if path.startswith("{"):
        end = None if path[1:2] == '"' else _closing(path, 2)
        if end is not None and path[end + 1 : end + 2] == "|":
            return path[: end + 1], path[end + 2 :]
        return path, None
    index = 0
    while index < len(path):
        if path[index] == "|":
            return path[:index], path[index + 1 :]
        if path[index] == "\\":
            index += 1
        elif path.startswith((".#(", ".#["), index):
            end = _closing(path, index + 3, "([", ")]")
            index = len(path) if end is None else end
        elif path.startswith(".#", index):
            index += 2
        index += 1
    return path, None


def multipath(path: str) -> tuple[list[tuple[str, str]] | None, str]:
    """Read `[a,b]` or `{"name":a,b}`: pairs of name and path, and the rest; None when it does not close."""
    end = _closing(path, 1)
    if end is None:
        return None, path
    parts: list[tuple[str, str]] = []
    start, colon = 1, 0
    modifier = False
    for index, depth in [*_scan(path, 1, end), (end, 1)]:
        char = path[index]
        if index == end or (char == "," and depth == 1):
            parts.append((path[start:colon], path[colon + 1 : index]) if colon else ("", path[start:index]))
            start, colon, modifier = index + 1, 0, False
        elif char == "@" and path[index - 1] in ".|":
            modifier = True
        elif char == ":" and depth == 1 and not colon and not modifier:
            colon = index
    return parts, path[end + 1 :]

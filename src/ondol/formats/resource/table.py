"""A declaration as a table of fields, states and remarks: the compatibility tables of the documentation.

Fields of one object that fare alike for the same reason share a row; what was shown of another object is not shown
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ondol.formats.resource.checking import join
from ondol.formats.resource.states import State
from ondol.formats.resource.types import Field, ListOf, MapOf, Object, Text, Type

WORDS = {
    "honoured": "yes",
    "no-effect": "no effect",
    "not-yet": "not yet",
    "refused": "refused",
    "cluster": "cluster only",
}


_ORDER = tuple(WORDS)
_FEW = 5
"""Fewer fields that are as elsewhere are written out again."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row: what is spoken of, how it fares, and what there is to say."""

    field: str
    """As Markdown."""

    state: str
    remark: str = ""


def rows(declared: Object, path: str = "") -> list[Row]:
    """Return the rows of an object and of everything inside it."""
    return list(_Table().object(declared, path))


def whole(name: str, state: State) -> Row:
    """Return the one row of something that fares as a whole."""
    return _row("", [name], state)


def markdown(found: list[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = ["| field | state | remark |", "|---|---|---|"]
    lines += [f"| {row.field} | {row.state} | {row.remark.replace('|', chr(92) + '|')} |" for row in found]
    return "\n".join(lines) + "\n"


class _Table:
    def __init__(self) -> None:
        self._shown: dict[str, list[tuple[Field, str]]] = {}
        """By name: fields that were shown, and the object they were shown in."""

    def object(self, declared: Object, path: str) -> Iterator[Row]:
        """Yield the rows of one object: what is honoured, then what is inside it, then the rest by state."""
        fresh, known = self._split(declared, path)
        plain: dict[State, list[str]] = {}
        deep: list[str] = []
        for name, field in fresh.items():
            if field.state.word == "honoured" and (_inside(field.type) or _different(field.type)):
                deep.append(name)
            else:
                plain.setdefault(field.state, []).append(name)
        for state, names in sorted(plain.items(), key=lambda pair: _ORDER.index(pair[0].word)):
            if state.word == "honoured":
                yield _row(path, names, state)
        for name in deep:
            yield from self._inside(fresh[name], join(path, name))
        for state, names in sorted(plain.items(), key=lambda pair: _ORDER.index(pair[0].word)):
            if state.word != "honoured":
                yield _row(path, names, state)
        if known:
            where = ", ".join(f"`{one}`" for one in dict.fromkeys(known.values()))
            yield Row(f"`{path}`, other fields" if fresh else f"`{path}`", "as there", f"like {where}")

    def _split(self, declared: Object, path: str) -> tuple[dict[str, Field], dict[str, str]]:
        """Return the fields to show, and those that are as in an object that was shown."""
        known: dict[str, str] = {}
        for name, field in declared.fields.items():
            before = next((where for shown, where in self._shown.get(name, ()) if shown == field), None)
            if before is not None:
                known[name] = before
        if len(known) < _FEW:
            known = {}
        fresh = {name: field for name, field in declared.fields.items() if name not in known}
        for name, field in fresh.items():
            self._shown.setdefault(name, []).append((field, path))
        return fresh, known

    def _inside(self, field: Field, path: str) -> Iterator[Row]:
        inner = _inside(field.type)
        if inner is None:
            yield from _values(field.type, path)
            return
        if field.state.reason:
            yield Row(f"`{path}`", WORDS[field.state.word], field.state.text)
        yield from self.object(inner[0], path + inner[1])


def _row(path: str, names: list[str], state: State) -> Row:
    first, *others = names
    field = ", ".join([f"`{join(path, first)}`", *(f"`{name}`" for name in others)])
    return Row(field, WORDS[state.word], state.text)


def _inside(declared: Type) -> tuple[Object, str] | None:
    """Return the object that a type consists of, and how a path leads there."""
    match declared:
        case Object():
            return declared, ""
        case ListOf(Object() as item):
            return item, "[]"
        case MapOf(Object() as value):
            return value, ".*"
        case _:
            return None


def _choices(declared: Type) -> tuple[Mapping[str, State], State | None]:
    if isinstance(declared, Text):
        return declared.values, declared.other
    if isinstance(declared, MapOf):
        return declared.keys, declared.other
    return {}, None


def _different(declared: Type) -> bool:
    """Whether the values of a field fare differently."""
    known, other = _choices(declared)
    states = {*known.values(), *([other] if other else [])}
    return any(state.word != "honoured" or state.reason for state in states)


def _values(declared: Type, path: str) -> list[Row]:
    """Return the values of a field by how they fare."""
    known, other = _choices(declared)
    return choices(known, path) + (
        [Row(f"`{path}`: anything else", WORDS[other.word], other.text)] if other is not None else []
    )


def choices(known: Mapping[str, State], path: str) -> list[Row]:
    """Return values of what is at `path`, grouped by how they fare."""
    groups: dict[State, list[str]] = {}
    for name, state in known.items():
        groups.setdefault(state, []).append(name)
    found = []
    for state, names in groups.items():
        listed = ", ".join(f"`{name}`" if name else "empty" for name in names)
        found.append(Row(f"`{path}`: {listed}", WORDS[state.word], state.text))
    return found

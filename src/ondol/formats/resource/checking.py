"""Walks a manifest along its declaration and collects every problem with its path, and every note.

Must not raise for anything a manifest may contain, nor change it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ondol.formats.resource import builtin
from ondol.formats.resource.states import HONOURED, State
from ondol.formats.resource.types import (
    QUANTITY,
    Builtin,
    Field,
    Flag,
    Free,
    IntOrString,
    ListOf,
    MapOf,
    Object,
    Quantity,
    Text,
    Type,
    Whole,
)

Cause = Literal["unknown", "required", "type", "value", "duplicate", "refused"]
_QUANTITY = re.compile(QUANTITY)
_DEEPEST = 100


@dataclass(frozen=True, slots=True)
class Problem:
    """One field that keeps a manifest from being applied."""

    path: str
    reason: str
    cause: Cause = "value"
    """`refused`: a valid field that this backend does not honour. Anything else: the manifest is wrong."""

    state: State = HONOURED
    """Why it is refused."""

    @property
    def unsupported(self) -> bool:
        """Whether the manifest is right and only this backend does not honour it."""
        return self.cause == "refused"

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(slots=True)
class Findings:
    """Everything that is to be said of a manifest."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is asked for and kept, and has no effect on this machine."""


def check(value: object, declared: Type, path: str = "") -> Findings:
    """Return what is wrong with a value, refused, or without effect."""
    walker = _Walker()
    walker.value(value, declared, path, 0)
    return walker.findings


def show(value: object) -> str:
    """Return a value as error texts show it."""
    return "null" if value is None else repr(value)[:80]


def join(path: str, name: str) -> str:
    """Return the path of a field of what is at `path`."""
    if path and (not name or name.startswith("[")):
        return path + name
    return f"{path}.{name}" if path else name


class _Walker:
    def __init__(self) -> None:
        self.findings = Findings()
        self._refused = 0
        """How many of the fields around the current one are refused already."""

    def _wrong(self, path: str, reason: str, cause: Cause = "value") -> None:
        self.findings.problems.append(Problem(path, reason, cause))

    def _state(self, path: str, state: State, what: str = "") -> None:
        """Say of a field, or of one value of it, what this backend does with it."""
        if self._refused:
            return
        said = f"{what}: {state.text}" if what else state.text
        if not state.taken:
            self.findings.problems.append(Problem(path, said, "refused", state))
        elif state.word == "no-effect":
            self.findings.notes.append(f"{path}: {said}")

    def value(self, value: object, declared: Type, path: str, depth: int) -> None:
        """Check one value against its type."""
        if depth > _DEEPEST:
            self._wrong(path, "is nested too deeply")
            return
        match declared:
            case Object():
                self._object(value, declared, path, depth)
            case ListOf():
                self._list(value, declared, path, depth)
            case MapOf():
                self._map(value, declared, path, depth)
            case Text():
                self._text(value, declared, path)
            case Builtin():
                if not self._refused:  # what is refused as a whole need not be looked into
                    self.value(value, builtin.resolve(declared.name), path, depth)
            case Free():
                pass
            case _:
                self._scalar(value, declared, path)

    def _object(self, value: object, declared: Object, path: str, depth: int) -> None:
        if not isinstance(value, dict):
            self._wrong(path, f"must be a mapping, not {show(value)}", "type")
            return
        before = self._misshapen()
        for name, inner in value.items():
            found = declared.fields.get(name)
            here = join(path, str(name))
            if found is None:
                self._wrong(here, "unknown field", "unknown")
            elif inner is not None:  # Kubernetes drops a null
                self._field(inner, found, here, depth)
        for name, wanted in declared.fields.items():
            if wanted.required and value.get(name) is None:
                self._wrong(join(path, name), f"is required{': ' + wanted.about if wanted.about else ''}", "required")
        if self._misshapen() == before:
            present = {name: inner for name, inner in value.items() if inner is not None}
            for rule in declared.rules:
                rule(present, lambda where, reason, state=None: self._ruled(join(path, where), reason, state))

    def _ruled(self, path: str, reason: str, state: State | None) -> None:
        if state is None:
            self._wrong(path, reason)
        elif not self._refused:
            self.findings.problems.append(Problem(path, reason, "refused", state))

    def _misshapen(self) -> int:
        """How many values have not the type that rules count on."""
        return sum(problem.cause in ("type", "required") for problem in self.findings.problems)

    def _field(self, value: object, declared: Field, path: str, depth: int) -> None:
        self._state(path, declared.state)
        self._refused += not declared.state.taken
        self.value(value, declared.type, path, depth + 1)
        self._refused -= not declared.state.taken

    def _list(self, value: object, declared: ListOf, path: str, depth: int) -> None:
        if not isinstance(value, list):
            self._wrong(path, f"must be a list, not {show(value)}", "type")
            return
        if len(value) < declared.least:
            self._wrong(path, f"must have at least {declared.least} item{'s' if declared.least > 1 else ''}")
        seen: set[tuple[str, ...]] = set()
        for index, item in enumerate(value):
            self.value(item, declared.item, f"{path}[{index}]", depth + 1)
            if declared.keys and isinstance(item, dict):
                key = tuple(repr(item.get(name)) for name in declared.keys)
                if key in seen:
                    named = ", ".join(f"{name} {item.get(name)!r}" for name in declared.keys if name in item)
                    self._wrong(f"{path}[{index}]", f"{named} is there twice", "duplicate")
                seen.add(key)

    def _map(self, value: object, declared: MapOf, path: str, depth: int) -> None:
        if not isinstance(value, dict):
            self._wrong(path, f"must be a mapping, not {show(value)}", "type")
            return
        for name, inner in value.items():
            here = join(path, str(name))
            if not isinstance(name, str):
                self._wrong(here, f"the key {name!r} must be a string", "type")
                continue
            self._known(name, declared.keys, declared.other, here, "")
            self.value(inner, declared.value, here, depth + 1)

    def _known(self, value: str, values: Mapping[str, State], other: State | None, path: str, what: str) -> None:
        state = values.get(value, other)
        if state is None:
            self._wrong(path, f"must be one of {', '.join(values)}, not {value!r}")
        else:
            self._state(path, state, what)

    def _text(self, value: object, declared: Text, path: str) -> None:
        if not isinstance(value, str):
            self._wrong(path, f"must be a string, not {show(value)}", "type")
            return
        if declared.values or declared.other is not None:
            self._known(value, declared.values, declared.other, path, repr(value))
        if declared.pattern and not re.search(declared.pattern, value):
            self._wrong(path, f"{value[:80]!r} does not match {declared.pattern}")
        if declared.longest and len(value) > declared.longest:
            self._wrong(path, f"must be at most {declared.longest} characters, not {len(value)}")

    def _scalar(self, value: object, declared: Whole | Flag | Quantity | IntOrString, path: str) -> None:
        whole = isinstance(value, int) and not isinstance(value, bool)
        match declared:
            case Whole(low, high):
                if not whole:
                    self._wrong(path, f"must be a whole number, not {show(value)}", "type")
                elif not low <= value <= high:  # type: ignore[operator]  # it is an int here
                    self._wrong(path, f"must be a whole number from {low} to {high}, not {value}")
            case Flag():
                if not isinstance(value, bool):
                    self._wrong(path, f"must be true or false, not {show(value)}", "type")
            case Quantity():
                number = whole or isinstance(value, float)
                if not number and not (isinstance(value, str) and _QUANTITY.fullmatch(value)):
                    self._wrong(path, f"{show(value)} is not a quantity such as 500m or 512Mi")
            case IntOrString():
                if not whole and not isinstance(value, str):
                    self._wrong(path, f"must be a whole number or a string, not {show(value)}", "type")


def leaves(declared: Type, path: str = "") -> Iterator[tuple[str, Field]]:
    """Yield every declared field with its path: `[]` is any item, `*` any key; built-in types are leaves."""
    match declared:
        case Object():
            for name, one in declared.fields.items():
                yield join(path, name), one
                yield from leaves(one.type, join(path, name))
        case ListOf():
            yield from leaves(declared.item, f"{path}[]")
        case MapOf():
            yield from leaves(declared.value, join(path, "*"))
        case _:
            pass

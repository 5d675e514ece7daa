"""Who set which field of a resource: Kubernetes' `managedFields`, and what server-side apply makes of them.

Fields are paths of mapping keys; every list is one value (Kubernetes' `x-kubernetes-list-type: atomic`, the default of
custom resources), so two managers cannot own items of one list. Source: Kubernetes' documentation of server-side apply
and of the `FieldsV1` format. Pure: must not read nor write the store.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ondol.base import clock

Json = dict[str, Any]
Path = tuple[str, ...]

_NAMES = ("name", "generateName", "namespace", "selfLink")
_KEPT = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields")
_ENDING = ("deletionTimestamp", "deletionGracePeriodSeconds")
SERVER_OWNED = frozenset((*_NAMES, *_KEPT, *_ENDING))
"""Metadata that nobody owns: it names the object or is kept by the server."""

_MISSING = object()


@dataclass(frozen=True, slots=True)
class Manager:
    """Who writes, and how."""

    name: str
    operation: str
    """`Apply` (server-side apply) or `Update` (every other write)."""

    api_version: str
    subresource: str = ""
    """`status`, or empty."""

    def entry(self, paths: Iterable[Path]) -> Json:
        """Return this manager's entry of `managedFields`."""
        found: Json = {"manager": self.name, "operation": self.operation, "apiVersion": self.api_version}
        found |= {"time": clock.iso(clock.SYSTEM.now())[:19] + "Z", "fieldsType": "FieldsV1", "fieldsV1": encode(paths)}
        return {**found, "subresource": self.subresource} if self.subresource else found

    def owns(self, entry: Json) -> bool:
        """Say whether an entry is this manager's."""
        mine = (self.name, self.operation, self.subresource)
        return (entry.get("manager"), entry.get("operation"), entry.get("subresource", "")) == mine


@dataclass(frozen=True, slots=True)
class Conflict:
    """A field that somebody else set to another value."""

    manager: str
    api_version: str
    path: Path

    @property
    def field(self) -> str:
        return "." + ".".join(self.path)


def entries(given: list[Any]) -> list[Json]:
    """Return what is usable of `managedFields` that a client wrote; `[{}]` is how clients ask to forget all owners."""
    return [one for one in given if isinstance(one, dict) and one.get("manager") and one.get("operation")]


def leaves(value: Json, prefix: Path = ()) -> set[Path]:
    """Return the paths of all values in an object that somebody may own; an empty mapping is a value."""
    found: set[Path] = set()
    for key, inner in value.items():
        path = (*prefix, str(key))
        if path in (("apiVersion",), ("kind",)) or (prefix == ("metadata",) and key in SERVER_OWNED):
            continue
        if isinstance(inner, dict) and (inner or path == ("metadata",)):
            found |= leaves(inner, path)
        else:
            found.add(path)
    return found


def encode(paths: Iterable[Path]) -> Json:
    """Return paths as `FieldsV1`."""
    root: Json = {}
    for path in sorted(paths):
        here = root
        for key in path:
            here = here.setdefault(f"f:{key}", {})
    return root


def decode(fields: object, prefix: Path = ()) -> set[Path]:
    """Return the paths of a `FieldsV1`; items of lists count as the whole list."""
    found: set[Path] = set()
    inner = [(key[2:], value) for key, value in fields.items() if key.startswith("f:")] if type(fields) is dict else []
    for key, value in inner:
        found |= decode(value, (*prefix, key))
    return found if inner or not prefix else {prefix}


def value_at(value: object, path: Path) -> object:
    """Return the value at a path, or a marker that equals nothing else."""
    for key in path:
        if not isinstance(value, dict) or key not in value:
            return _MISSING
        value = value[key]
    return value


def _touches(one: Path, other: Path) -> bool:
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _without(owned: set[Path], changed: set[Path]) -> set[Path]:
    gone = owned & changed
    return {path for path in owned - gone if not any(_touches(path, other) for other in changed - gone)}


def updated(managed: list[Json], before: Json, after: Json, manager: Manager) -> list[Json]:
    """Return the owners after a plain write: what it changed is the writer's, and nobody else's any more."""
    old, new = leaves(before), leaves(after)
    changed = {path for path in new if value_at(before, path) != value_at(after, path)}
    removed = old - new
    if not changed and not removed:
        return managed
    rest, mine = [], set[Path]()
    for entry in managed:
        owned = decode(entry.get("fieldsV1"))
        if manager.owns(entry):
            mine = owned
        else:
            rest += _shrunk(entry, owned, _without(owned, changed | removed))
    mine = (mine - removed) | changed
    return [*rest, manager.entry(mine)] if mine else rest


def _shrunk(entry: Json, before: set[Path], after: set[Path]) -> list[Json]:
    if after == before:
        return [entry]
    return [{**entry, "fieldsV1": encode(after)}] if after else []


def conflicts(managed: list[Json], live: Json, applied: Json, manager: Manager) -> list[Conflict]:
    """Return the fields that an apply would take from others by changing their value."""
    changed = {path for path in leaves(applied) if value_at(live, path) != value_at(applied, path)}
    found = []
    for entry in managed:
        if manager.owns(entry):
            continue
        owned = decode(entry.get("fieldsV1"))
        taken = {path for path in changed if path in owned or any(_touches(path, other) for other in owned - changed)}
        who, version = str(entry.get("manager", "")), str(entry.get("apiVersion", ""))
        found += [Conflict(who, version, path) for path in sorted(taken)]
    return found


def applied(managed: list[Json], live: Json, wanted: Json, manager: Manager) -> tuple[Json, list[Json]]:
    """Return the object and its owners after a server-side apply; conflicts were looked for before, or are forced.

    What this manager applied last time and does not any more is removed, unless somebody else owns it too.
    """
    mine = next((decode(entry.get("fieldsV1")) for entry in managed if manager.owns(entry)), set())
    wants = leaves(wanted)
    others = [entry for entry in managed if not manager.owns(entry)]
    shared = set[Path]().union(*(decode(entry.get("fieldsV1")) for entry in others))
    after = _merged(live, wanted)
    for path in mine - wants - shared:
        if not any(_touches(path, other) for other in wants):
            _remove(after, path)
    changed = {path for path in wants if value_at(live, path) != value_at(wanted, path)}
    rest: list[Json] = []
    for entry in others:
        owned = decode(entry.get("fieldsV1"))
        rest += _shrunk(entry, owned, _without(owned, changed))
    before = next((entry for entry in managed if manager.owns(entry)), None)
    own = [before] if before is not None and mine == wants else [manager.entry(wants)] if wants else []
    return after, [*rest, *own]


def _merged(live: Json, wanted: Json) -> Json:
    found = copy.copy(live)
    for key, value in wanted.items():
        inner = found.get(key)
        found[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return found


def _remove(value: Json, path: Path) -> None:
    """Remove a field; mappings on the way are copied first, and go too when nothing is left in them."""
    key = path[0]
    if key not in value:
        return
    if len(path) == 1:
        del value[key]
    elif isinstance(value[key], dict):
        value[key] = dict(value[key])
        _remove(value[key], path[1:])
        if not value[key] and key != "metadata":
            del value[key]

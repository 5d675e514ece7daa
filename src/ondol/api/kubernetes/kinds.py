"""What a served kind is, and finding one: by its path, by its manifest, by the names people type.

A kind is declared once, in `served`; discovery, OpenAPI, tables, validation and commands all read that declaration.
Must not know any particular kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Json = dict[str, Any]


class Problem(Protocol):
    """One field that keeps a manifest from being applied (`formats` has the dataclass)."""

    @property
    def path(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def unsupported(self) -> bool:
        """True: a valid field that this machine does not honour. False: the manifest is wrong."""
        ...


@dataclass(frozen=True, slots=True)
class Column:
    """A column of `kubectl get`."""

    name: str
    path: str
    """JSONPath below the object, as custom resource definitions write it (see `columns`)."""

    type: str = "string"
    priority: int = 0
    """0: always shown; 1: only with `-o wide`."""


AGE = Column("Age", ".metadata.creationTimestamp", "date")


def _no_problems(_: Json) -> Sequence[Problem]:
    return ()


def _no_notes(_: Json) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource that this machine serves."""

    group: str
    """API group; empty for Kubernetes' core."""

    versions: tuple[str, ...]
    """Served versions, the preferred one first; they differ in nothing but their name."""

    kind: str
    plural: str
    schema: Callable[[], Json]
    """OpenAPI v3 schema of the whole object."""

    problems: Callable[[Json], Sequence[Problem]] = _no_problems
    """What is wrong with a manifest, or not honoured; a reason of exactly `unknown field` is one of strict decoding."""

    notes: Callable[[Json], Sequence[str]] = _no_notes
    """What a valid manifest asks for and nothing here acts on; sent as warnings."""

    short_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = (AGE,)
    namespaced: bool = True
    has_status: bool = True
    categories: tuple[str, ...] = ()
    built_in: bool = False
    """One of Kubernetes' own: clients patch it by strategic merge and may replace it without a resourceVersion."""

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def resource(self) -> str:
        """The name errors use: `inferenceservices.serving.kserve.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified(self) -> str:
        """The kind with its group: `InferenceService.serving.kserve.io`."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    def api_version(self, version: str = "") -> str:
        """Return `group/version` as manifests write it."""
        version = version or self.versions[0]
        return f"{self.group}/{version}" if self.group else version


class Registry:
    """The kinds served by one door."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds = tuple(kinds)

    @property
    def groups(self) -> dict[str, list[str]]:
        """Served groups (the core's is empty) with their versions."""
        found: dict[str, list[str]] = {}
        for kind in self.kinds:
            versions = found.setdefault(kind.group, [])
            versions += [version for version in kind.versions if version not in versions]
        return found

    def of_version(self, group: str, version: str) -> list[Kind]:
        """Return the kinds of a group in a version."""
        return [kind for kind in self.kinds if kind.group == group and version in kind.versions]

    def by_path(self, group: str, version: str, plural: str) -> Kind | None:
        """Return the kind behind `/apis/GROUP/VERSION/PLURAL`."""
        return next((kind for kind in self.of_version(group, version) if kind.plural == plural), None)

    def by_manifest(self, api_version: object, kind: object) -> Kind | None:
        """Return the kind that a manifest's `apiVersion` and `kind` name."""
        group, _, version = str(api_version).rpartition("/")
        return next((one for one in self.of_version(group, version) if one.kind == kind), None)

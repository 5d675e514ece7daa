"""What a served kind is, and finding one: by its path, by its manifest, by the names people type.

A kind is declared once, in `served`; discovery, OpenAPI, tables, validation and commands all read that declaration.
Must not know any particular kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ondol.formats.resource.checking import Findings
from ondol.formats.resource.kind import Column
from ondol.store.connection import Store, Tx

Json = dict[str, Any]

AGE = Column("Age", ".metadata.creationTimestamp", "date")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource that this machine serves."""

    group: str
    """API group; empty for Kubernetes' core."""

    versions: tuple[str, ...]
    """Served versions, the preferred one first; an object is shown in any of them under that version's name."""

    kind: str
    plural: str
    schema: Callable[[str], Json]
    """OpenAPI v3 schema of the whole object in a version."""

    check: Callable[[Json], Findings]
    """What is wrong with a manifest, or not honoured, or without effect here."""

    check_among: Callable[[Json, Tx], Findings] | None = None
    """The same for a kind of which that depends on what else is stored."""

    short_names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = (AGE,)
    namespaced: bool = True
    has_status: bool = True
    categories: tuple[str, ...] = ()
    built_in: bool = False
    """One of Kubernetes' own: clients patch it by strategic merge and may replace it without a resourceVersion."""

    computed: Callable[[Store], list[Json]] | None = None
    """Returns all objects of a kind that is not stored; such a kind can only be read, and not watched."""

    @property
    def verbs(self) -> tuple[str, ...]:
        """What can be done with it, in the words of discovery."""
        if self.computed:
            return "get", "list"
        return "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"

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

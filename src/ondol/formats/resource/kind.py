"""A kind of resource: its names, its declaration, how it is listed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ondol.formats.resource.states import HONOURED, State
from ondol.formats.resource.types import Object, Rule


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`."""

    name: str
    path: str
    """JSONPath, as in `additionalPrinterColumns`."""

    type: str = "string"


@dataclass(frozen=True, slots=True)
class Kind:
    """What there is to know of a kind before any resource of it exists."""

    group: str
    version: str
    kind: str
    plural: str
    spec: Object
    status: Object
    short: tuple[str, ...] = ()
    namespaced: bool = True
    rules: tuple[Rule, ...] = ()
    """Rules about a whole manifest; called when metadata and spec have the right types."""

    columns: tuple[Column, ...] = ()
    annotations: Mapping[str, State] = field(default_factory=dict)
    """Annotations with a meaning of their own."""

    state: State = HONOURED
    """Whether resources of this kind can be applied here at all."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        return self.kind.lower()

"""The types that declarations of resources are made of: plain data, read by `checking` and `openapi`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ondol.formats.resource.states import HONOURED, State

Json = dict[str, Any]

QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
"""Kubernetes' own pattern of a quantity such as `500m` or `512Mi`."""


class Report(Protocol):
    """Where a rule says what is wrong."""

    def __call__(self, path: str, reason: str, state: State | None = None) -> None:
        """Add a problem.

        :param path: relative to the object the rule is about, empty for the object itself.
        :param state: given when the manifest is right and only this backend does not honour it.
        """


Rule = Callable[[Json, Report], None]
"""What no single field shows. Called only with objects whose fields have the right types."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string.

    `values`: the known values and their states; `other` is the state of any other value, and None makes another value
    wrong. Without `values`, every string is taken.
    """

    values: Mapping[str, State] = field(default_factory=dict)
    other: State | None = None
    pattern: str = ""
    longest: int = 0


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within bounds."""

    low: int = -(2**31)
    high: int = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A Kubernetes quantity: a number or a string such as `500m`."""


@dataclass(frozen=True, slots=True)
class IntOrString:
    """A number or a string: a port's number or name, a percentage."""


@dataclass(frozen=True, slots=True)
class Free:
    """Anything: what is inside is not ours to check."""


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list. `keys`: the fields that tell its items apart, as in Kubernetes' list maps; an item twice is wrong."""

    item: Type
    keys: tuple[str, ...] = ()
    least: int = 0


@dataclass(frozen=True, slots=True)
class MapOf:
    """A mapping with any keys, or with known ones and their states, like `Text.values`."""

    value: Type
    keys: Mapping[str, State] = field(default_factory=dict)
    other: State | None = HONOURED


@dataclass(frozen=True, slots=True)
class Builtin:
    """A type of Kubernetes itself, such as `V1Affinity`, as the package `kubernetes` carries it."""

    name: str


@dataclass(frozen=True, slots=True)
class Object:
    """A mapping with declared fields."""

    fields: Mapping[str, Field]
    about: str = ""
    rules: tuple[Rule, ...] = ()


Type = Text | Whole | Flag | Quantity | IntOrString | Free | ListOf | MapOf | Builtin | Object


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an object."""

    type: Type
    state: State = HONOURED
    about: str = ""
    """One sentence for `kubectl explain` and the documentation."""

    required: bool = False
    default: Any = None
    """What is assumed when the field is absent; None: nothing."""


def one_of(*values: str) -> Text:
    """A string out of a fixed set."""
    return Text(dict.fromkeys(values, HONOURED))


def texts() -> MapOf:
    """Labels, annotations: strings by string."""
    return MapOf(Text())


def every(names: str, state: State, kind: str = "") -> dict[str, Field]:
    """Return fields of one state, named in one string; their types are those of Kubernetes' class `kind`."""
    return {name: Field(Builtin(f"{kind}.{name}") if kind else Free(), state) for name in names.split()}

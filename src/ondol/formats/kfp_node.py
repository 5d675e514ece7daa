"""A place in a foreign file: what is there is taken by name, and what nobody took is refused by name.

Must not know any particular format.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ondol.base import errors

Json = Any


class Node:
    """A mapping at a path of a document.

    :param value: what is there; None counts as an empty mapping.
    :param path: where it is, like `root.dag.tasks.train`.
    """

    def __init__(self, value: Json, path: str) -> None:
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise errors.InputError(f"expected a mapping, found {value!r}", where=path, code="INP-010")
        self._value = value
        self._left = set(value)
        self.path = path

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def names(self) -> list[str]:
        """Return the names of all members."""
        return [str(key) for key in self._value]

    def at(self, key: str) -> str:
        """Return the path of a member."""
        return f"{self.path}.{key}" if self.path else key

    def take(self, key: str, default: Json = None) -> Json:
        """Return a member as it is."""
        self._left.discard(key)
        return self._value.get(key, default)

    def text(self, key: str, default: str = "") -> str:
        """Return a member that must be text."""
        value = self.take(key, default)
        if not isinstance(value, str):
            raise errors.InputError(f"expected text, found {value!r}", where=self.at(key), code="INP-010")
        return value

    def flag(self, key: str) -> bool:
        """Return a member that must be true or false; false when it is not there."""
        value = self.take(key, False)
        if not isinstance(value, bool):
            raise errors.InputError(f"expected true or false, found {value!r}", where=self.at(key), code="INP-010")
        return value

    def items(self, key: str) -> list[Json]:
        """Return a member that must be a list; empty when it is not there."""
        value = self.take(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise errors.InputError(f"expected a list, found {value!r}", where=self.at(key), code="INP-010")
        return value

    def node(self, key: str) -> Node:
        """Return a member that must be a mapping; empty when it is not there."""
        return Node(self.take(key), self.at(key))

    def members(self) -> Iterator[tuple[str, Node]]:
        """Yield every member, each of which must be a mapping."""
        for key in self.names():
            yield key, self.node(key)

    def refuse(self, key: str, reason: str, way_out: str = "") -> None:
        """Refuse a member if it is there and says something."""
        value = self.take(key)
        if value not in (None, {}, [], "", False):
            raise errors.UnsupportedError(f"{key!r} {reason}", where=self.at(key), way_out=way_out)

    def done(self) -> None:
        """Refuse whatever was not taken.

        :raises UnsupportedError: naming the first such member and its path.
        """
        for key in sorted(map(str, self._left)):
            raise errors.UnsupportedError(
                f"the local backend does not know the field {key!r}",
                where=self.at(key),
                way_out="Remove it, or run the pipeline on Kubeflow.",
            )

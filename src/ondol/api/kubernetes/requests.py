"""A request to the resource API, read: which kind, which object, which verb's options.

Paths are those of Kubernetes: `/api/v1/…` for its core, `/apis/GROUP/VERSION/…` for the rest, `namespaces/NAME/` before
what lives in one. Must not touch the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ondol.api.kubernetes import status
from ondol.api.kubernetes.kinds import Kind, Registry

Json = dict[str, Any]
TRUE = ("true", "1", "True")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, whatever brought it here."""

    method: str
    path: str
    """Below `/k8s`, beginning with a slash."""

    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""

    body: bytes = b""
    prefix: str = ""
    """What stands before `path` in the server's URL."""

    def flag(self, name: str) -> bool:
        """Say whether a query parameter is true."""
        return self.query.get(name, "") in TRUE

    def number(self, name: str, default: int = 0) -> int:
        """Return a query parameter that is a whole number.

        :raises StatusError: 400.
        """
        text = self.query.get(name, "") or str(default)
        if not text.isdecimal() or len(text) > 18:
            raise status.bad_request(f"{name}: Invalid value: {text!r}: must be a whole number")
        return int(text)

    @property
    def dry_run(self) -> bool:
        """Whether nothing may be written.

        :raises StatusError: 400 for another value than `All`.
        """
        text = self.query.get("dryRun", "")
        if text not in ("", "All"):
            raise status.bad_request(f'dryRun: Unsupported value: "{text}": supported values: "All"')
        return text == "All"

    @property
    def manager(self) -> str:
        """Who writes: the `fieldManager`, or the client's name from its user agent, as Kubernetes does."""
        agent = self.headers.get("user-agent", "").partition("/")[0]
        return (self.query.get("fieldManager", "") or agent or "unknown")[:128]


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names."""

    kind: Kind
    version: str
    namespace: str
    """Empty: all of them, or a kind that lives in none."""

    name: str = ""
    subresource: str = ""


def target(registry: Registry, parts: list[str]) -> Target:
    """Return what a path below `/api` or `/apis` names.

    :param parts: the path's parts, beginning with the group (empty for the core) and the version.
    :raises StatusError: 404.
    """
    group, version, *rest = parts
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces" and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    kind = registry.by_path(group, version, rest[0]) if rest else None
    if kind is None or len(rest) > 3 or (namespace and not kind.namespaced):
        raise status.no_such_path()
    name, subresource = (*rest[1:], "", "")[:2]
    if (kind.namespaced and name and not namespace) or subresource not in ("", "status"):
        raise status.no_such_path()
    if subresource and not kind.has_status:
        raise status.no_such_path()
    return Target(kind, version, namespace, name, subresource)

"""Which server the resource commands speak to, the files they read, and how they wait.

A running Ondol is asked over HTTP; when none runs, the same requests are answered from the store; `--context` and
`--kubeconfig` name a cluster. The commands cannot tell the difference.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from ondol.backends.kubernetes.client import ApiKind, ResourceClient
from ondol.base import errors
from ondol.cli import context
from ondol.formats.resource import documents as parsing
from ondol.formats.resource.documents import Document

Json = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Access:
    """A client and what stands behind it."""

    client: ResourceClient
    namespace: str
    """Of resources that name none."""

    local: bool
    """Whether it is this home, and no cluster."""

    runs: bool
    """Whether anybody reconciles what is applied."""


def options(command: F) -> F:
    """Add the options that choose a server and a namespace."""
    command = click.option("--kubeconfig", default="", metavar="FILE", help="Speak to the cluster it names.")(command)
    command = click.option("--context", "cluster", default="", metavar="NAME", help="A context of it.")(command)
    return click.option("-n", "--namespace", default="", help="Namespace; `default` when not given.")(command)


@contextmanager
def connect(cluster: str, kubeconfig: str, namespace: str) -> Iterator[Access]:
    """Yield access to the chosen server: a cluster's, the running Ondol's, or the store itself."""
    if cluster or kubeconfig:
        from ondol.backends.kubernetes import kubeconfig as reading

        server = reading.load(reading.path(kubeconfig), cluster)
        with server.client() as http:
            yield Access(ResourceClient(http), namespace or server.namespace, local=False, runs=True)
        return
    import httpx

    from ondol.app import kubeconfig as ours
    from ondol.app import running

    settings = context.load_settings()
    found = running.find(settings.home)
    if found is not None:
        headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        url = ours.server_of(found.control)
        with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=30.0) as http:
            yield Access(ResourceClient(http), namespace or "default", local=True, runs=True)
        return
    from ondol.api.kubernetes import inprocess

    with context.open_store(settings) as store:
        transport = inprocess.StoreTransport(store)
        with httpx.Client(base_url=inprocess.URL, transport=transport, trust_env=False) as http:
            yield Access(ResourceClient(http), namespace or "default", local=True, runs=False)


def read(files: tuple[str, ...]) -> list[Document]:
    """Return every manifest in the files; `-` is standard input, a folder all its YAML files.

    :raises InputError: when a file cannot be read, or there is nothing in any.
    """
    found: list[Document] = []
    for given in files:
        if given == "-":
            found += parsing.parse(sys.stdin.read(), "-")
            continue
        path = Path(given)
        paths = (
            sorted(one for one in path.iterdir() if one.suffix in (".yaml", ".yml", ".json"))
            if path.is_dir()
            else [path]
        )
        for one in paths:
            try:
                text = one.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise errors.InputError(f"cannot read {str(one)!r}: {error}", code="INP-012") from error
            found += parsing.parse(text, str(one))
    if not found:
        raise errors.InputError("no resources in the given files", where=", ".join(files), code="INP-012")
    return found


def split(kind: str, name: str) -> tuple[str, str]:
    """Return kind and name, also out of `kind/name`."""
    if "/" in kind and not name:
        kind, _, name = kind.partition("/")
    return kind, name


def need(name: str, command: str, kind: str) -> None:
    """Refuse a command that names a kind and no resource.

    :raises UsageError: saying how it is written.
    """
    if not name:
        raise errors.UsageError(
            "which one? the name is missing", way_out=f"ondol {command} {kind} NAME", code="USE-031"
        )


def name_of(manifest: Json) -> str:
    """Return a manifest's name; empty when it has none that is a text."""
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def namespace_of(manifest: Json, kind: ApiKind, access: Access) -> str:
    """Return where a manifest belongs: what it says, else what the command says."""
    return str(manifest["metadata"].get("namespace") or access.namespace) if kind.namespaced else ""


def condition(item: Json, kind: str) -> Json:
    """Return a condition of an object's status; empty when it has none of that type."""
    found = (one for one in item.get("status", {}).get("conditions", []) if one.get("type") == kind)
    return next(found, {})


def is_current(item: Json) -> bool:
    """Say whether the status is about the spec as it is now."""
    observed, generation = item.get("status", {}).get("observedGeneration"), item["metadata"].get("generation")
    return observed is None or generation is None or int(observed) >= int(generation)


def until(
    client: ResourceClient,
    kind: ApiKind,
    namespace: str,
    name: str,
    done: Callable[[Json | None], bool],
    seconds: float,
) -> tuple[bool, Json | None]:
    """Watch one object until `done(object or None)`; return whether it came to that, and the object as last seen."""
    deadline = time.monotonic() + seconds
    item: Json | None = None
    while True:
        listed = client.list(kind, namespace, name=name)
        item = next(iter(listed["items"]), None)
        if done(item):
            return True, item
        left = deadline - time.monotonic()
        if left <= 0:
            return False, item
        version = listed["metadata"]["resourceVersion"]
        for event, seen in client.watch(kind, namespace, version, name=name, seconds=max(1, round(left))):
            if event == "ERROR":  # the version is gone: look again
                break
            item = None if event == "DELETED" else seen
            if done(item):
                return True, item
            if time.monotonic() > deadline:
                return False, item

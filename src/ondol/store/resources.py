"""Applied resources (KServe, Katib, … manifests) with the bookkeeping Kubernetes clients rely on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ondol.base import errors
from ondol.store import counters
from ondol.store.connection import Row, Store

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Resource:
    """One applied manifest and its status."""

    kind: str
    namespace: str
    name: str
    version: int
    """Grows over all resources with every change of manifest or status (Kubernetes' resourceVersion)."""

    generation: int
    """Grows with every change of the spec."""

    manifest: Json
    status: Json


def _resource(row: Row) -> Resource:
    return Resource(
        row["kind"],
        row["namespace"],
        row["name"],
        row["version"],
        row["generation"],
        msgspec.json.decode(row["manifest"]),
        msgspec.json.decode(row["status"]),
    )


def apply(store: Store, manifest: Json) -> tuple[Resource, str]:
    """Create or replace a resource by kind, namespace and name; return it and `created|configured|unchanged`."""
    kind, metadata = str(manifest["kind"]), manifest["metadata"]
    key = (kind, str(metadata.get("namespace") or "default"), str(metadata["name"]))
    text = msgspec.json.encode(manifest).decode()
    with store.write() as tx:
        row = tx.row("SELECT * FROM resources WHERE kind = ? AND namespace = ? AND name = ?", key)
        if row and msgspec.json.decode(row["manifest"]) == manifest:
            return _resource(row), "unchanged"
        version = counters.reserve(tx, "resources")
        generation = row["generation"] + 1 if row else 1
        tx.execute(
            "INSERT INTO resources (kind, namespace, name, version, generation, manifest, status) "
            "VALUES (?, ?, ?, ?, ?, ?, '{}') ON CONFLICT (kind, namespace, name) DO UPDATE SET "
            "version = excluded.version, generation = excluded.generation, manifest = excluded.manifest",
            (*key, version, generation, text),
        )
    return get(store, *key), "configured" if row else "created"


def set_status(store: Store, kind: str, namespace: str, name: str, status: Json) -> None:
    """Replace a resource's status; does nothing when it is the same already or the resource is gone."""
    text = msgspec.json.encode(status).decode()
    with store.write() as tx:
        row = tx.row(
            "SELECT status FROM resources WHERE kind = ? AND namespace = ? AND name = ?", (kind, namespace, name)
        )
        if row is None or row["status"] == text:
            return
        tx.execute(
            "UPDATE resources SET status = ?, version = ? WHERE kind = ? AND namespace = ? AND name = ?",
            (text, counters.reserve(tx, "resources"), kind, namespace, name),
        )


def get(store: Store, kind: str, namespace: str, name: str) -> Resource:
    """Return one resource.

    :raises NotFoundError: when there is none.
    """
    with store.read() as tx:
        row = tx.row("SELECT * FROM resources WHERE kind = ? AND namespace = ? AND name = ?", (kind, namespace, name))
    if row is None:
        raise errors.NotFoundError(
            f"no {kind} {name!r} in namespace {namespace!r}", way_out=f"`ondol get {kind}` lists them.", code="NOF-006"
        )
    return _resource(row)


def every(store: Store, kind: str = "") -> list[Resource]:
    """Return all resources, or those of one kind."""
    with store.read() as tx:
        rows = tx.rows("SELECT * FROM resources WHERE ? = '' OR kind = ? ORDER BY kind, namespace, name", (kind, kind))
    return [_resource(row) for row in rows]


def delete(store: Store, kind: str, namespace: str, name: str) -> None:
    """Forget a resource.

    :raises NotFoundError: when there is none.
    """
    with store.write() as tx:
        touched = tx.execute(
            "DELETE FROM resources WHERE kind = ? AND namespace = ? AND name = ?", (kind, namespace, name)
        )
    if not touched:
        raise errors.NotFoundError(f"no {kind} {name!r} in namespace {namespace!r}", code="NOF-006")

"""Applied resources (KServe, Katib, … manifests) with the bookkeeping Kubernetes clients rely on.

Every write gets the next version, bumps the generation when more than metadata and status changed, and leaves an event
behind, all in one transaction: a watch misses nothing and a stale writer can be told so. Must not know what a kind
means: validation is the resource door's, reconciling the controllers'.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ondol.base import clock, errors
from ondol.store import counters, managed_fields, resource_events
from ondol.store.connection import Row, Store, Tx

Json = dict[str, Any]

NAMESPACE_KIND = "Namespace"
OWN_MANAGER = "ondol"
"""Who owns the fields that Ondol's commands and controllers write."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One applied manifest and its status."""

    kind: str
    namespace: str
    """Empty for kinds that live in no namespace."""

    name: str
    version: int
    """Grows over all resources with every change of manifest or status (Kubernetes' resourceVersion)."""

    generation: int
    """Grows with every change of the spec."""

    manifest: Json
    """As it was given, without what the server keeps (uid, resourceVersion, managedFields, status …)."""

    status: Json
    uid: str = ""
    created_at: float = 0.0
    """Seconds since the epoch."""

    deleting_at: float = 0.0
    """When deletion was asked for while finalizers hold it; 0: it was not."""

    managed: list[Json] = field(default_factory=list)
    """Kubernetes' `managedFields`."""

    def object(self) -> Json:
        """Return the resource as Kubernetes shows it."""
        given = self.manifest.get("metadata", {})
        metadata: Json = {"name": self.name}
        if self.namespace:
            metadata["namespace"] = self.namespace
        metadata |= {"uid": self.uid, "resourceVersion": str(self.version)}
        if "spec" in self.manifest:
            metadata["generation"] = self.generation
        metadata["creationTimestamp"] = timestamp(self.created_at)
        if self.deleting_at:
            metadata |= {"deletionTimestamp": timestamp(self.deleting_at), "deletionGracePeriodSeconds": 0}
        metadata |= {key: value for key, value in given.items() if key not in managed_fields.SERVER_OWNED}
        if self.managed:
            metadata["managedFields"] = self.managed
        found = {"apiVersion": self.manifest.get("apiVersion", ""), "kind": self.kind, "metadata": metadata}
        found |= {key: value for key, value in self.manifest.items() if key not in ("apiVersion", "kind", "metadata")}
        return {**found, "status": self.status} if self.status else found


def timestamp(seconds: float) -> str:
    """Return a time as Kubernetes writes it."""
    return clock.iso(seconds)[:19] + "Z"


def _resource(row: Row) -> Resource:
    decoded = {key: msgspec.json.decode(row[key]) for key in ("manifest", "status", "managed")}
    return Resource(**{**row, **decoded})


def find_in(tx: Tx, kind: str, namespace: str, name: str) -> Resource | None:
    """Return one resource as this transaction sees it, or None."""
    row = tx.row("SELECT * FROM resources WHERE kind = ? AND namespace = ? AND name = ?", (kind, namespace, name))
    return _resource(row) if row else None


def write_in(tx: Tx, before: Resource | None, after: Resource) -> Resource:
    """Write a resource and its event; what the server keeps (version, generation, uid, times) is set here.

    :param before: what is stored now; None: it is new.
    """
    if before is None and after.namespace:
        _ensure_namespace(tx, after.namespace)
    changed = before is not None and _intent(before.manifest) != _intent(after.manifest)
    after = replace(
        after,
        version=counters.reserve(tx, resource_events.COUNTER),
        generation=before.generation + changed if before else 1,
        uid=before.uid if before else str(uuid.uuid4()),
        created_at=before.created_at if before else clock.SYSTEM.now(),
    )
    row = {one: getattr(after, one) for one in Resource.__slots__}
    row |= {one: msgspec.json.encode(row[one]).decode() for one in ("manifest", "status", "managed")}
    updates = ", ".join(f"{name} = excluded.{name}" for name in row if name not in ("kind", "namespace", "name"))
    tx.execute(
        f"INSERT INTO resources ({', '.join(row)}) VALUES ({', '.join('?' * len(row))}) "
        f"ON CONFLICT (kind, namespace, name) DO UPDATE SET {updates}",
        list(row.values()),
    )
    resource_events.append(tx, after.version, before.object() if before else None, after.object())
    return after


def remove_in(tx: Tx, resource: Resource) -> Resource:
    """Remove a resource and leave its event; return it as it was last, with the version of its removal."""
    key = (resource.kind, resource.namespace, resource.name)
    tx.execute("DELETE FROM resources WHERE kind = ? AND namespace = ? AND name = ?", key)
    last = replace(resource, version=counters.reserve(tx, resource_events.COUNTER))
    resource_events.append(tx, last.version, resource.object(), None, last.object())
    return last


def _ensure_namespace(tx: Tx, name: str) -> None:
    if find_in(tx, NAMESPACE_KIND, "", name) is None:
        manifest = {"apiVersion": "v1", "kind": NAMESPACE_KIND, "metadata": {"name": name}, "spec": {}}
        write_in(tx, None, Resource(NAMESPACE_KIND, "", name, 0, 1, manifest, {"phase": "Active"}))


def _intent(manifest: Json) -> Json:
    return {key: value for key, value in manifest.items() if key not in ("apiVersion", "metadata", "status")}


def apply(store: Store, manifest: Json) -> tuple[Resource, str]:
    """Create or replace a resource by kind, namespace and name; return it and `created|configured|unchanged`."""
    kind, metadata = str(manifest["kind"]), manifest["metadata"]
    key = (kind, str(metadata.get("namespace") or "default"), str(metadata["name"]))
    writer = managed_fields.Manager(OWN_MANAGER, "Apply", str(manifest.get("apiVersion", "")))
    with store.write() as tx:
        before = find_in(tx, *key)
        if before and before.manifest == manifest:
            return before, "unchanged"
        managed = managed_fields.updated(
            before.managed if before else [], before.manifest if before else {}, manifest, writer
        )
        after = replace(
            before or Resource(*key, version=0, generation=1, manifest={}, status={}),
            manifest=manifest,
            managed=managed,
        )
        return write_in(tx, before, after), "configured" if before else "created"


def set_status(store: Store, kind: str, namespace: str, name: str, status: Json) -> None:
    """Replace a resource's status; does nothing when it is the same already or the resource is gone."""
    with store.write() as tx:
        before = find_in(tx, kind, namespace, name)
        if before is None or before.status == status:
            return
        writer = managed_fields.Manager(OWN_MANAGER, "Update", str(before.manifest.get("apiVersion", "")), "status")
        managed = managed_fields.updated(before.managed, {"status": before.status}, {"status": status}, writer)
        write_in(tx, before, replace(before, status=status, managed=managed))


def get(store: Store, kind: str, namespace: str, name: str) -> Resource:
    """Return one resource.

    :raises NotFoundError: when there is none.
    """
    with store.read() as tx:
        found = find_in(tx, kind, namespace, name)
    if found is None:
        raise errors.NotFoundError(
            f"no {kind} {name!r} in namespace {namespace!r}", way_out=f"`ondol get {kind}` lists them.", code="NOF-006"
        )
    return found


def every_in(tx: Tx, kind: str = "", namespace: str = "") -> list[Resource]:
    """Return all resources, or those of one kind, or of one namespace, as this transaction sees them."""
    rows = tx.rows(
        "SELECT * FROM resources WHERE (? = '' OR kind = ?) AND (? = '' OR namespace = ?) "
        "ORDER BY kind, namespace, name",
        (kind, kind, namespace, namespace),
    )
    return [_resource(row) for row in rows]


def naming_in(tx: Tx, uid: str) -> list[Resource]:
    """Return the resources whose manifests hold a uid, as those do that belong to its object."""
    return [_resource(row) for row in tx.rows("SELECT * FROM resources WHERE manifest LIKE ?", (f"%{uid}%",))]


def every(store: Store, kind: str = "") -> list[Resource]:
    """Return all resources, or those of one kind."""
    with store.read() as tx:
        return every_in(tx, kind)


def by_age(store: Store, kind: str) -> list[Resource]:
    """Return all resources of a kind, the oldest first: who had a name first keeps it."""
    return sorted(every(store, kind), key=lambda one: (one.created_at, one.namespace, one.name))


def delete(store: Store, kind: str, namespace: str, name: str) -> None:
    """Forget a resource.

    :raises NotFoundError: when there is none.
    """
    with store.write() as tx:
        found = find_in(tx, kind, namespace, name)
        if found is None:
            raise errors.NotFoundError(f"no {kind} {name!r} in namespace {namespace!r}", code="NOF-006")
        remove_in(tx, found)

"""Releases: put once, never changed."""

from __future__ import annotations

import time

from ondol.base import errors, hashing
from ondol.records import codec
from ondol.records.release import ApplicationManifest, Kind, ModelManifest, Release
from ondol.store.connection import Row, Store


def digest_of(name: str, kind: Kind, manifest: ModelManifest | ApplicationManifest) -> str:
    """Return the identity of what is pinned; what a model does not have was not part of it in earlier versions."""
    plain = codec.plain(manifest)
    if plain.get("worker", 0) is None:
        del plain["worker"]
    return hashing.of_json({"name": name, "kind": kind, "manifest": plain})


def put(store: Store, name: str, manifest: ModelManifest | ApplicationManifest) -> Release:
    """Record a release and return it; the same content gives the same release, however often it is put."""
    kind: Kind = "model" if isinstance(manifest, ModelManifest) else "application"
    digest = digest_of(name, kind, manifest)
    with store.write() as tx:
        tx.execute(
            "INSERT INTO releases (digest, name, kind, manifest, created_at) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (digest) DO NOTHING",
            (digest, name, kind, codec.encode(manifest), time.time()),
        )
    return get(store, digest)


def _release(row: Row) -> Release:
    return Release(row["digest"], row["name"], row["kind"], codec.decode(row["manifest"], dict), row["created_at"])


def get(store: Store, digest: str) -> Release:
    """Return the release with this digest, or the one release whose digest starts with it (8 digits or more).

    :raises NotFoundError: when there is none, or more than one.
    """
    prefix = digest if digest.startswith("sha256:") else f"sha256:{digest}"
    with store.read() as tx:
        rows = tx.rows("SELECT * FROM releases WHERE digest = ?", (prefix,))
        if not rows and len(prefix) >= len("sha256:") + 8:
            rows = tx.rows("SELECT * FROM releases WHERE digest LIKE ?", (prefix + "%",))
    if len(rows) != 1:
        found = "no release" if not rows else f"{len(rows)} releases"
        raise errors.NotFoundError(
            f"{found} {digest!r}", way_out="`ondol release list` shows them all.", code="NOF-003"
        )
    return _release(rows[0])


def of_name(store: Store, name: str = "") -> list[Release]:
    """Return the releases of a service, or of all, newest first."""
    where, parameters = ("WHERE name = ?", (name,)) if name else ("", ())
    with store.read() as tx:
        rows = tx.rows(f"SELECT * FROM releases {where} ORDER BY created_at DESC", parameters)
    return [_release(row) for row in rows]


def model_manifest(release: Release) -> ModelManifest:
    """Return a model release's manifest, typed."""
    return codec.typed(release.manifest, ModelManifest)


def application_manifest(release: Release) -> ApplicationManifest:
    """Return an application release's manifest, typed."""
    return codec.typed(release.manifest, ApplicationManifest)

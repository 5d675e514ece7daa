"""The serving runtimes that are applied here, as records. Must not choose one: `formats.serving_runtime` does."""

from __future__ import annotations

from ondol.formats import serving_runtime
from ondol.formats.serving_runtime import ServingRuntime
from ondol.store import resources
from ondol.store.connection import Store, Tx


def every(store: Store) -> list[ServingRuntime]:
    """Return all runtimes, of every namespace and of the cluster."""
    with store.read() as tx:
        return every_in(tx)


def every_in(tx: Tx) -> list[ServingRuntime]:
    """Return all runtimes as this transaction sees them."""
    found = [one for kind in serving_runtime.KINDS for one in resources.every_in(tx, kind)]
    return [serving_runtime.typed(one.manifest, one.created_at) for one in found]

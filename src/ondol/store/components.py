"""Transformers and explainers: the processes a controller wants beside a predictor, and how they are.

The controller writes what is wanted, the data plane how it is; each leaves the other's columns alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ondol.base import hashing
from ondol.records import codec
from ondol.records.worker import WorkerSpec
from ondol.store.connection import Row, Store
from ondol.store.loads import State


@dataclass(frozen=True, slots=True)
class ServedComponent:
    """One component of one service."""

    service: str
    component: str
    """`transformer` or `explainer`."""

    spec: WorkerSpec
    digest: str
    """Of the spec that is wanted."""

    state: State
    message: str
    replicas: int
    at: float


def want(store: Store, service: str, specs: dict[str, WorkerSpec]) -> None:
    """Say which components a service has; those not named are taken away. What did not change is left alone."""
    before = {one.component: one.digest for one in every(store, service)}
    wanted = {name: (codec.encode(spec), hashing.of_json(codec.plain(spec))) for name, spec in specs.items()}
    if before == {name: digest for name, (_, digest) in wanted.items()}:
        return
    with store.write() as tx:
        for name in before.keys() - wanted.keys():
            tx.execute("DELETE FROM components WHERE service = ? AND component = ?", (service, name))
        for name, (text, digest) in wanted.items():
            if before.get(name) != digest:
                tx.execute(
                    "INSERT INTO components (service, component, spec, digest, state, message, replicas, at) "
                    "VALUES (?, ?, ?, ?, 'Loading', '', 0, ?) ON CONFLICT (service, component) DO UPDATE SET "
                    "spec = excluded.spec, digest = excluded.digest, state = 'Loading', message = '', at = excluded.at",
                    (service, name, text, digest, time.time()),
                )


def report(store: Store, one: ServedComponent, state: State, message: str = "", replicas: int = 0) -> None:
    """Say how a component is; nothing when it is wanted otherwise meanwhile, or was said already."""
    if (one.state, one.message, one.replicas) == (state, message, replicas):
        return
    with store.write() as tx:
        tx.execute(
            "UPDATE components SET state = ?, message = ?, replicas = ?, at = ? "
            "WHERE service = ? AND component = ? AND digest = ?",
            (state, message, replicas, time.time(), one.service, one.component, one.digest),
        )


def every(store: Store, service: str = "") -> list[ServedComponent]:
    """Return all components, or those of one service."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT * FROM components WHERE ? = '' OR service = ? ORDER BY service, component", (service, service)
        )
    return [_component(row) for row in rows]


def _component(row: Row) -> ServedComponent:
    values = {name: row[name] for name in ("service", "component", "digest", "state", "message", "replicas", "at")}
    return ServedComponent(spec=codec.decode(row["spec"], WorkerSpec), **values)

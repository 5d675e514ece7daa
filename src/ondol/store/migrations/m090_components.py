"""Servers beside a predictor: what the controller wants, and what the data plane says of it."""

from __future__ import annotations

from ondol.store.connection import Tx


def apply(tx: Tx) -> None:
    tx.execute(
        "CREATE TABLE components (service TEXT NOT NULL, component TEXT NOT NULL, spec TEXT NOT NULL, "
        "digest TEXT NOT NULL, state TEXT NOT NULL, message TEXT NOT NULL, replicas INTEGER NOT NULL, "
        "at DOUBLE PRECISION NOT NULL, PRIMARY KEY (service, component))"
    )

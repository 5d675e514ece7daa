"""Requests of one service in the order in which they were logged: without it every look sorted all of them."""

from __future__ import annotations

from ondol.store.connection import Tx


def apply(tx: Tx) -> None:
    tx.execute("CREATE INDEX observations_in_order ON observations (service, seq)")

"""What the data plane says of each release it was told to serve."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from ondol.store.connection import Store

State = Literal["Loading", "Loaded", "FailedToLoad", "Unloaded"]


@dataclass(frozen=True, slots=True)
class Load:
    """The state of one release in the data plane."""

    service: str
    release: str
    state: State
    message: str
    at: float


def put(store: Store, service: str, release: str, state: State, message: str = "") -> None:
    """Write the state of a release."""
    with store.write() as tx:
        tx.execute(
            "INSERT INTO loads (service, release, state, message, at) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (service, release) DO UPDATE SET state = excluded.state, message = excluded.message, "
            "at = excluded.at",
            (service, release, state, message, time.time()),
        )


def every(store: Store, service: str = "") -> list[Load]:
    """Return the states of all releases, or those of one service."""
    with store.read() as tx:
        rows = tx.rows("SELECT * FROM loads WHERE ? = '' OR service = ? ORDER BY service, at", (service, service))
    return [Load(**row) for row in rows]

"""Routes: the one pointer per service that says who serves. Moving it is promotion and rollback."""

from __future__ import annotations

from dataclasses import replace

from ondol.base import errors
from ondol.records import codec
from ondol.records.rollout import Route
from ondol.store.connection import Store, Tx


def every(store: Store) -> list[Route]:
    """Return the routes of all services, by name."""
    with store.read() as tx:
        return [codec.decode(row["body"], Route) for row in tx.rows("SELECT body FROM routes ORDER BY service")]


def get_in(tx: Tx, service: str) -> Route | None:
    """Return a service's route as this transaction sees it, or None."""
    row = tx.row("SELECT body FROM routes WHERE service = ?", (service,))
    return codec.decode(row["body"], Route) if row else None


def get(store: Store, service: str) -> Route | None:
    """Return a service's route, or None."""
    with store.read() as tx:
        return get_in(tx, service)


def put_in(tx: Tx, route: Route) -> Route:
    """Write the route if nobody changed it since it was read, and return it with its new generation.

    :raises ConflictError: when the stored generation is not `route.generation` (0: there must be none).
    """
    new = replace(route, generation=route.generation + 1)
    if route.generation == 0:
        touched = tx.execute(
            "INSERT INTO routes (service, generation, body) VALUES (?, 1, ?) ON CONFLICT (service) DO NOTHING",
            (route.service, codec.encode(new)),
        )
    else:
        touched = tx.execute(
            "UPDATE routes SET generation = ?, body = ? WHERE service = ? AND generation = ?",
            (new.generation, codec.encode(new), route.service, route.generation),
        )
    if touched != 1:
        raise errors.ConflictError(
            f"the route of {route.service!r} was changed by somebody else",
            way_out="Read it again and repeat the change.",
            code="CON-002",
        )
    return new


def put(store: Store, route: Route) -> Route:
    """`put_in` in a transaction of its own."""
    with store.write() as tx:
        return put_in(tx, route)


def remove(store: Store, service: str) -> None:
    """Forget a service: it is served no more."""
    with store.write() as tx:
        tx.execute("DELETE FROM routes WHERE service = ?", (service,))

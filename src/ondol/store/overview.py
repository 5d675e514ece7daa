"""What pages, commands and the admin API show of each service: its route, releases, loads and rollout.

Must not decide anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from ondol.records.release import Release
from ondol.records.rollout import Rollout, Route
from ondol.store import loads, releases, rollouts, routes
from ondol.store.connection import Store
from ondol.store.loads import Load


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service as it is now."""

    route: Route
    stable: Release | None
    candidate: Release | None
    rollout: Rollout | None
    """The rollout in progress, else the newest one."""

    loads: tuple[Load, ...]
    """What the data plane says of the releases that the route names."""


def service(store: Store, route: Route) -> ServiceView:
    """Return one service by its route."""
    of_name = {release.digest: release for release in releases.of_name(store, route.service)}
    history = rollouts.of_service(store, route.service)
    current = next((one for one in history if one.id == route.rollout), history[0] if history else None)
    loaded = tuple(load for load in loads.every(store, route.service) if load.release in route.releases)
    return ServiceView(route, of_name.get(route.stable), of_name.get(route.candidate), current, loaded)


def services(store: Store) -> list[ServiceView]:
    """Return every service, by name."""
    return [service(store, route) for route in routes.every(store)]

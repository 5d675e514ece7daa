"""Puts a walk round the loop together for the command line and the demo, and follows what the conductor makes of it."""

from __future__ import annotations

import time

from ondol.app import asking
from ondol.backends.local import model_source
from ondol.base import errors, hashing
from ondol.base.progress import Progress
from ondol.base.settings import Settings
from ondol.loop import application_cycle
from ondol.loop.context import Context
from ondol.records.project import Project
from ondol.records.rollout import Rollout
from ondol.registry.client import RegistryClient
from ondol.store import loads, rollouts, routes
from ondol.store.connection import Store

_PATIENCE = 180.0  # seconds until something that should have begun has failed to begin


def context(store: Store, settings: Settings, project: Project, progress: Progress) -> Context:
    """Return what a walk needs, with the running control process as registry."""
    registry = RegistryClient(settings.control.url, settings.api_key)
    return Context(
        store,
        settings,
        project,
        registry,
        progress,
        tracking_uri=settings.control.url,
        importers=model_source.for_importers(settings),
    )


def opener(store: Store, settings: Settings) -> application_cycle.Open:
    """Return what opens a release of an application for a suite's questions."""
    return lambda release: asking.answerer(store, settings, release)


def wait_served(store: Store, service: str, release: str, patience: float = _PATIENCE) -> None:
    """Wait until the data plane has loaded a release of a service.

    :raises StateError: when loading failed, or nothing happened for too long.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        for load in loads.every(store, service):
            if load.release == release and load.state == "Loaded":
                return
            if load.release == release and load.state == "FailedToLoad":
                raise errors.StateError(
                    f"release {hashing.short(release)} of {service!r} does not load: {load.message}", code="STA-040"
                )
        time.sleep(0.05)
    raise errors.StateError(
        f"release {hashing.short(release)} of {service!r} was not loaded in {patience:g} s",
        way_out="`ondol status` shows both processes; their logs are in .ondol/logs.",
        code="STA-041",
    )


def rollout_of(store: Store, service: str, release: str) -> Rollout | None:
    """Return the newest rollout of a release, or None."""
    return next((one for one in rollouts.of_service(store, service) if one.candidate == release), None)


def wait_rollout(store: Store, service: str, release: str, patience: float = _PATIENCE) -> Rollout:
    """Wait until the conductor has put a release on trial.

    :raises StateError: when it does not for too long.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := rollout_of(store, service, release):
            return found
        time.sleep(0.05)
    raise errors.StateError(
        f"release {hashing.short(release)} of {service!r} was not put on trial in {patience:g} s",
        way_out="`ondol loop status` says what waits for what; .ondol/logs/control.log what failed.",
        code="STA-042",
    )


def follow(store: Store, service: str, release: str, progress: Progress) -> None:
    """Wait until the release serves everybody or its trial has ended, saying where it stands."""
    progress.start("canary")
    said = ""
    while True:
        route = routes.get(store, service)
        rollout = rollout_of(store, service, release)
        if rollout is not None and rollout.state != "progressing":
            progress.finish("canary", f"{rollout.state}: {rollout.reason}")
            return
        if route is not None and route.stable == release and rollout is None:
            wait_served(store, service, release)
            progress.finish("canary", "first release: serves without a trial")
            return
        if rollout is not None and rollout.reason != said:
            said = rollout.reason
            progress.advance("canary", 0, said)
        time.sleep(0.2)

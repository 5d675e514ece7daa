"""`ondol status`: what runs, what serves, what is on trial, what disagrees."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import click
import msgspec

from ondol.base import hashing
from ondol.base.settings import OFF, Settings
from ondol.cli import context, output
from ondol.store import overview, rollouts
from ondol.store.connection import Store
from ondol.store.overview import ServiceView

_EPILOG = """\b
Examples:
  ondol status
  ondol status --json | jq '.services[].route'
"""


@dataclass(frozen=True, slots=True)
class Status:
    """Everything `ondol status` says."""

    home: str
    running: bool
    processes: list[dict[str, Any]] = field(default_factory=list)
    grpc: str = ""
    """Where the data plane serves gRPC, as HOST:PORT; `off` when it does not."""

    services: list[ServiceView] = field(default_factory=list)
    progressing: int = 0
    disagreements: list[dict[str, Any]] = field(default_factory=list)
    disagreements_checked: bool = False
    """Whether MLflow could be asked; it cannot while nothing runs."""


def collect(settings: Settings, store: Store) -> Status:
    """Look at the processes and the store of one home."""
    from ondol.app import running

    found = running.find(settings.home)
    processes = []
    for name, address in (("control", found.control), ("data", found.data)) if found else ():
        processes.append(
            {
                "name": name,
                "url": address.url,
                "pid": found.pids.get(name, 0) if found else 0,
                "ready": running.is_ready(address),
                "restarts": found.restarts.get(name, 0) if found else 0,
            }
        )
    asked = _disagreements(found.control.url, settings) if found and processes[0]["ready"] else None
    return Status(
        str(settings.home),
        found is not None,
        processes,
        str(found.grpc or OFF) if found else "",
        overview.services(store),
        len(rollouts.of_service(store, state="progressing")),
        asked or [],
        asked is not None,
    )


def _disagreements(url: str, settings: Settings) -> list[dict[str, Any]] | None:
    headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
    import httpx

    with contextlib.suppress(httpx.HTTPError):
        answer = httpx.get(f"{url}/api/ondol/registry/disagreements", headers=headers, timeout=10, trust_env=False)
        if answer.is_success:
            return list(msgspec.json.decode(answer.content))
    return None


@click.command("status", epilog=_EPILOG)
@output.json_option
def command(as_json: bool) -> None:
    """Show the processes, the services with their traffic, the rollouts and what disagrees."""
    settings = context.load_settings()
    with context.open_store(settings) as store:
        status = collect(settings, store)
    output.emit(status, as_json, lambda: _show(status))


def _show(status: Status) -> None:
    click.echo(f"home  {status.home}")
    if not status.running:
        click.echo("Nothing runs here. Start it with: ondol up --detach\n")
    else:
        rows = [
            ("control" if one["name"] == "control" else "data plane", one["url"], one["pid"],
             "ready" if one["ready"] else "not ready", one["restarts"])
            for one in status.processes
        ]  # fmt: skip
        output.table(("process", "url", "pid", "state", "restarts"), rows)
        click.echo(f"gRPC  {status.grpc}\n")
    output.table(
        ("service", "kind", "stable", "candidate", "weight", "data plane", "rollout"),
        [_row(view) for view in status.services],
        empty="No service yet: `ondol demo`, or `ondol apply -f FILE`.",
    )
    for one in status.disagreements:
        click.echo(
            f"\n! {one['service']}: MLflow's {one['says']} names version {one['version']} of {one['model']!r}, "
            f"version {one['served']} serves. Move it back: ondol model promote {one['model']} {one['served']}"
        )


def _row(view: ServiceView) -> tuple[object, ...]:
    route = view.route
    states = {load.release: load.state for load in view.loads}
    loaded = ", ".join(f"{hashing.short(digest, 8)} {state}" for digest, state in states.items()) or "-"
    trial = f"{view.rollout.state} {view.rollout.id}" if view.rollout else "-"
    weight = f"{route.weight:g} %" if route.candidate else "-"
    return (
        route.service,
        route.kind,
        _named(view.stable.manifest if view.stable else {}, route.stable),
        _named(view.candidate.manifest if view.candidate else {}, route.candidate) if route.candidate else "-",
        weight,
        loaded,
        trial,
    )


def _named(manifest: dict[str, Any], digest: str) -> str:
    version = manifest.get("version")
    return f"{hashing.short(digest)}{f' (v{version})' if version else ''}"

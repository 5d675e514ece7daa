"""`ondol model`: registered models, their aliases and the history of moves."""

from __future__ import annotations

import time

import click

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.cli import context, output
from ondol.registry import agreement
from ondol.registry.client import RegistryClient
from ondol.registry.models import RegisteredModel
from ondol.store import registry_events
from ondol.store.registry_events import RegistryEvent


def _client(settings: Settings) -> RegistryClient:
    """Return the registry of the running Ondol.

    :raises StateError: when none runs: MLflow lives in the control process.
    """
    from ondol.app import running

    found = running.find(settings.home)
    if found is None:
        raise errors.StateError(
            "MLflow's registry is in the control process, and none runs in this home",
            where=str(settings.home),
            way_out="ondol up --detach",
            code="STA-020",
        )
    return RegistryClient(found.control.url, settings.api_key)


@click.group("model")
def group() -> None:
    """Registered models (MLflow's), their aliases, and who moved them."""


@group.command("list", epilog="\b\nExamples:\n  ondol model list\n  ondol model list delay --history --json")
@click.argument("name", required=False, default="")
@click.option("--history", is_flag=True, help="Show who moved which alias or stage, when.")
@output.json_option
def list_(name: str, history: bool, as_json: bool) -> None:
    """List models, versions, aliases and stages; with --history every move of them."""
    settings = context.load_settings()
    client = _client(settings)
    models = [model for model in client.models() if name in ("", model.name)]
    client.close()
    if name and not models:
        raise errors.NotFoundError(f"no registered model {name!r}", way_out="`ondol model list`", code="NOF-020")
    with context.open_store(settings) as store:
        events = registry_events.every(store, name) if history else []

    def show() -> None:
        _show_models(models)
        if history:
            click.echo()
            _show_events(events)

    output.emit({"models": models, "history": events} if history else models, as_json, show)


def _show_models(models: list[RegisteredModel]) -> None:
    rows = []
    for model in models:
        for version in model.versions:
            aliases = ", ".join(sorted(f"@{alias}" for alias, at in model.aliases.items() if at == version.version))
            made = time.strftime("%Y-%m-%d %H:%M", time.localtime(version.created_at)) if version.created_at else ""
            rows.append((model.name, version.version, aliases, version.stage, made, version.run_id[:12]))
    columns = ("model", "version", "aliases", "stage", "made", "run")
    output.table(columns, rows, empty="No registered model yet: `ondol demo` makes one.")


def _show_events(events: list[RegistryEvent]) -> None:
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.at)),
            one.model,
            f"{one.kind} {one.name}",
            f"{one.before_value or '-'} -> {one.after_value or '-'}",
            one.actor,
            one.outcome,
        )
        for one in events
    ]
    output.table(("at", "model", "what", "move", "who", "outcome"), rows, empty="No alias or stage was moved yet.")


@group.command(
    "promote", epilog="\b\nExamples:\n  ondol model promote delay 3\n  ondol model promote delay 3 --alias champion"
)
@click.argument("name")
@click.argument("version")
@click.option("--alias", default=agreement.STABLE_ALIAS, show_default=True, help="The alias to move.")
@output.json_option
def promote(name: str, version: str, alias: str, as_json: bool) -> None:
    """Point an alias at a version.

    `champion` is a proposal: the conductor tries the version before it serves, if it passed a gate and was not tried
    before, and puts the alias back otherwise.
    """
    settings = context.load_settings()
    client = _client(settings)
    known = next((model for model in client.models() if model.name == name), None)
    if known is None or version not in [one.version for one in known.versions]:
        raise errors.NotFoundError(
            f"no version {version!r} of model {name!r}", way_out="`ondol model list` shows them.", code="NOF-021"
        )
    before = known.aliases.get(alias, "")
    client.set_alias(name, alias, version)
    client.close()
    value = {"model": name, "alias": alias, "from": before, "to": version}
    output.emit(value, as_json, lambda: click.echo(f"{name}@{alias}: {before or 'none'} -> {version}"))


@group.command(
    "rollback", epilog="\b\nExamples:\n  ondol model rollback delay\n  ondol model rollback delay --to 4f1c09aa"
)
@click.argument("service")
@click.option("--to", default="", metavar="DIGEST", help="The release to go back to (default: the one before).")
@click.option("--reason", default="rolled back by hand", show_default=True, help="Kept with the decision.")
@output.json_option
def rollback(service: str, to: str, reason: str, as_json: bool) -> None:
    """Go back at once: a move of the service's pointer, with no failed request."""
    from ondol.rollout import controller

    with context.open_store() as store:
        decision = controller.rollback(store, service, reason, to)
    output.emit(decision, as_json, lambda: click.echo(f"{service}: {decision.verdict}; {decision.reason}"))

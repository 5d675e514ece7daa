"""`ondol up`: start, watch or stop the two processes."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from ondol.base import errors
from ondol.base import settings as settings_module
from ondol.cli import context, output

_EPILOG = """\b
Examples:
  ondol up                              stay in the foreground; Ctrl-C stops it
  ondol up --detach                     return when both processes are ready
  ondol up --control 127.0.0.1:5001     another port for pages and MLflow
  ondol up --grpc off                   without gRPC
  ondol up --stop
"""


@click.command("up", epilog=_EPILOG)
@click.option("--control", metavar="HOST:PORT", help="Pages, MLflow and APIs.  [default: 127.0.0.1:5000]")
@click.option("--data", metavar="HOST:PORT", help="Inference and the LLM gateway.  [default: 127.0.0.1:8080]")
@click.option("--grpc", metavar="HOST:PORT|off", help="Inference over gRPC.  [default: the port after --data]")
@click.option("--safe", is_flag=True, help="Serve no model that has to be unpickled.")
@click.option("--detach", is_flag=True, help="Return when both are ready; they stay.")
@click.option("--stop", "stopping", is_flag=True, help="Stop what runs in this home.")
@output.json_option
def command(
    control: str | None, data: str | None, grpc: str | None, safe: bool, detach: bool, stopping: bool, as_json: bool
) -> None:
    """Start the control process (pages, MLflow) and the data plane (inference)."""
    from ondol.app import running

    settings = context.load_settings()
    if control:
        settings = dataclasses.replace(settings, control=settings_module.parse_address(control))
    if data:
        settings = dataclasses.replace(settings, data=settings_module.parse_address(data))
    if safe:
        settings = dataclasses.replace(settings, safe=True)
    if grpc:
        settings = dataclasses.replace(settings, grpc_at=_checked(grpc))
    if stopping:
        _stop(settings, as_json)
    elif running.is_locked(settings.home):
        raise running.already_running(running.find(settings.home), settings.home)
    elif detach:
        _detach(settings, as_json)
    elif as_json:
        raise errors.UsageError("--json needs --detach or --stop", way_out="ondol up --detach --json")
    else:
        _foreground(settings)


def _checked(grpc: str) -> str:
    """Return where gRPC listens as the settings have it."""
    return grpc if grpc == settings_module.OFF else str(settings_module.parse_address(grpc))


def _stop(settings: settings_module.Settings, as_json: bool) -> None:
    from ondol.app import running

    found = running.stop(settings)
    text = f"Stopped (process {found.pids['supervisor']})." if found else "Nothing runs in this home."
    output.emit({"stopped": found is not None}, as_json, lambda: click.echo(text))


def _detach(settings: settings_module.Settings, as_json: bool) -> None:
    from ondol.app import supervisor

    supervisor.check_exposure(settings)
    found = supervisor.ensure_running(settings)

    def show() -> None:
        click.echo(f"control     {found.control.url}   pages; MLflow's UI at {found.control.url}/mlflow/")
        click.echo(f"data plane  {found.data.url}")
        click.echo(f"gRPC        {found.grpc or settings_module.OFF}")
        click.echo(f"logs        {settings.logs}\nStop it with: ondol up --stop")

    value: dict[str, Any] = dataclasses.asdict(found)
    value |= {"control": found.control.url, "data": found.data.url, "grpc": str(found.grpc) if found.grpc else None}
    output.emit(value, as_json, show)


def _foreground(settings: settings_module.Settings) -> None:
    from ondol.app import supervisor

    click.echo(f"Ondol in {settings.home}   (Ctrl-C stops it; logs in {settings.logs})")
    supervisor.run(settings, click.echo)
    click.echo("Stopped.")

"""`ondol alert`: what was raised, who was told, and what to keep quiet about."""

from __future__ import annotations

import getpass
import re
import time
from typing import Any

import click

from ondol.cli import context as contexts
from ondol.cli import output

_UNITS = {"m": 60.0, "h": 3600.0, "d": 86_400.0}


@click.group()
def group() -> None:
    """Alerts: rollbacks, failed gates of retrainings, drift, quality, failed loads, budgets, dead processes."""


@group.command("list")
@click.option("--kind", default="", help="Only of this kind: rollback, drift, budget …")
@click.option("--open", "only_open", is_flag=True, help="Only those that somebody is still to be told about.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
@output.json_option
def list_(kind: str, only_open: bool, limit: int, as_json: bool) -> None:
    """Show alerts, newest first, with where each was sent, and the silences in force.

    \b
    Examples:
      ondol alert list
      ondol alert list --kind drift --json
    """
    from ondol.base import clock
    from ondol.records import codec
    from ondol.store import alerts

    with contexts.open_store(contexts.load_settings()) as store:
        found = alerts.every(store, kind, undelivered=only_open, limit=limit)
        sent = {one.id: alerts.deliveries(store, one.id) for one in found}
        silences = alerts.silences(store, time.time())

    def show() -> None:
        rows = [
            (one.id, clock.iso(one.at), one.severity, one.kind, one.subject, _state(one, sent[one.id]), one.message)
            for one in found
        ]
        output.table(("id", "at", "severity", "kind", "subject", "sent", "message"), rows, empty="no alerts")
        for one in silences:
            about = f"{one.kind or 'every kind'} about {one.subject or 'anything'}"
            print(f"silence {one.id}: {about} until {clock.iso(one.until)}: {one.reason}")

    value = {
        "alerts": [{**codec.plain(one), "deliveries": codec.plain(sent[one.id])} for one in found],
        "silences": silences,
    }
    output.emit(value, as_json, show)


def _state(alert: Any, deliveries: list[Any]) -> str:
    if alert.acknowledged_by:
        return f"acknowledged by {alert.acknowledged_by}"
    if not deliveries:
        return "nobody to tell" if alert.delivered else "waiting"
    told = [f"{one.target} {one.state}" + (f" ({one.error})" if one.error else "") for one in deliveries]
    return ", ".join(told)


@group.command()
@click.argument("alert")
@click.option("--by", default="", help="Who knows; default: the name of the user.")
@output.json_option
def ack(alert: str, by: str, as_json: bool) -> None:
    """Acknowledge ALERT: it is not sent any more.

    \b
    Example:
      ondol alert ack alr-01m846bn9xjnr2qzacv9 --by mina
    """
    from ondol.store import alerts

    with contexts.open_store(contexts.load_settings()) as store:
        found = alerts.acknowledge(store, alert, by or getpass.getuser())
    output.emit(found, as_json, lambda: print(f"{found.id} is acknowledged by {found.acknowledged_by}"))


@group.command()
@click.option("--kind", default="", help="Alerts of this kind; default: every kind.")
@click.option("--subject", default="", help="Alerts about this service, budget or process; default: anything.")
@click.option("--for", "duration", default="", help="How long: 30m, 8h, 2d.")
@click.option("--reason", default="", help="Why; shown to whoever wonders.")
@click.option("--end", default="", help="End this silence now.")
@output.json_option
def silence(kind: str, subject: str, duration: str, reason: str, end: str, as_json: bool) -> None:
    """Tell nobody about some alerts for a while; they are still raised and listed.

    \b
    Examples:
      ondol alert silence --kind drift --subject flights --for 8h --reason "holiday season"
      ondol alert silence --end sil-01m846bn9xjnr2qzacv9
    """
    from ondol.base import clock, errors
    from ondol.records.alert import KINDS
    from ondol.store import alerts

    if kind and kind not in KINDS:
        raise errors.UsageError(f"no alert is of kind {kind!r}", way_out=f"There are: {', '.join(KINDS)}.")
    with contexts.open_store(contexts.load_settings()) as store:
        if end:
            alerts.unsilence(store, end)
            output.emit({"ended": end}, as_json, lambda: print(f"silence {end} is ended"))
            return
        if not reason:
            raise errors.UsageError("a silence needs a reason", way_out="Give --reason.")
        made = alerts.silence(store, kind, subject, time.time() + _seconds(duration), reason)
    output.emit(made, as_json, lambda: print(f"silence {made.id} until {clock.iso(made.until)}"))


def _seconds(text: str) -> float:
    from ondol.base import errors

    found = re.fullmatch(r"(\d+)([mhd])", text)
    if found is None or not int(found.group(1)):
        raise errors.UsageError(f"{text!r} is no duration", where="--for", way_out="Write 30m, 8h or 2d.")
    return int(found.group(1)) * _UNITS[found.group(2)]


@group.command()
@output.json_option
def test(as_json: bool) -> int:
    """Send a test alert to every target of ondol.yaml now; exit 1 when one of them cannot be reached.

    \b
    Example:
      ondol alert test
    """
    from ondol.formats import project as projects
    from ondol.monitoring import alert_targets

    settings = contexts.load_settings()
    targets = alert_targets.read(projects.load(settings.project).alerts)
    results = [_tried(target, settings.project.name) for target in targets]

    def show() -> None:
        output.table(
            ("target", "sent", "error"),
            [(one["target"], "yes" if one["sent"] else "no", one["error"]) for one in results],
            empty='ondol.yaml names no target: add `alerts: [{webhook: "${ALERT_WEBHOOK}"}]`',
        )

    output.emit(results, as_json, show)
    return 0 if all(one["sent"] for one in results) else 1


def _tried(target: Any, project: str) -> dict[str, Any]:
    from ondol.monitoring import alert_targets
    from ondol.store import alerts

    alert = alerts.make("test", project, f"a test alert from {project}: nothing is wrong", severity="info")
    try:
        alert_targets.send(target, alert)
    except alert_targets.NotSentError as error:
        return {"target": target.name, "sent": False, "error": str(error)}
    return {"target": target.name, "sent": True, "error": ""}

"""`ondol loop`: walk round the loop, and see where every model stands in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import click
import msgspec

from ondol.cli import context as contexts
from ondol.cli import output


@click.group()
def group() -> None:
    """The closed loop: check, pipeline, evaluate, gate, register, serve, canary, monitor, respond."""


def _parameters(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read NAME=VALUE; a value that is JSON is taken as that, everything else as text."""
    from ondol.base import errors

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise errors.UsageError(f"{pair!r} is not NAME=VALUE", where="-p", code="USE-010")
        try:
            found[name] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[name] = value
    return found


@group.command()
@click.argument("model", required=False)
@click.option("--once", is_flag=True, help="Stop after the gate; without it the verdict of the canary is awaited too.")
@click.option("-p", "--parameter", "pairs", multiple=True, help="Override a pipeline parameter: NAME=VALUE.")
@click.option("--because", default="", hidden=True, help="Decision that asks for a retraining.")
@output.json_option
def run(model: str | None, once: bool, pairs: tuple[str, ...], because: str, as_json: bool) -> int:
    """Make, evaluate and gate every model and application of the project (or the one named), and serve what passes.

    The first release that passes serves at once; a later one goes on trial beside the one that serves. Starts Ondol
    when it is not running. Exit code 1 when a gate says no.

    \b
    Examples:
      ondol loop run --once
      ondol loop run flights -p trees=100 --once --json
    """
    from ondol.app import looping, supervisor
    from ondol.base import progress
    from ondol.cli.progress import Lines
    from ondol.formats import project as projects
    from ondol.loop import application_cycle, cycle
    from ondol.records import codec
    from ondol.store import routes

    settings = contexts.load_settings()
    project = projects.load(settings.project)
    live = supervisor.ensure_running(settings)
    settings = replace(settings, control=live.control, data=live.data)
    watch: Any = progress.SILENT if as_json else Lines()
    decisions = []
    with contexts.open_store(settings) as store:
        context = looping.context(store, settings, project, watch)
        for name in [model] if model else [*project.models, *project.applications]:
            if not as_json:
                watch.say(f"[bold]{name}[/]")
            outcome: cycle.Outcome | application_cycle.ApplicationOutcome
            if name in project.applications:
                outcome = application_cycle.walk(context, name, looping.opener(store, settings))
            else:
                outcome = cycle.walk(context, name, _parameters(pairs), because or cycle.ASKED_FOR)
            decisions.append(outcome.decision)
            if outcome.decision.verdict == "pass" and outcome.release is not None:
                route = routes.get(store, name)
                serves = route is None or route.stable == outcome.release.digest
                if serves or not once:
                    looping.follow(store, name, outcome.release.digest, watch)
    if as_json:
        output.emit([codec.plain(one) for one in decisions], True, lambda: None)
    return 0 if all(one.verdict == "pass" for one in decisions) else 1


@group.command()
@output.json_option
def status(as_json: bool) -> None:
    """Show where every model stands: what serves, what is on trial, what waits, what comes next.

    \b
    Example:
      ondol loop status --json
    """
    from ondol.app import conducting, running
    from ondol.base import hashing
    from ondol.formats import project as projects
    from ondol.loop import actions
    from ondol.records import codec

    settings = contexts.load_settings()
    project = projects.load(settings.project)
    if live := running.find(settings.home):
        settings = replace(settings, control=live.control, data=live.data)
    with contexts.open_store(settings) as store:
        conductor = conducting.make(store, settings)
        states = [conductor.state(name, project) for name in project.models]
    rows = [
        [
            one.model,
            hashing.short(one.stable) or "nothing yet",
            hashing.short(one.on_trial) or "-",
            ", ".join(hashing.short(each) for each in one.waiting) or "-",
            one.drifted or "-",
            ", ".join(type(each).__name__ for each in actions.next_actions(one)) or "nothing to do",
        ]
        for one in states
    ]
    columns = ["model", "serves", "on trial", "waiting", "drift", "next"]
    output.emit(
        [codec.plain(one) for one in states],
        as_json,
        lambda: output.table(columns, rows, empty="no models in ondol.yaml"),
    )


@group.command()
@click.argument("model")
@click.option("--reason", required=True, help="Why; shown to whoever wonders.")
def hold(model: str, reason: str) -> None:
    """Hold back automatic retraining of MODEL, until `ondol loop release`.

    \b
    Example:
      ondol loop hold flights --reason "audit of the training data"
    """
    _set_hold(model, reason)


@group.command()
@click.argument("model")
def release(model: str) -> None:
    """Let MODEL be retrained automatically again."""
    _set_hold(model, "")


def _set_hold(model: str, reason: str) -> None:
    from ondol.base import errors
    from ondol.formats import project as projects
    from ondol.loop import standing

    settings = contexts.load_settings()
    project = projects.load(settings.project)
    if model not in project.models:
        known = ", ".join(project.models) or "none"
        raise errors.NotFoundError(f"no model {model!r} in the project", way_out=f"There are: {known}.", code="NOF-011")
    with contexts.open_store(settings) as store:
        standing.hold(store, model, reason)
    print(f"retraining of {model} is " + (f"held: {reason}" if reason else "released"))

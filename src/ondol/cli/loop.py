"""`ondol loop`: walk round the loop, and see where every model stands in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
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
@click.option("--because", default="", hidden=True, help="The retraining that asks for the walk.")
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
    from ondol.loop import application_cycle, cycle, walking
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
            before = routes.get(store, name)
            outcome: cycle.Outcome | application_cycle.ApplicationOutcome
            if name in project.applications:
                outcome = application_cycle.walk(
                    context, name, looping.opener(store, settings), because=because or walking.ASKED_FOR
                )
            else:
                outcome = cycle.walk(context, name, _parameters(pairs), because or walking.ASKED_FOR)
            decisions.append(outcome.decision)
            if outcome.decision.verdict == "pass" and outcome.release is not None:
                route = routes.get(store, name)
                serves = route is None or route.stable == outcome.release.digest
                if before is not None and before.stable == outcome.release.digest:
                    looping.wait_served(store, name, outcome.release.digest)
                    watch.finish("canary", "serves already: nothing changed, so there is no trial")
                elif serves or not once:
                    looping.follow(store, name, outcome.release.digest, watch)
    if as_json:
        output.emit([codec.plain(one) for one in decisions], True, lambda: None)
    return 0 if all(one.verdict == "pass" for one in decisions) else 1


@group.command()
@output.json_option
def status(as_json: bool) -> None:
    """Show where every model and application stands: what serves, what is on trial, what waits, and for what.

    Below the table: what the newest gate refused and why; what could start a retraining, and how far it is from that.

    \b
    Example:
      ondol loop status --json
    """
    from ondol.app import conducting, running
    from ondol.base import hashing
    from ondol.formats import project as projects
    from ondol.loop import actions, listening
    from ondol.records import codec

    settings = contexts.load_settings()
    project = projects.load(settings.project)
    if live := running.find(settings.home):
        settings = replace(settings, control=live.control, data=live.data)
    with contexts.open_store(settings) as store:
        conductor = conducting.make(store, settings, registry=live is not None)
        states = [conductor.state(name, project) for name in (*project.models, *project.applications)]
        heard = [listening.sentences(store, project, one.model, one.stable, one.now) for one in states]
        refused = [listening.refused(store, one.model) for one in states]
    waits = [actions.waits_for(one) if live or not one.stable else "Ondol to run: `ondol up`" for one in states]
    rows = [
        [
            one.model,
            hashing.short(one.stable) or "nothing yet",
            hashing.short(one.on_trial) or "-",
            ", ".join(hashing.short(each) for each in one.waiting) or "-",
            ", ".join(dict.fromkeys(each.kind for each in one.signals)) or "-",
            ", ".join(type(each).__name__ for each in actions.next_actions(one)) or "nothing to do",
            waits_for,
        ]
        for one, waits_for in zip(states, waits, strict=True)
    ]
    columns = ["model", "serves", "on trial", "waiting", "signals", "next", "waits for"]

    def show() -> None:
        output.table(columns, rows, empty="no models and no applications in ondol.yaml")
        for one, said, gate in zip(states, heard, refused, strict=True):
            if gate:
                print(f"\n{one.model}'s newest gate said {gate}")
            if said:
                print(f"\n{one.model} listens for", *said, sep="\n  ")

    plain = [
        {
            **codec.plain(one),
            "running": live is not None,
            "waits_for": waits_for,
            "listens_for": list(said),
            "refused": gate,
        }
        for one, waits_for, said, gate in zip(states, waits, heard, refused, strict=True)
    ]
    output.emit(plain, as_json, show)


@group.command()
@click.argument("name")
@click.option("--reason", default="asked for by hand", show_default=True, help="Why; kept with the decision.")
@output.json_option
def retrain(name: str, reason: str, as_json: bool) -> None:
    """Ask the conductor to go round the loop of model or application NAME again, at its next look.

    Waits for no cool-down and no debounce. A trial that is going on, or a hold, comes first. `ondol loop run` walks in
    the foreground instead.

    \b
    Example:
      ondol loop retrain flights --reason "the labels of October are corrected"
    """
    import time

    from ondol.app import running
    from ondol.loop import signals

    settings = contexts.load_settings()
    _known(settings.project, name)
    with contexts.open_store(settings) as store:
        heard = signals.by_hand(store, name, reason, time.time())
    away = "" if running.find(settings.home) else " (Ondol is not running: `ondol up`)"
    output.emit(heard, as_json, lambda: print(f"heard: {heard.id}; `ondol loop status` shows what becomes of it{away}"))


@group.command()
@click.argument("model", required=False, default="")
@click.option("--only", multiple=True, help="Only drills whose name contains this; repeatable.")
@click.option("--requests", default=3_000, show_default=True, type=click.IntRange(200, 1_000_000), help="Per trial.")
@click.option("--html", type=click.Path(path_type=Path), help="Write the scorecard as one self-contained page.")
@output.json_option
def rehearse(model: str, only: tuple[str, ...], requests: int, html: Path | None, as_json: bool) -> int:
    """Let things go wrong on a copy of the project, and see what the loop does about it; exit 1 when it fails a drill.

    The copy has its own home, ports and requests: nothing of the project is touched and nobody is alerted. Bad,
    failing, slow and slightly wrong candidates are let through the gate; labels come late; a model costs too much;
    processes are killed; the data drift. Takes one to three minutes.

    \b
    Examples:
      ondol loop rehearse
      ondol loop rehearse flights --only mutant --requests 10000
      ondol loop rehearse --json --html scorecard.html
    """
    from ondol.app.rehearsal import page, play
    from ondol.cli.progress import Lines
    from ondol.records import codec

    watch = Lines(width=34, to_stderr=as_json)
    card = play.play(contexts.load_settings(), model, watch, only, requests)
    if html is not None:
        html.write_text(page.render(card), encoding="utf-8")
    marks = {True: "ok", False: "FAILED", None: "open"}
    rows = [
        (
            marks[one.passed],
            one.drill,
            one.expected,
            one.happened,
            f"{one.seconds:.1f}",
            one.hurt,
            "yes" if one.told else "",
        )
        for one in card.outcomes
    ]

    def show() -> None:
        output.table(("", "drill", "should be", "happened", "s", "hurt", "alert"), rows)
        said = f"{card.passed} drills passed, {card.failed} failed, {len(card.open)} open in {card.seconds:.0f} s"
        print(f"{said}; {card.hurt:,} requests were hurt")
        for name, drills in (("missed", card.missed), ("open", card.open)):
            if drills:
                print(f"{name}: {', '.join(drills)}")
        if any("undecided" in one.happened for one in card.outcomes):
            print(f"`--requests {min(10 * requests, 1_000_000)}` gives the judge more to decide what is undecided")

    totals: dict[str, Any] = {"passed": card.passed, "failed": card.failed, "hurt": card.hurt}
    totals |= {"missed": list(card.missed), "open": list(card.open)}
    output.emit({**codec.plain(card), **totals}, as_json, show)
    return 1 if card.failed else 0


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


def _known(folder: Path, name: str) -> None:
    """Refuse what the project does not name.

    :raises NotFoundError: NOF-011.
    """
    from ondol.base import errors
    from ondol.formats import project as projects

    project = projects.load(folder)
    names = (*project.models, *project.applications)
    if name not in names:
        known = ", ".join(names) or "none"
        raise errors.NotFoundError(f"no model {name!r} in the project", way_out=f"There are: {known}.", code="NOF-011")


def _set_hold(model: str, reason: str) -> None:
    from ondol.loop import standing

    settings = contexts.load_settings()
    _known(settings.project, model)
    with contexts.open_store(settings) as store:
        standing.hold(store, model, reason)
    print(f"retraining of {model} is " + (f"held: {reason}" if reason else "released"))

"""`ondol release`: what can be served, what was, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ondol.cli import context, output

if TYPE_CHECKING:
    from ondol.records.release import Release
    from ondol.records.rollout import Route, Variant


@click.group(
    "release",
    epilog="\b\nExamples:\n  ondol release list\n  ondol release show 3f2a91bc\n  ondol release rollback delay",
)
def group() -> None:
    """Releases: a model version, or an LLM application with all it pins, as one content-addressed thing."""


def _role(release: Release, routes: dict[str, Route]) -> str:
    route = routes.get(release.name)
    if route is None:
        return ""
    roles = {route.previous: "previous", **{one.release: _share(route, one) for one in route.variants}}
    return {**roles, route.stable: "serving"}.get(release.digest, "")


def _share(route: Route, variant: Variant) -> str:
    if route.mirror:
        return f"{variant.name} of copies"
    return f"{variant.name} {route.weight * variant.share:g} %"


def _pins(release: Release) -> str:
    manifest = release.manifest
    if release.kind == "model":
        version = f"{manifest.get('model')}/{manifest.get('version')}" if manifest.get("model") else ""
        return version or str(manifest.get("uri", ""))
    return ", ".join(f"{name} {manifest[name]}" for name in ("llm", "prompt", "index") if manifest.get(name))


@group.command("list", epilog="\b\nExamples:\n  ondol release list\n  ondol release list delay --json")
@click.argument("service", required=False, default="")
@output.json_option
def list_releases(service: str, as_json: bool) -> None:
    """List releases, newest first; of one SERVICE if given."""
    from ondol.base import clock, hashing
    from ondol.records import codec
    from ondol.store import releases, routes

    with context.open_store() as store:
        found = releases.of_name(store, service)
        by_service = {route.service: route for route in routes.every(store)}
    rows = [
        (one.name, hashing.short(one.digest), one.kind, _role(one, by_service), _pins(one), clock.iso(one.created_at))
        for one in found
    ]
    plain: list[Any] = [{**codec.plain(one), "role": _role(one, by_service)} for one in found]
    output.emit(
        plain,
        as_json,
        lambda: output.table(
            ("service", "release", "kind", "role", "pins", "made"),
            rows,
            empty="no releases yet: `ondol demo` makes some",
        ),
    )


@group.command("show", epilog="\b\nExamples:\n  ondol release show 3f2a91bc\n  ondol release show sha256:3f2a… --json")
@click.argument("digest")
@output.json_option
def show(digest: str, as_json: bool) -> None:
    """Show one release and every decision that was made about it. DIGEST may be its first 8 digits."""
    from ondol.base import clock
    from ondol.records import codec
    from ondol.store import releases, rollouts, routes

    with context.open_store() as store:
        release = releases.get(store, digest)
        by_service = {route.service: route for route in routes.every(store)}
        decisions = [
            one
            for one in rollouts.decisions(store, release.name, limit=1000)
            if release.digest in (one.evidence.get("candidate"), one.evidence.get("from"), one.evidence.get("to"))
        ]

    def people() -> None:
        print(f"{release.name}  {release.digest}  {_role(release, by_service) or 'not serving'}")
        output.table(("pinned", "value"), [(name, value) for name, value in release.manifest.items() if value])
        rows = [(clock.iso(one.at), one.action, one.verdict, one.reason, one.id) for one in decisions]
        print()
        output.table(("at", "action", "verdict", "reason", "decision"), rows, empty="no decisions about it yet")

    plain = {**codec.plain(release), "role": _role(release, by_service), "decisions": codec.plain(decisions)}
    output.emit(plain, as_json, people)


@group.command(
    "rollback", epilog="\b\nExamples:\n  ondol release rollback delay\n  ondol release rollback delay --to 3f2a91bc"
)
@click.argument("service")
@click.option("--to", default="", metavar="DIGEST", help="A certain release instead of the one before.")
@click.option("--reason", default="rolled back by hand", help="Kept with the decision.")
@output.json_option
def rollback(service: str, to: str, reason: str, as_json: bool) -> None:
    """Go back at once: end SERVICE's trial, or serve the release before (a pointer move, no restart)."""
    from ondol.base import hashing
    from ondol.records import codec
    from ondol.rollout import controller

    with context.open_store() as store:
        decision = controller.rollback(store, service, reason, to)
    serving = hashing.short(decision.evidence["route"]["stable"])
    output.emit(
        codec.plain(decision), as_json, lambda: print(f"{service} is served by {serving} again  ({decision.id})")
    )

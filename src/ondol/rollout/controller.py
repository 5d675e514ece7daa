"""Rollouts carried out: start, tick, promote, abort, roll back.

Every change is one transaction: the rollout's state, the route it moves and the decision with its evidence are written
together or not at all. Whoever ticks, however often, in however many processes, killed wherever: the next tick finds
one of the states below and goes on from there.

    progressing ──► promoted | rolled_back | inconclusive | no_difference | compared | aborted
                    (each once, with one decision)

Must not serve requests: moving the route is all it does, the data plane follows.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ondol.base import errors, hashing, ids
from ondol.records import codec
from ondol.records.release import Release
from ondol.records.rollout import CANDIDATE, STABLE, Decision, JudgePolicy, Rollout, RolloutState, Route, Variant
from ondol.rollout import policies, watching
from ondol.rollout.verdicts import Action, JudgeVerdict
from ondol.store import loads, releases, rollouts, routes
from ondol.store.connection import Store, Tx

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_STATE: dict[str, RolloutState] = {
    "promote": "promoted",
    "roll_back": "rolled_back",
    "inconclusive": "inconclusive",
    "no_difference": "no_difference",
    "compared": "compared",
    "abort": "aborted",
}


def start(
    store: Store, service: str, candidate_digest: str, policy: JudgePolicy | None = None,
    others: Mapping[str, str] | None = None, candidate_name: str = CANDIDATE,
) -> Rollout:  # fmt: skip
    """Begin a trial of a release: it gets the first step's share of units. Started twice, it is the same rollout.

    :param others: further variants of an A/B test, release by name; all variants get equal shares.
    :raises NotFoundError: when the service or a release does not exist.
    :raises StateError: when a release serves already.
    :raises ConflictError: when another candidate is on trial.
    :raises InputError: when the policy cannot be followed, or the variants do not fit it.
    """
    policy = policies.check(policy or JudgePolicy())
    candidate = releases.get(store, candidate_digest)
    variants = _variants(store, policy, candidate, candidate_name, others or {})
    now = time.time()
    with store.write() as tx:
        route = _route_in(tx, service)
        running = rollouts.progressing_in(tx, service)
        if running and route.rollout != running.id:
            _taken_over(tx, running, route, now)
            running = None
        if running and running.variants == variants:
            return running
        if running:
            raise errors.ConflictError(
                f"{service!r} has another candidate on trial ({hashing.short(running.candidate)})",
                way_out=f"Wait for its verdict, or stop it: `ondol rollout abort {service}`.",
                code="CON-030",
            )
        if route.stable in [one.release for one in variants]:
            raise errors.StateError(
                f"release {hashing.short(route.stable)!r} serves {service!r} already",
                way_out="`ondol release list` shows the others.",
                code="STA-030",
            )
        if candidate.kind != route.kind:
            raise errors.InputError(
                f"{service!r} serves a release of kind {route.kind!r}, the candidate is of kind {candidate.kind!r}",
                way_out="Start a service of its own for it.",
                code="INP-031",
            )
        if route.kind == "application" and 0 in policy.steps:
            raise errors.UnsupportedError(
                f"{service!r} is an LLM application: its requests are not copied", where="policy.steps",
                way_out="Use `canary` with steps above 0, or `ab`.", code="UNS-421",
            )  # fmt: skip
        rollout = Rollout(
            ids.new_id("rollout"), service, route.stable, candidate.digest, policy,
            started_at=now, updated_at=now, step_times=(now,), reason="started",
            candidate_name=candidate_name, others=variants[1:],
        )  # fmt: skip
        moved = _at_step(replace(route, salt=rollout.id, rollout=rollout.id, unit=policy.unit or route.unit), rollout)
        _write(tx, rollout, routes.put_in(tx, moved), "start", "progressing", _started(rollout), {}, now)
    return rollout


def _variants(
    store: Store, policy: JudgePolicy, candidate: Release, name: str, others: Mapping[str, str]
) -> tuple[Variant, ...]:
    """Return the candidate and the others with equal shares."""
    found = [Variant(name, candidate.digest, 0.0)]
    found += [Variant(other, releases.get(store, digest).digest, 0.0) for other, digest in others.items()]
    names = [one.name for one in found]
    if STABLE in names or len(set(names)) < len(names) or not all(_NAME.fullmatch(one) for one in names):
        raise errors.InputError(
            f"variants cannot be called {', '.join(map(repr, names))}", where="variants",
            way_out="Use different names of letters, digits, '-', '_' and '.', and not 'stable'.", code="INP-422",
        )  # fmt: skip
    if len(found) > 1 and policy.strategy != "ab":
        raise errors.InputError(
            f"{len(found)} variants in a rollout of strategy {policy.strategy!r}", where="variants",
            way_out="Only an A/B test (strategy ab) has several.", code="INP-422",
        )  # fmt: skip
    share = round(1 / len(found), 4)
    return (replace(found[0], share=1.0 - share * (len(found) - 1)), *(replace(one, share=share) for one in found[1:]))


def _at_step(route: Route, rollout: Rollout) -> Route:
    """Return the route with the rollout's arms at the weight of its step; a dropped arm's units go to stable."""
    variants = [
        replace(one, release=rollout.stable) if one.name in rollout.dropped else one for one in rollout.variants
    ]
    dark = rollout.policy.mirror if rollout.weight == 0 else 0.0
    return replace(route.with_variants(tuple(variants), rollout.weight), mirror=dark)


def _started(rollout: Rollout) -> str:
    names = ", ".join(hashing.short(one.release) for one in rollout.variants)
    share = f"with {rollout.weight:g} % of units" if rollout.weight else "with copies of requests only"
    return f"{names} on trial against {hashing.short(rollout.stable)} {share}"


def _route_in(tx: Tx, service: str) -> Route:
    route = routes.get_in(tx, service)
    if route is None:
        raise errors.NotFoundError(
            f"no service {service!r} is served", way_out="`ondol apply -f FILE` starts one.", code="NOF-030"
        )
    return route


def _write(
    tx: Tx, rollout: Rollout, route: Route, action: str, verdict: str, reason: str, evidence: dict[str, Any], at: float
) -> Decision:
    rollouts.put_in(tx, rollout)
    decision = Decision(
        ids.new_id("decision"), at, rollout.service, action, verdict, reason,
        {**evidence, "rollout": rollout.id, "stable": rollout.stable, "candidate": rollout.candidate,
         "step_times": list(rollout.step_times), "route": codec.plain(route)},
    )  # fmt: skip
    rollouts.decide_in(tx, decision)
    return decision


def tick(store: Store, now: float | None = None) -> list[Decision]:
    """Judge every rollout that is going on and carry the verdicts out; return the decisions made by this call.

    Safe to call at any time from several processes: what another one has decided meanwhile is left alone.
    """
    now = time.time() if now is None else now
    made = []
    for rollout in rollouts.of_service(store, state="progressing"):
        decision = _tick_one(store, rollout, now)
        if decision:
            made.append(decision)
            if decision.verdict != "progressing":
                watching.forget(store, rollout.id)
    _end_baking(store, now)
    return made


def _tick_one(store: Store, rollout: Rollout, now: float) -> Decision | None:
    load = next((one for one in _loads(store, rollout) if one.state == "FailedToLoad"), None)
    if load:
        reason = f"the candidate cannot be loaded: {load.message}"
        return _carry_out(store, rollout, JudgeVerdict("roll_back", reason, {"load": codec.plain(load)}), now)
    verdict = watching.verdict(store, rollout, brief=True)
    if verdict.action == "bake" and now >= rollout.step_times[-1] + rollout.policy.bake_seconds:
        verdict = replace(verdict, action="promote")
    if verdict.action in ("go_on", "bake"):
        return None
    if verdict.action == "promote" and not _is_loaded(store, rollout, verdict.variant):
        return None  # the data plane must be able to serve it alone; the next tick looks again
    return _carry_out(store, rollout, verdict, now)


def _loads(store: Store, rollout: Rollout) -> list[loads.Load]:
    """Return what the data plane says of the variants' releases."""
    wanted = {one.release for one in rollout.variants if one.name not in rollout.dropped}
    return [one for one in loads.every(store, rollout.service) if one.release in wanted]


def _is_loaded(store: Store, rollout: Rollout, variant: str) -> bool:
    release = _release_of(rollout, variant)
    return any(one.release == release and one.state == "Loaded" for one in _loads(store, rollout))


def _release_of(rollout: Rollout, variant: str) -> str:
    """Return a variant's release; the candidate's when no name is given."""
    return next((one.release for one in rollout.variants if one.name == variant), rollout.candidate)


def _carry_out(store: Store, seen: Rollout, verdict: JudgeVerdict, now: float) -> Decision | None:
    """Write the verdict on the rollout as it was seen; None when somebody else moved it first."""
    with store.write() as tx:
        rollout = rollouts.get_in(tx, seen.id)
        if rollout.state != "progressing" or rollout.step != seen.step:
            return None
        route = routes.get_in(tx, rollout.service)
        if route is None or route.rollout != rollout.id:
            return _taken_over(tx, rollout, route, now)
        if verdict.action == "advance":
            return _advance(tx, rollout, route, verdict, now)
        if verdict.action == "drop":
            return _drop(tx, rollout, route, verdict, now)
        return _end(tx, rollout, route, verdict, now)


def _taken_over(tx: Tx, rollout: Rollout, route: Route | None, now: float) -> Decision:
    reason = "the service was deleted" if route is None else "the service's route was changed by somebody else"
    ended = replace(rollout, state="aborted", updated_at=now, reason=reason)
    return _write(tx, ended, route or Route(rollout.service, "", ""), "abort", "aborted", reason, {}, now)


def _advance(tx: Tx, rollout: Rollout, route: Route, verdict: JudgeVerdict, now: float) -> Decision:
    step = rollout.step + 1
    grown = replace(rollout, step=step, step_times=(*rollout.step_times, now), updated_at=now, reason=verdict.reason)
    moved = routes.put_in(tx, _at_step(route, grown))
    return _write(tx, grown, moved, "advance", "progressing", verdict.reason, verdict.evidence, now)


def _drop(tx: Tx, rollout: Rollout, route: Route, verdict: JudgeVerdict, now: float) -> Decision:
    """Take one variant of several out; the others keep their units."""
    left = replace(rollout, dropped=(*rollout.dropped, verdict.variant), updated_at=now, reason=verdict.reason)
    moved = routes.put_in(tx, _at_step(route, left))
    return _write(tx, left, moved, "drop", "progressing", verdict.reason, verdict.evidence, now)


def _end(tx: Tx, rollout: Rollout, route: Route, verdict: JudgeVerdict, now: float) -> Decision:
    state = _STATE[verdict.action]
    ended = replace(rollout, state=state, updated_at=now, reason=verdict.reason)
    out = replace(route.with_variants((), 0.0), salt="", rollout="")
    if state == "promoted":
        out = replace(out, stable=_release_of(rollout, verdict.variant), previous=rollout.stable)
    return _write(tx, ended, routes.put_in(tx, out), verdict.action, state, verdict.reason, verdict.evidence, now)


def _end_baking(store: Store, now: float) -> None:
    """Let go of previous releases whose bake time is over."""
    for route in routes.every(store):
        if not route.previous or route.rollout:
            continue
        last = next(iter(rollouts.of_service(store, route.service, "promoted")), None)
        if last and now < last.updated_at + last.policy.bake_seconds:
            continue
        try:
            routes.put(store, replace(route, previous=""))
        except errors.ConflictError:
            continue  # it was moved meanwhile; the next tick looks at what it is then


def _progressing(store: Store, service: str) -> Rollout:
    running = rollouts.of_service(store, service, "progressing")
    if not running:
        raise errors.StateError(
            f"{service!r} has no candidate on trial", way_out="`ondol rollout status` shows what is.", code="STA-031"
        )
    return running[0]


def _by_hand(store: Store, service: str, action: Action, reason: str, variant: str = "") -> Decision:
    rollout = _progressing(store, service)
    evidence = {**watching.verdict(store, rollout).evidence, "by_hand": True}
    watching.forget(store, rollout.id)
    with store.write() as tx:
        fresh = rollouts.get_in(tx, rollout.id)
        if fresh.state != "progressing":
            raise errors.ConflictError(
                f"the rollout of {service!r} ended meanwhile: {fresh.state}, {fresh.reason}",
                way_out="`ondol rollout status` shows where it is.",
                code="CON-031",
            )
        route = routes.get_in(tx, service)
        if route is None or route.rollout != fresh.id:
            return _taken_over(tx, fresh, route, time.time())
        return _end(tx, fresh, route, JudgeVerdict(action, reason, evidence, variant), time.time())


def promote(store: Store, service: str, reason: str = "promoted by hand", variant: str = "") -> Decision:
    """Make a variant on trial serve everybody, whatever the judge thinks so far (which is kept as evidence).

    :param variant: whose name it has in the rollout; the candidate when empty.
    :raises StateError: when there is no candidate, or the data plane has not loaded it.
    :raises NotFoundError: when the rollout has no such variant.
    """
    rollout = _progressing(store, service)
    if variant and variant not in [one.name for one in rollout.variants]:
        raise errors.NotFoundError(
            f"the rollout of {service!r} has no variant {variant!r}",
            way_out=f"It has {', '.join(one.name for one in rollout.variants)}.",
            code="NOF-420",
        )
    if not _is_loaded(store, rollout, variant):
        release = _release_of(rollout, variant)
        found = next((one.state for one in _loads(store, rollout) if one.release == release), "")
        raise errors.StateError(
            f"the candidate of {service!r} is not loaded ({found or 'unknown to the data plane'})",
            way_out="`ondol up` runs the data plane; `ondol status` shows what it has loaded.",
            code="STA-032",
        )
    return _by_hand(store, service, "promote", reason, variant)


def abort(store: Store, service: str, reason: str = "aborted by hand") -> Decision:
    """Take the candidate on trial out; stable goes on serving everybody.

    :raises StateError: when there is no candidate on trial.
    """
    return _by_hand(store, service, "abort", reason)


def rollback(store: Store, service: str, reason: str = "rolled back by hand", to: str = "") -> Decision:
    """Go back at once: from a trial to stable, else from the release that serves to the one before (or to `to`).

    :raises NotFoundError: when there is no such service or release.
    :raises StateError: when there is nothing to go back to.
    """
    with store.read() as tx:
        running = rollouts.progressing_in(tx, service)
    if running and not to:
        return _by_hand(store, service, "roll_back", reason)
    target = releases.get(store, to).digest if to else ""
    now = time.time()
    with store.write() as tx:
        route = _route_in(tx, service)
        if running:
            running = rollouts.get_in(tx, running.id)
            if running.state == "progressing" and route.rollout == running.id:
                _end(tx, running, route, JudgeVerdict("abort", f"aborted: {reason}", {"by_hand": True}), now)
                route = _route_in(tx, service)
        target = target or route.previous or _before(tx, route)
        if not target or target == route.stable:
            raise errors.StateError(
                f"{service!r} has no earlier release to go back to",
                way_out="`ondol release list` shows the releases; `--to DIGEST` chooses one.",
                code="STA-033",
            )
        moved = routes.put_in(tx, replace(route, stable=target, previous=""))
        decision = Decision(
            ids.new_id("decision"), now, service, "roll_back", "rolled_back", reason,
            {"by_hand": True, "from": route.stable, "to": target, "route": codec.plain(moved)},
        )  # fmt: skip
        rollouts.decide_in(tx, decision)
    return decision


def _before(tx: Tx, route: Route) -> str:
    """Return what served before the release that serves now came in by promotion."""
    for one in rollouts.of_service_in(tx, route.service, "promoted"):
        if route.stable in [variant.release for variant in one.variants]:
            return one.stable
    return ""

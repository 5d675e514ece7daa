"""Rollouts carried out: start, tick, promote, abort, roll back.

Every change is one transaction: the rollout's state, the route it moves and the decision with its evidence are written
together or not at all. Whoever ticks, however often, in however many processes, killed wherever: the next tick finds
one of the states below and goes on from there.

    progressing ──► promoted | rolled_back | inconclusive | aborted       (each once, with one decision)

Must not serve requests: moving the route is all it does, the data plane follows.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from ondol.base import errors, hashing, ids
from ondol.records import codec
from ondol.records.rollout import Decision, JudgePolicy, Rollout, RolloutState, Route
from ondol.rollout import judge, watching
from ondol.rollout.verdicts import JudgeVerdict
from ondol.store import loads, releases, rollouts, routes
from ondol.store.connection import Store, Tx

_STATE: dict[str, RolloutState] = {
    "promote": "promoted",
    "roll_back": "rolled_back",
    "inconclusive": "inconclusive",
    "abort": "aborted",
}


def start(store: Store, service: str, candidate_digest: str, policy: JudgePolicy | None = None) -> Rollout:
    """Begin a trial of a release: it gets the first step's share of units. Started twice, it is the same rollout.

    :raises NotFoundError: when the service or the release does not exist.
    :raises StateError: when the release serves already.
    :raises ConflictError: when another candidate is on trial.
    :raises InputError: when the policy cannot be followed.
    """
    policy = judge.check_policy(policy or JudgePolicy())
    candidate = releases.get(store, candidate_digest)
    now = time.time()
    with store.write() as tx:
        route = _route_in(tx, service)
        running = rollouts.progressing_in(tx, service)
        if running and route.rollout != running.id:
            _taken_over(tx, running, route, now)
            running = None
        if running and running.candidate == candidate.digest:
            return running
        if running:
            raise errors.ConflictError(
                f"{service!r} has another candidate on trial ({hashing.short(running.candidate)})",
                way_out=f"Wait for its verdict, or stop it: `ondol rollout abort {service}`.",
                code="CON-030",
            )
        if route.stable == candidate.digest:
            raise errors.StateError(
                f"release {hashing.short(candidate.digest)!r} serves {service!r} already",
                way_out="`ondol release list` shows the others.",
                code="STA-030",
            )
        if candidate.kind != route.kind:
            raise errors.InputError(
                f"{service!r} serves a release of kind {route.kind!r}, the candidate is of kind {candidate.kind!r}",
                way_out="Start a service of its own for it.",
                code="INP-031",
            )
        rollout = Rollout(
            ids.new_id("rollout"), service, route.stable, candidate.digest, policy,
            started_at=now, updated_at=now, step_times=(now,), reason="started",
        )  # fmt: skip
        moved = replace(route, candidate=candidate.digest, weight=policy.steps[0], salt=rollout.id, rollout=rollout.id)
        _write(tx, rollout, routes.put_in(tx, moved), "start", "progressing", _started(rollout), {}, now)
    return rollout


def _started(rollout: Rollout) -> str:
    return (
        f"{hashing.short(rollout.candidate)} on trial against {hashing.short(rollout.stable)} with "
        f"{rollout.policy.steps[0]:g} % of units"
    )


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
    load = _load(store, rollout)
    if load and load.state == "FailedToLoad":
        reason = f"the candidate cannot be loaded: {load.message}"
        return _carry_out(store, rollout, JudgeVerdict("roll_back", reason, {"load": codec.plain(load)}), now)
    verdict = watching.verdict(store, rollout, brief=True)
    if verdict.action == "go_on":
        return None
    if verdict.action == "promote" and (load is None or load.state != "Loaded"):
        return None  # the data plane must be able to serve it alone; the next tick looks again
    return _carry_out(store, rollout, verdict, now)


def _load(store: Store, rollout: Rollout) -> loads.Load | None:
    return next((one for one in loads.every(store, rollout.service) if one.release == rollout.candidate), None)


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
        return _end(tx, rollout, route, verdict.action, verdict.reason, verdict.evidence, now)


def _taken_over(tx: Tx, rollout: Rollout, route: Route | None, now: float) -> Decision:
    reason = "the service was deleted" if route is None else "the service's route was changed by somebody else"
    ended = replace(rollout, state="aborted", updated_at=now, reason=reason)
    return _write(tx, ended, route or Route(rollout.service, "", ""), "abort", "aborted", reason, {}, now)


def _advance(tx: Tx, rollout: Rollout, route: Route, verdict: JudgeVerdict, now: float) -> Decision:
    step = rollout.step + 1
    grown = replace(rollout, step=step, step_times=(*rollout.step_times, now), updated_at=now, reason=verdict.reason)
    moved = routes.put_in(tx, replace(route, weight=rollout.policy.steps[step]))
    return _write(tx, grown, moved, "advance", "progressing", verdict.reason, verdict.evidence, now)


def _end(
    tx: Tx, rollout: Rollout, route: Route, action: str, reason: str, evidence: dict[str, Any], now: float
) -> Decision:
    state = _STATE[action]
    ended = replace(rollout, state=state, updated_at=now, reason=reason)
    out = replace(route, candidate="", weight=0.0, salt="", rollout="")
    if state == "promoted":
        out = replace(out, stable=rollout.candidate, previous=rollout.stable)
    return _write(tx, ended, routes.put_in(tx, out), action, state, reason, evidence, now)


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


def _by_hand(store: Store, service: str, action: str, reason: str) -> Decision:
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
        return _end(tx, fresh, route, action, reason, evidence, time.time())


def promote(store: Store, service: str, reason: str = "promoted by hand") -> Decision:
    """Make the candidate on trial serve everybody, whatever the judge thinks so far (which is kept as evidence).

    :raises StateError: when there is no candidate, or the data plane has not loaded it.
    """
    rollout = _progressing(store, service)
    load = _load(store, rollout)
    if load is None or load.state != "Loaded":
        raise errors.StateError(
            f"the candidate of {service!r} is not loaded ({load.state if load else 'unknown to the data plane'})",
            way_out="`ondol up` runs the data plane; `ondol status` shows what it has loaded.",
            code="STA-032",
        )
    return _by_hand(store, service, "promote", reason)


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
                _end(tx, running, route, "abort", f"aborted: {reason}", {"by_hand": True}, now)
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
        if one.candidate == route.stable:
            return one.stable
    return ""

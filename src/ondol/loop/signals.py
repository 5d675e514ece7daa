"""Hears what asks for a retraining: drift, quality, new data, changed files, the clock, a person.

Everything is derived from what is on record or on disk and written down once under its key, so that a look may be
repeated and killed anywhere. Must not decide whether, and when, a signal is answered: that is `actions`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ondol.base import clock, ids
from ondol.base.settings import Settings
from ondol.formats import cron
from ondol.loop import fingerprints
from ondol.records.project import Project
from ondol.records.rollout import Decision
from ondol.records.signal import Signal, SignalKind
from ondol.store import counters, rollouts, routes, signals
from ondol.store.connection import Store

TOO_FEW = "not-enough-data"
_WORSE = {"drift": "drift", "quality": "degraded"}


def look(store: Store, settings: Settings, project: Project, name: str, now: float) -> int:
    """Hear everything about a model or application that `retrain.on` names; return how many signals are new."""
    route = routes.get(store, name)
    if route is None:
        return 0  # a first release is somebody's to make
    found = [
        *_findings(store, project, name, route.stable, now),
        *_clock(store, project, name, now),
        *_files(store, settings, project, name, now),
    ]
    return sum(signals.hear(store, one) for one in found)


def by_hand(store: Store, name: str, reason: str, now: float) -> Signal:
    """Ask for a retraining; asked twice, it is two reasons for one answer."""
    identifier = ids.new_id("sig")
    made = Signal(identifier, now, name, "hand", f"hand/{identifier}", reason)
    signals.hear(store, made)
    return made


def _make(name: str, kind: SignalKind, key: str, reason: str, now: float, **evidence: object) -> Signal:
    return Signal(ids.new_id("sig"), now, name, kind, key, reason, dict(evidence))


def _findings(store: Store, project: Project, name: str, stable: str, now: float) -> Iterator[Signal]:
    """Drift and quality of the release that serves: one signal each, taken back when the next look is well again."""
    for kind, bad in _WORSE.items():
        if kind not in project.retrain.on:
            continue
        newest = _newest(store, name, kind)
        key = f"{kind}/{stable}"
        if newest is None or newest.evidence.get("release") != stable:
            continue
        if newest.verdict == bad:
            said: SignalKind = "drift" if kind == "drift" else "quality"
            yield _make(name, said, key, newest.reason, now, decision=newest.id, release=stable)
        else:
            signals.withdraw(store, name, key)


def _newest(store: Store, name: str, action: str) -> Decision | None:
    looks = rollouts.decisions(store, name, action, limit=100)
    return next((one for one in looks if one.verdict != TOO_FEW), None)


def _clock(store: Store, project: Project, name: str, now: float) -> Iterator[Signal]:
    """What was missed while nobody looked is caught up once: by its latest time."""
    for text in project.retrain.on:
        if not cron.is_cron(text):
            continue
        fact = f"schedule/{name}/{text}/{project.retrain.timezone}"
        since = counters.fact(store, fact)
        if since is None:
            counters.put_fact(store, fact, now)  # the first look: what was due before nobody had asked for
            continue
        due = cron.parse(text, project.retrain.timezone).latest(float(since), now)
        if due is not None:
            yield _make(name, "schedule", f"schedule/{text}/{clock.iso(due)}", f"{text} was due {clock.iso(due)}", now)


def _files(store: Store, settings: Settings, project: Project, name: str, now: float) -> Iterator[Signal]:
    """New data, and changed files of the project: against what they were at the last walk."""
    wanted = {
        "data": project.retrain.data if name in project.models else (),
        "change": fingerprints.sources(project, name),
    }
    for kind, sources in wanted.items():
        if kind not in project.retrain.on or not sources:
            continue
        found = fingerprints.of(settings.project, sources)
        known = fingerprints.known(store, kind, name)
        if known is None:
            fingerprints.put(store, kind, name, found)
        elif known[0] != found:
            said: SignalKind = "data" if kind == "data" else "change"
            what = "the data" if kind == "data" else "what it is made of"
            named = [one for one in sources if not fingerprints.is_spec(one)][:3]
            said_of_it = ["what ondol.yaml says of it"] if kind == "change" else []
            reason = f"{what} changed since the last walk: {' or '.join([*named, *said_of_it])}"
            key = f"{kind}/{found}/{known[1]}"  # what comes back after another walk is news again
            yield _make(name, said, key, reason, now, before=known[0], after=found)

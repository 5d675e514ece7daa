"""What of all that is decided and loaded a person should be told, as alerts: once each.

Level-triggered: a look goes over everything since the last one, and a little more, and the alerts' keys keep what was
raised from being raised again. Must not decide anything.
"""

from __future__ import annotations

import time

from ondol.base import hashing
from ondol.records.alert import Alert, Severity
from ondol.records.rollout import Decision
from ondol.store import alerts, counters, loads, rollouts, routes
from ondol.store.connection import Store
from ondol.store.loads import Load

_POSITION = "alarms/position"
_OVERLAP = 600.0  # seconds: ids are of the time a decision was made, not of its commit
_MOST = 1000  # decisions per look


def look(store: Store) -> int:
    """Raise what is due; return how many alerts are new."""
    known = counters.fact(store, _POSITION)
    since = time.time() if known is None else float(known)  # a first look is no reason to tell of years ago
    found = rollouts.since(store, since - _OVERLAP, limit=_MOST)
    due = [alert for one in found if (alert := of_decision(one)) is not None]
    wanted = {one for route in routes.every(store) for one in (route.stable, route.candidate) if one}
    due += [of_load(one) for one in loads.every(store) if one.state == "FailedToLoad" and one.release in wanted]
    new = sum(alerts.put(store, one) for one in due)
    if found and (known is None or found[-1].at > since):
        counters.put_fact(store, _POSITION, found[-1].at)
    return new


def of_decision(decision: Decision) -> Alert | None:
    """Return the alert that a decision is worth; None when it is what everybody expects."""
    evidence, subject = decision.evidence, decision.subject
    release = hashing.short(str(evidence.get("candidate") or evidence.get("release") or ""))
    kind, text, key = "", "", decision.id
    severity: Severity = "warning"
    if decision.action == "roll_back":
        kind, severity = "rollback", "critical"
        what = f"{subject}: release {release}" if release else subject
        text = f"{what} was rolled back: {decision.reason}"
    elif decision.verdict == "inconclusive":
        kind, text = "inconclusive", f"{subject}: the trial of release {release} came to no verdict: {decision.reason}"
    elif decision.action == "gate" and decision.verdict != "pass" and evidence.get("retraining"):
        kind = "gate"
        text = f"{subject}: the retrained candidate did not pass its gate, the champion stays: {decision.reason}"
    elif decision.action == "retrain" and decision.verdict in ("failed", "given up"):
        kind, text = "retrain", f"{subject}: retraining {decision.verdict}: {decision.reason}"
        severity = "critical" if decision.verdict == "given up" else "warning"
    elif (decision.action, decision.verdict) in (("drift", "drift"), ("quality", "degraded")):
        kind, text = decision.action, f"{subject}: {decision.reason}"
        key = f"{kind}/{subject}/{evidence.get('release', '')}"  # every further window would say it again
    if not kind:
        return None
    about = {"decision": decision.id, "verdict": decision.verdict, "release": evidence.get("release", "")}
    return alerts.make(kind, subject, text, key=key, severity=severity, evidence=about)


def of_load(load: Load) -> Alert:
    """Return the alert about a release that does not load."""
    text = f"{load.service}: release {hashing.short(load.release)} does not load: {load.message}"
    key = f"load/{load.service}/{load.release}/{load.at}"
    evidence = {"release": load.release, "message": load.message}
    return alerts.make("load", load.service, text, key=key, severity="critical", evidence=evidence)

"""What a model or application listens for, in words: for somebody who wonders why nothing happens.

Must not decide anything, nor write: what is said here the watches and `signals` find for themselves.
"""

from __future__ import annotations

from ondol.base import clock, duration
from ondol.formats import cron
from ondol.loop import fingerprints, quality
from ondol.records.project import Project
from ondol.store import counters, observations, rollouts, signals
from ondol.store.connection import Store


def sentences(store: Store, project: Project, name: str, stable: str, now: float) -> tuple[str, ...]:
    """Return what could start a retraining, and how far it is from that; one sentence each.

    :param stable: digest of the release that serves; empty: a first release is somebody's to make, nothing is heard.
    """
    if not stable:
        return ()
    said = []
    for heard in project.retrain.on:
        if cron.is_cron(heard):
            said.append(f"{heard}: {_due(heard, project.retrain.timezone, now)}")
        else:
            said.append(f"{heard}: {_SAID[heard](store, project, name, stable)}")
    if not {"drift", "quality"} & set(project.retrain.on) and name in project.models:
        said.append("drift and quality are watched, but start nothing: `retrain.on` does not name them")
    return tuple(said)


def refused(store: Store, name: str) -> str:
    """Return what the newest gate said when it let nothing through; nothing otherwise."""
    newest = next(iter(rollouts.decisions(store, name, "gate", limit=1)), None)
    if newest is None or newest.verdict == "pass":
        return ""
    return f"{newest.verdict} at {clock.iso(newest.at)}: {newest.reason}"


def _due(text: str, timezone: str, now: float) -> str:
    at = cron.parse(text, timezone).next(now)
    return f"due in {duration.said(at - now)}, at {clock.iso(at)}" if at else "never due"


def _drift(store: Store, project: Project, name: str, stable: str) -> str:
    if _is_answered(store, name, f"drift/{stable}"):
        return "answered once already for the release that serves, and heard again for the next one"
    if name in project.models:
        window = project.models[name].monitor.window
        if not counters.fact(store, f"reference/{stable}"):
            return "not watched: the release that serves has no held-out rows, as `ondol loop run` did not make it"
    else:
        window = project.applications[name].monitor.window
        if not window:
            return "not watched: `monitor.window` is 0"
    counting = counters.fact(store, f"watch/{name}/counting") or {}
    position, counted = int(counters.fact(store, f"watch/{name}") or 0), 0
    if counting.get("end") == position:
        counted = int(counting["requests"])
    come = counted + observations.count_after(store, name, position, window)
    return _so_far(come, window, "requests", "windows are looked at as they fill")


def _quality(store: Store, project: Project, name: str, stable: str) -> str:
    if name not in project.models:
        return "not watched: applications are scored during a trial only"
    if _is_answered(store, name, f"quality/{stable}"):
        return "answered once already for the release that serves, and heard again for the next one"
    window = project.models[name].monitor.window
    return _so_far(quality.come(store, name, window), window, "labels", "each window is compared with the first one")


def _so_far(come: int, window: int, what: str, then: str) -> str:
    if come >= window:
        return f"a full window of {window:,} {what} waits to be looked at"
    return f"{come:,} of the {window:,} {what} of the next window have come; {then}"


def _data(store: Store, project: Project, name: str, stable: str) -> str:
    return _changes(project.retrain.data if name in project.models else ())


def _change(store: Store, project: Project, name: str, stable: str) -> str:
    return _changes(fingerprints.sources(project, name))


def _changes(sources: tuple[str, ...]) -> str:
    files = [one for one in sources if not fingerprints.is_spec(one)]
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"{', '.join(files[:3])}{more} to change" if files else "nothing: no files are named"


def _is_answered(store: Store, name: str, key: str) -> bool:
    return any(one.key == key and one.retraining for one in signals.every(store, name, limit=1000))


_SAID = {"drift": _drift, "quality": _quality, "data": _data, "change": _change}

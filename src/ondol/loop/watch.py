"""Watches what a service is asked and answers, window by window, for drift against its release's reference.

A window is a number of requests, not a span of time: a quiet service is judged on as much as a busy one. Only what the
release that serves has answered is compared: another release's answers differ without any drift. Every window that was
looked at leaves a decision, drifted or not.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from ondol.base import duration, ids
from ondol.loop import asked, reference
from ondol.monitoring.request_archive import Archive
from ondol.records import codec
from ondol.records.project import MonitorSpec
from ondol.records.rollout import Decision, Observation, Route
from ondol.store import counters, observations, rollouts, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

if TYPE_CHECKING:
    import pandas as pd

TOO_FEW = "not-enough-data"
_BLOCK = "__block"
_SHARE = 0.5  # of a window: with less, a release that began to serve late in it would be judged on a part of the week
_LEAST = 30  # rows that any comparison needs
WHOLE = 20_000
"""Windows up to this many requests are read as a whole; of larger ones what is asked is counted as it comes."""

_MOST = 50_000  # requests of an earlier time that a window is compared with; of more, evenly chosen ones
_PAGE, _SECONDS = 5_000, 0.5  # requests at a time, and seconds of counting in one look


def look(store: Store, blobs: Blobs, service: str, spec: MonitorSpec) -> Decision | None:
    """Judge the next full window of a service; return the decision, or None when there is no full window yet.

    The decision and the position move on at once: a crash before it looks at the same window again, and of several
    conductors one decides.
    """
    route = routes.get(store, service)
    if route is None or route.kind != "model":
        return None
    position = int(counters.fact(store, f"watch/{service}") or 0)
    if spec.window > WHOLE:
        return _look_at_a_large_one(store, blobs, route, spec, position)
    if not observations.has_after(store, service, position, spec.window):
        return None
    found = observations.after(store, service, position, spec.window)
    kept = reference.load(store, blobs, route.stable)
    end = found[-1][0]
    decision = None
    if kept is not None:
        mine = [one for _, one in found if one.release == route.stable]
        current = asked.table(mine, [str(name) for name in kept.columns])
        before = _before(store, blobs, service, kept, found, spec)
        decision = _judge(service, route.stable, before, current, (position, end), spec)
    with store.write() as tx:
        if int(counters.fact_in(tx, f"watch/{service}") or 0) != position:
            return None
        if decision is not None:
            rollouts.decide_in(tx, decision)
            if decision.verdict == "stable":
                good = {"release": route.stable, "times": [found[0][1].at, found[-1][1].at]}
                counters.put_fact_in(tx, f"watch/{service}/good", good)
        counters.put_fact_in(tx, f"watch/{service}", end)
    return decision


def _look_at_a_large_one(store: Store, blobs: Blobs, route: Route, spec: MonitorSpec, position: int) -> Decision | None:
    """Count what came since the last look, for half a second at most; judge when the window is full.

    What is counted, its position and the decision are kept at once: a crash loses, counts and says nothing twice.
    """
    from ondol.loop.large_windows import Counting

    if not observations.has_after(store, route.service, position, 1):
        return None
    kept = reference.load(store, blobs, route.stable)
    if kept is None:  # nothing to compare with: what came may be moved to files
        _, passed = observations.exchanges_after(store, route.service, position, _PAGE)
        counters.put_fact(store, f"watch/{route.service}", passed)
        return None
    counting = Counting.resume(store, route, kept, spec, position)
    until = time.monotonic() + _SECONDS
    while counting.requests < spec.window and time.monotonic() < until:
        wanted = min(_PAGE, spec.window - counting.requests)
        page, end = observations.exchanges_after(store, route.service, counting.end, wanted)
        if not page:
            break
        rows = asked.table([one for one in page if one.release == route.stable], list(kept.columns))
        counting.add(rows, len(page), end)
    full = counting.requests >= spec.window
    decision = counting.judge(max(_LEAST, _SHARE * spec.window)) if full else None
    return decision if counting.keep(store, decision) else None


def _before(
    store: Store,
    blobs: Blobs,
    service: str,
    kept: pd.DataFrame,
    found: list[tuple[int, Observation]],
    spec: MonitorSpec,
) -> pd.DataFrame:
    """Return what the window is compared with: the release's held-out rows, or requests of an earlier time.

    A season's requests may have been answered by another release: then their predictions are left out.
    """
    columns, release = [str(name) for name in kept.columns], found[-1][1].release
    if spec.reference == "season":
        ago = duration.seconds(spec.season)
        times = (found[0][1].at - ago, found[-1][1].at - ago)
    elif spec.reference == "last-good" and (good := counters.fact(store, f"watch/{service}/good")):
        if good["release"] != release:
            return kept
        times = tuple(good["times"])
    else:
        return kept
    rows = asked.evenly(Archive(store, blobs).exchanges(service, times[0], times[1] + 1e-6), _MOST)
    frame = asked.table(rows, columns)
    if any(one.release != release for one in rows) and reference.PREDICTION in frame.columns:
        frame = frame.drop(columns=[reference.PREDICTION])
    return frame


def in_blocks(frame: pd.DataFrame, blocks: int) -> pd.DataFrame:
    """Return the table with a column that says which of `blocks` consecutive pieces a row is in."""
    return frame.assign(**{_BLOCK: [row * blocks // len(frame) for row in range(len(frame))]})


def _judge(
    service: str, release: str, kept: pd.DataFrame, current: pd.DataFrame, window: tuple[int, int], spec: MonitorSpec
) -> Decision:
    from ondol.data import drift

    evidence = {"release": release, "window": list(window), "monitor": codec.plain(spec)}
    evidence["reference"] = {"kind": spec.reference, "rows": len(kept)}
    if spec.reference == "season" and len(kept) < max(_LEAST, _SHARE * spec.window):
        reason = f"one season ago there were {len(kept):,} requests, too few to compare {spec.window:,} with"
        return Decision(ids.new_id("decision"), time.time(), service, "drift", TOO_FEW, reason, evidence)
    if len(current) < max(_LEAST, _SHARE * spec.window):
        reason = f"{len(current):,} of {spec.window:,} requests were answered by the release that serves"
        return Decision(ids.new_id("decision"), time.time(), service, "drift", TOO_FEW, reason, evidence)
    predicted = reference.PREDICTION if reference.PREDICTION in kept.columns else ""
    options = drift.Options(alpha=spec.alpha, effect=spec.effect)
    if spec.blocks > 1:
        options = replace(options, block=_BLOCK)
        kept, current = in_blocks(kept, spec.blocks), in_blocks(current, spec.blocks)
    report = drift.compare(kept, current, prediction=predicted, options=options)
    names, columns = report.names(), {one.column for one in report.columns}
    said = f"{len(names)} of {len(columns)} columns drifted in {len(current):,} requests" + (
        f": {', '.join(names[:5])}" if names else ""
    )
    return Decision(
        id=ids.new_id("decision"),
        at=time.time(),
        subject=service,
        action="drift",
        verdict="drift" if report.drifted else "stable",
        reason=said,
        evidence={**evidence, "report": codec.plain(report)},
    )

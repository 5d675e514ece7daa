"""Watches how right the release that serves is, as its labels arrive: window by window, against its own beginning.

The first window of labelled requests that a release answered (its trial's among them) is what it promised; each later
one is compared with it: the loss of the judge, whole and by slice, and the calibration. Requests near in time are
alike, so a window is cut into blocks, and block means are what is compared (Welch's t, one-sided). Over all windows of
one release a false alarm has at most the probability `alpha`: the k-th window is tested at alpha·6/(π²k²).

Must not read requests that another release answered, nor act: a finding is a decision.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ondol.base import ids
from ondol.loop import asked, reference
from ondol.monitoring.request_archive import Archive
from ondol.records import codec
from ondol.records.project import MonitorSpec
from ondol.records.rollout import Decision, JudgePolicy, Observation
from ondol.rollout import losses
from ondol.store import counters, observations, rollouts, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

_LEAST = 30  # labelled requests that any comparison needs
_LEAST_BLOCKS = 4
_IN_SLICE = 20  # labelled requests below which a slice is not looked at
_MOST_SLICES = 12  # per column, the largest
_BINS = 10  # of the calibration error


@dataclass(frozen=True, slots=True)
class Watched:
    """How quality is watched."""

    monitor: MonitorSpec
    policy: JudgePolicy
    """Its loss is the judge's; its margin is what may be lost."""

    slices: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    """Names of the columns, for requests that are lists; empty: those of the release's reference."""


def look(store: Store, blobs: Blobs, service: str, spec: Watched) -> Decision | None:
    """Judge the next full window of labelled requests; return the decision, or None when there is none yet.

    The decision, what later windows are compared with and the position move on at once: a crash before it looks at the
    same window again, and of several conductors one decides.
    """
    route = routes.get(store, service)
    if route is None:
        return None
    fact, window = f"quality/{service}/position", spec.monitor.window
    known = counters.fact(store, fact)
    seen = _seen(known)
    found = observations.labels_after(store, seen.position, window)
    if len(found) < window:
        return None
    fresh = _requests(store, blobs, [request for _, request, _ in found])
    fresh = [one for one in fresh if one.service == service and not one.shadow]
    waiting = [*seen.waiting, *(one.id for one in fresh)]
    if len(waiting) < window:
        with store.write() as tx:
            counters.move_in(tx, fact, known, codec.plain(_Seen(found[-1][0], waiting)))
        return None
    rows = sorted([*_requests(store, blobs, seen.waiting), *fresh], key=lambda one: one.at)[:window]
    mine = [one for one in rows if one.release == route.stable]
    if spec.slices and not spec.features and (frame := reference.load(store, blobs, route.stable)) is not None:
        spec = replace(spec, features=tuple(str(name) for name in frame.columns if name != reference.PREDICTION))
    judged = {one.id for one in rows}
    left = [request for request in waiting if request not in judged]
    baseline = f"quality/{service}/baseline"
    made = _judge(service, route.stable, mine, counters.fact(store, baseline) or {}, spec)
    with store.write() as tx:
        if not counters.move_in(tx, fact, known, codec.plain(_Seen(found[-1][0], left))) or made is None:
            return None
        decision, kept = made
        rollouts.decide_in(tx, decision)
        counters.put_fact_in(tx, baseline, kept)
    return decision


def come(store: Store, service: str, most: int) -> int:
    """Return how many labels of the next window have come, of those that were looked through; up to `most`."""
    seen = _seen(counters.fact(store, f"quality/{service}/position"))
    fresh = [request for _, request, _ in observations.labels_after(store, seen.position, most)]
    here = sum(one.service == service for one in observations.by_ids(store, fresh))
    return min(len(seen.waiting) + here, most)


@dataclass(frozen=True, slots=True)
class _Seen:
    """How far one service has looked through the labels, which are everybody's."""

    position: int = 0
    waiting: list[str] = field(default_factory=list)
    """Labelled requests of the service that are in no window yet; fewer than a window."""


def _seen(kept: Any) -> _Seen:
    """Read what is on record; earlier versions kept the position alone."""
    return codec.typed(kept, _Seen) if isinstance(kept, dict) else _Seen(int(kept or 0))


def _requests(store: Store, blobs: Blobs, names: Sequence[str]) -> list[Observation]:
    """Return labelled requests, wherever they are kept, in the order in which they were answered."""
    here = observations.by_ids(store, names)
    missing = set(names) - {one.id for one in here}
    there = Archive(store, blobs).find(missing) if missing else []
    return sorted(observations.with_labels(store, [*here, *there]), key=lambda one: one.at)


def _judge(
    service: str, release: str, rows: list[Observation], kept: dict[str, Any], spec: Watched
) -> tuple[Decision, dict[str, Any]] | None:
    """Return the decision about a window and what later ones are compared with; None when nothing can be said.

    :param kept: what earlier windows left; empty before the first.
    """
    scored = [(one, loss) for one in rows if (loss := losses.of(one, spec.policy)) is not None]
    if len(scored) < max(_LEAST, spec.monitor.window // 2):
        return None  # another release answered most of them, or the labels do not fit
    current = _summary(scored, spec)
    evidence: dict[str, Any] = {"release": release, "current": current, "margin": spec.policy.margin}
    if kept.get("release") != release:
        said = f"loss {current['loss']:.4g} over {len(scored):,} labelled requests: later windows are compared with it"
        return _decision(service, "baseline", said, evidence), {"release": release, "windows": 0, **current}
    number = int(kept["windows"]) + 1
    alpha = spec.monitor.alpha * 6 / (math.pi**2 * number**2)
    tests = compare(kept, current, spec.policy.margin)
    worse = [one for one in tests if one["q_value"] <= alpha]
    after = {**kept, "windows": number}
    evidence |= {"baseline": kept, "tests": tests, "window": number, "alpha": alpha}
    change = f"loss {kept['loss']:.4g} → {current['loss']:.4g} over {len(scored):,} labelled requests"
    if not worse:
        return _decision(service, "stable", change, evidence), after
    where = ", ".join(one["slice"] or "all requests" for one in worse[:3])
    margin = spec.policy.margin
    said = f"quality fell by more than {margin:g} in {where}: {change}"
    return _decision(service, "degraded", said, evidence), after


def verdict_of(evidence: dict[str, Any]) -> str:
    """Return what a decision's evidence says: `baseline`, `stable` or `degraded`."""
    if "baseline" not in evidence:
        return "baseline"
    tests = compare(evidence["baseline"], evidence["current"], evidence["margin"])
    return "degraded" if any(one["q_value"] <= evidence["alpha"] for one in tests) else "stable"


def _decision(service: str, verdict: str, reason: str, evidence: dict[str, Any]) -> Decision:
    return Decision(ids.new_id("decision"), time.time(), service, "quality", verdict, reason, evidence)


def _summary(scored: list[tuple[Observation, float]], spec: Watched) -> dict[str, Any]:
    """Return loss, block means, slices and calibration of a window, as plain values that are kept."""
    values = [loss for _, loss in scored]
    slices: dict[str, list[float]] = {}
    if spec.slices:
        frame = asked.table([one for one, _ in scored], list(spec.features))
        if len(frame) == len(scored):
            for column in (one for one in spec.slices if one in frame.columns):
                text = frame[column].astype(str)
                for value in text.value_counts().index[:_MOST_SLICES]:
                    chosen = [loss for loss, same in zip(values, (text == value).tolist(), strict=True) if same]
                    if len(chosen) >= _IN_SLICE:
                        slices[f"{column}={value}"] = _blocks(chosen, spec.monitor.blocks)
    return {
        "loss": sum(values) / len(values),
        "rows": len(values),
        "blocks": _blocks(values, spec.monitor.blocks),
        "slices": slices,
        "calibration_error": calibration_error(scored_pairs(scored)),
    }


def _blocks(values: Sequence[float], blocks: int) -> list[float]:
    """Return the means of consecutive pieces; with `blocks` 1 of every value on its own."""
    count = len(values) if blocks <= 1 else min(blocks, len(values) // 2)
    edges = [index * len(values) // count for index in range(count + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]


def compare(kept: dict[str, Any], current: dict[str, Any], margin: float) -> list[dict[str, Any]]:
    """Test whether the loss grew by more than a margin: over everything, and in each slice that both windows have.

    p-values are corrected for their number (Benjamini and Hochberg).
    """
    from ondol.data.drift import benjamini_hochberg

    pairs = [("", kept["blocks"], current["blocks"])]
    pairs += [
        (name, before, current["slices"][name]) for name, before in kept["slices"].items() if name in current["slices"]
    ]
    pairs = [one for one in pairs if min(len(one[1]), len(one[2])) >= _LEAST_BLOCKS]
    p_values = [welch(before, after, margin) for _, before, after in pairs]
    return [
        {"slice": name, "before": _mean(before), "after": _mean(after), "p_value": p, "q_value": q}
        for (name, before, after), p, q in zip(pairs, p_values, benjamini_hochberg(p_values), strict=True)
    ]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def welch(before: Sequence[float], after: Sequence[float], margin: float) -> float:
    """Return the one-sided p-value of mean(after) − mean(before) ≤ margin (Welch 1947)."""
    from scipy.special import stdtr

    variances = [
        sum((value - _mean(part)) ** 2 for value in part) / (len(part) - 1) / len(part) for part in (before, after)
    ]
    difference, error = _mean(after) - _mean(before) - margin, math.sqrt(sum(variances))
    if error == 0:
        return 0.0 if difference > 0 else 1.0
    freedom = sum(variances) ** 2 / sum(
        variance**2 / (len(part) - 1) for variance, part in zip(variances, (before, after), strict=True)
    )
    return float(1 - stdtr(freedom, difference / error))


def scored_pairs(scored: Sequence[tuple[Observation, float]]) -> list[tuple[float, float]]:
    """Return (probability of 1, truth) of the requests that have both."""
    found = []
    for one, _ in scored:
        try:
            chance, label = asked.chance_of(json.loads(one.prediction)), json.loads(one.label)
        except ValueError:
            continue
        if chance is not None and 0 <= chance <= 1 and label in (0, 1):
            found.append((chance, float(label)))
    return found


def calibration_error(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return the expected calibration error over equally filled bins; None with fewer than 100 pairs."""
    if len(pairs) < 100:
        return None
    ordered = sorted(pairs)
    edges = [index * len(ordered) // _BINS for index in range(_BINS + 1)]
    total = 0.0
    for a, b in itertools.pairwise(edges):
        part = ordered[a:b]
        total += abs(sum(chance for chance, _ in part) - sum(truth for _, truth in part))
    return total / len(ordered)

"""How the evidence of a rollout grew: the judge asked again along the way, drawn.

Must not decide: the decisions that were made are shown beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from ondol.records.rollout import Observation, Rollout
from ondol.rollout import policies
from ondol.rollout.findings import Finding
from ondol.rollout.panel import Panel
from ondol.store import observations
from ondol.store.connection import Store
from ondol.ui import charts
from ondol.ui.words import Words

_LOOKS = 24  # points of a line; each is a whole verdict

Looks = tuple[tuple[int, tuple[Finding, ...]], ...]


def of_rollout(store: Store, rollout: Rollout, words: Words) -> list[tuple[str, str]]:
    """Return (title, SVG) of the evidence for and against, and of each metric's difference with its interval."""
    looks = _ended(store, rollout) if rollout.state != "progressing" else _looked(store, rollout)
    if not looks:
        return []
    x_label = words("requests of the rollout")
    harm = [(x, max(_share(one.harm, one.harm_at) for one in found)) for x, found in looks]
    safe = [(x, min(_share(one.safe, one.safe_at) for one in found)) for x, found in looks]
    title = words("Evidence on its way to a decision")
    drawn = [
        (title, charts.lines({"harm": harm, "safe": safe}, label="evidence", percent=True, x_label=x_label, top=1.0))
    ]
    for index, last in enumerate(looks[-1][1]):
        rows = [(x, found[index]) for x, found in looks if found[index].units > 1]
        factor = 100 if _is_share(last) else 1
        between = [(x, *(factor * end for end in one.interval)) for x, one in rows]
        points = [(x, low, (low + high) / 2, high) for x, low, high in between]
        name = f"{last.variant} {last.metric}".strip() + (" (%)" if _is_share(last) else "")
        label = words("{metric}: candidate − stable, 95 % at all times", metric=name)
        drawn.append((label, charts.band(points, factor * last.margin * last.unit, label=label, x_label=x_label)))
    return [(title, svg) for title, svg in drawn if svg]


def _is_share(one: Finding) -> bool:
    return one.metric in ("error_rate", "disagreement") or policies.is_latency(one.metric)


def _share(log10_e: float, wanted: float) -> float:
    return min(max(log10_e / wanted, 0.0), 1.0) if wanted else 0.0


@lru_cache(maxsize=32)
def _ended(store: Store, rollout: Rollout) -> Looks:
    return _looked(store, rollout)


def _looked(store: Store, rollout: Rollout) -> Looks:
    news = observations.news(store, rollout.id)
    labels = {one.id: one.label for one in news.labelled}
    late: dict[str, dict[str, float]] = {}
    for one in news.signalled:
        late.setdefault(one.id, {}).update(one.signals)
    rows = [
        replace(one, label=labels.get(one.id, one.label), signals={**late.get(one.id, {}), **one.signals})
        for one in news.served
    ]
    return look_back(rollout, rows, news.about_units)


def look_back(
    rollout: Rollout, rows: Sequence[Observation], about_units: Sequence[tuple[str, str, float]] = ()
) -> Looks:
    """Return what the judge knew after every so many requests; what came later counts as known from the start."""
    panel, every = Panel.of(rollout), max(len(rows) // _LOOKS, 1)
    for unit, name, value in about_units:
        panel.add_unit_signal(unit, name, value)
    looks = []
    for number, one in enumerate(rows, 1):
        panel.add(one)
        if number % every == 0 or number == len(rows):
            looks.append((number, tuple(panel.findings())))
    return tuple(looks)

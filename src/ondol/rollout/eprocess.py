"""Evidence that may be looked at after every request: e-processes by betting, on counts that can be stored.

A request's arm is decided by a hash, so a unit is in the candidate with probability w whatever the unit is like. Let
`a` be 1 for the candidate and 0 for stable, `x` in [0, 1] what we measured (1 is bad), `m` a centre fixed before. Then

    y = (a - w) (x - m) - w (1 - w) d        has mean   w (1 - w) ((mean of candidate - mean of stable) - d)

so betting a fixed share k of one's wealth on y (`1 + k y` per unit) earns nothing on average while the candidate is
worse than stable by at most d, and betting on -y earns nothing while it is worse by at least d. A fixed mixture over
several k is a non-negative supermartingale that starts at 1: it ever exceeds 1/α with probability ≤ α (Ville).

Sources: Ville (1939); Robbins, "Statistical methods related to the law of the iterated logarithm" (1970), for
mixtures; Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform Chernoff bounds via nonnegative supermartingales" (2020);
Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024), for the bets; Turner, Ly and
Grünwald, "Generic e-variables for exact sequential k-sample tests" (2024), for two arms.

Bets are fixed and not adapted to the data so far: the wealth then depends on counts only, not on their order, and a
verdict can be computed again from a few stored numbers. Measurements are rounded to 1/128 for the same reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

BINS = 128
"""Measurements in [0, 1] are counted in steps of 1/128."""

RATIOS = (1.3, 2.0, 4.0, 8.0, 20.0, float("inf"))
"""How many times more often harm strikes the candidate, for bets on rare events; infinite: only ever the candidate.

The infinite one is for catastrophes: k units that fail in the candidate and none in stable are worth (1/w)^k."""

_PRIOR = np.log((0.06, 0.18, 0.28, 0.2, 0.14, 0.14))
"""Log share of the first wealth on each ratio: most on the regressions that occur and can be found."""

PAIRED = 1.0
"""The weight of a block of pairs: both arms answered the same request, and x = (1 + candidate - stable) / 2."""

STAKES = (0.06, 0.15, 0.4, 1.0, 2.5, 6.0)
"""Shares to bet on differences of means; the best one is (difference - d) / variance."""

_CLEAR = 0.95  # the largest share of the ruinous bet that we ever make

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Block:
    """Counts of what was measured under one weight, one centre and one reference."""

    weight: float
    """Share of units in the candidate, 0 to 1."""

    centre: float
    """`m` above; fixed before the first count of this block."""

    reference: float
    """What raw values were compared with (a latency in ms, a cost); 0 when nothing is needed."""

    margin: float
    """The difference of means that is accepted, in units of x."""

    counts: tuple[tuple[int, int, int], ...]
    """(bin, units of stable, units of candidate), by bin."""


def bin_of(x: float) -> int:
    """Return the bin of a measurement in [0, 1]; what is outside is clipped."""
    return round(min(max(x, 0.0), 1.0) * BINS)


@lru_cache(maxsize=256)
def ratio_stakes(weight: float) -> tuple[float, ...]:
    """Return the stakes on "this event is the candidate's" that the ratios amount to, for centre 0 and d = 0."""
    return tuple(1 / weight if ratio == float("inf") else (ratio - 1) / (weight * (ratio - 1) + 1) for ratio in RATIOS)


@lru_cache(maxsize=4096)
def mean_stakes(weight: float, centre: float, difference: float, sign: int) -> tuple[float, ...]:
    """Return the stakes on a difference of means, each small enough that no outcome ruins.

    :param sign: 1 to bet that the candidate is worse than `difference`, -1 that it is not.
    """
    if weight == PAIRED:
        ys = [-1.0 - difference, 1.0 - difference]
    else:
        shift = weight * (1 - weight) * difference
        ys = [(arm - weight) * (x - centre) - shift for arm in (0, 1) for x in (0.0, 1.0)]
    worst = max(-sign * y for y in ys)
    limit = _CLEAR / worst if worst > 0 else STAKES[-1]
    return tuple(min(stake, limit) for stake in STAKES)


def log_mean(given: Floats | Sequence[float]) -> float:
    """Return the log of the mean wealth."""
    logs = np.asarray(given)
    top = float(logs.max())
    if top == float("-inf"):
        return top
    return top + float(np.log(np.mean(np.exp(logs - top))))


def _columns(block: Block) -> tuple[Floats, Floats, Floats]:
    table = np.asarray(block.counts, dtype=np.float64).reshape(-1, 3)
    return table[:, 0] / BINS, table[:, 1], table[:, 2]


def event_log_e(blocks: Sequence[Block]) -> float:
    """Return the log e-value against "harm does not strike the candidate's units more often than stable's".

    Only units that were harmed are counted, each once: given that a unit is harmed, it is the candidate's with
    probability at most w. This is the conditional (beta-binomial kind of) test with a discrete mixture over ratios, so
    that blocks of different weights combine.
    """
    logs = np.zeros(len(RATIOS))
    for block in blocks:
        stable = sum(row[1] for row in block.counts)
        candidate = sum(row[2] for row in block.counts)
        logs += event_logs(np.array([stable]), np.array([candidate]), block.weight)[0]
    return float(mixed(logs))


def mixed(logs: Floats) -> Floats:
    """Return the log wealth of the mixture over ratios, along the last axis."""
    return np.asarray(np.logaddexp.reduce(logs + _PRIOR, axis=-1))


def event_logs(stable: NDArray[np.int_], candidate: NDArray[np.int_], weight: float) -> Floats:
    """Return log wealth per pair of counts and ratio, shape (n, ratios); the vectorised heart of `event_log_e`."""
    stakes = np.array(ratio_stakes(weight))
    with np.errstate(divide="ignore"):
        lose = np.log(np.maximum(1 - stakes * weight, 0.0))
    lose[-1] = -np.inf
    gain = np.log1p(stakes * (1 - weight))
    losses = np.zeros((len(stable), len(stakes)))
    losses[stable > 0] = stable[stable > 0, None] * lose
    return np.asarray(losses + candidate[:, None] * gain)


def outcomes(block: Block, difference: float) -> list[tuple[Floats, Floats]]:
    """Return (y, how often) of a block: what one bets on, with mean 0 when the means differ by `difference`."""
    x, stable, candidate = _columns(block)
    w = block.weight
    if w == PAIRED:
        return [(2 * x - 1 - difference, candidate)]
    shift = w * (1 - w) * difference
    return [((arm - w) * (x - block.centre) - shift, n) for arm, n in ((0.0, stable), (1.0, candidate))]


def mean_logs(blocks: Sequence[Block], difference: float | None, sign: int) -> Floats:
    """Return log wealth per stake; a difference of None is each block's own margin."""
    logs = np.zeros(len(STAKES))
    for block in blocks:
        d = block.margin if difference is None else difference
        stakes = sign * np.array(mean_stakes(block.weight, block.centre, d, sign))
        for y, n in outcomes(block, d):
            logs += np.log1p(np.outer(stakes, y)) @ n
    return logs


def worse_log_e(blocks: Sequence[Block], difference: float | None = 0.0) -> float:
    """Return the log e-value against "the candidate's mean is above stable's by at most `difference`"."""
    return log_mean(mean_logs(blocks, difference, 1))


def no_better_log_e(blocks: Sequence[Block]) -> float:
    """Return the log e-value against "the candidate's mean is below stable's by at least the margin"."""
    return worse_log_e([replace(one, margin=-one.margin) for one in blocks], None)


def safe_log_e(blocks: Sequence[Block], difference: float | None = None) -> float:
    """Return the log e-value against "the candidate's mean is above stable's by at least `difference`"."""
    return log_mean(mean_logs(blocks, difference, -1))


def interval(blocks: Sequence[Block], alpha: float = 0.05) -> tuple[float, float]:
    """Return the betting confidence sequence's interval for candidate - stable: right at all times at once.

    The set of differences that neither test rejects at α/2 each; found by bisection to 0.001.
    """
    limit = float(np.log(2 / alpha))
    low = _edge(lambda d: worse_log_e(blocks, d) >= limit)
    high = -_edge(lambda d: safe_log_e(blocks, -d) >= limit)
    return low, high


def _edge(rejected: Callable[[float], bool]) -> float:
    """Return the largest d in [-1, 1] that is still rejected (-1 when none is)."""
    lower, upper = -1.0, 1.0
    if not rejected(lower):
        return lower
    while upper - lower > 0.001:
        middle = (lower + upper) / 2
        if rejected(middle):
            lower = middle
        else:
            upper = middle
    return lower


def units_needed(blocks: Sequence[Block], alpha: float) -> int | None:
    """Return about how many more units would show that the candidate is safe, if things stay as they are.

    From the growth rate of the best bet, (margin - difference)² w (1 - w) / 2 variance, and its cap, the largest stake
    that cannot ruin. None when the difference measured so far is not below the margin, or nothing is measured.
    """
    last = blocks[-1] if blocks else None
    if last is None:
        return None
    kept = [one for one in blocks if (one.weight == PAIRED) == (last.weight == PAIRED)]
    spread = 1.0 if last.weight == PAIRED else last.weight * (1 - last.weight)
    totals = np.zeros(4)  # n, y, y² of both arms, and units of the arm with fewer
    for block in kept:
        scale = 1.0 if block.weight == PAIRED else block.weight * (1 - block.weight)
        parts = outcomes(block, 0.0)
        for y, n in parts:
            totals[:3] += n.sum(), (n * y / scale).sum(), (n * y * y / scale).sum()
        totals[3] += min(n.sum() for _, n in parts)
    if not totals[3]:
        return None
    room = last.margin - max(float(totals[1] / totals[0]), 0.0)
    if room <= 0:
        return None
    variance = float(totals[2] / totals[0])
    limit = mean_stakes(last.weight, last.centre, 1e-9 + last.margin, -1)[-1]
    goal = float(np.log(1 / alpha)) + 1.0
    wanted = goal * (2 * variance / (spread * room**2) + 1 / (limit * spread * room))
    return max(int(wanted - totals[0]), 1)

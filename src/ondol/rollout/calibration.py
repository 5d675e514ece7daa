"""How much harm is proof: thresholds for rare events whose error probability is computed, not only bounded.

Ville's inequality holds for ever and for any sequence of weights, and pays for it: an e-process that jumps over 1/α has
wasted what it jumped too far. Within one step of a rollout the weight w stands still, so that given the harmed units
(at most `MOST` of them) each is the candidate's with probability at most w, and the chance that the count ever crosses
a given line is a finite sum. The line is the contour of the mixture's e-value whose crossing probability is α exactly
(to 1 %); crossing is monotone in w, so the bound holds for every candidate that is no worse. The idea of computing a
sequential boundary's exact size is Armitage, McPherson and Rowe's (1969); α is split by a union bound.

Must not see data: lines depend on weights and α alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ondol.rollout import eprocess
from ondol.rollout.eprocess import Block

MOST = 600
"""Harmed units of one step after which only Ville's inequality goes on deciding."""

_ROUNDS = 9  # of bisection: log thresholds to one part in 500


def event_log_evidence(blocks: Sequence[Block], alpha: float, steps: int) -> float:
    """Return the log of the evidence that harm strikes the candidate more often; proven at log(1 / α).

    :param blocks: counts of harmed units, one block per weight.
    :param steps: how many different weights a rollout can have. α is shared between each step alone, computed, and all
        of them together, by Ville's inequality.
    """
    together, alone = shares(steps)
    found = [eprocess.event_log_e(blocks) + math.log(together)]
    for block in blocks:
        stable, candidate = (sum(row[arm] for row in block.counts) for arm in (1, 2))
        if stable + candidate <= MOST:
            reached = eprocess.event_log_e([block]) - threshold(block.weight, round(alpha * alone, 12))
            found.append(reached - math.log(alpha))
    return max(found)


def shares(steps: int) -> tuple[float, float]:
    """Return the parts of α for all steps together and for each step alone."""
    together = 0.1 if steps == 1 else 0.4
    return together, (1 - together) / steps


@lru_cache(maxsize=256)
def threshold(weight: float, alpha: float) -> float:
    """Return the log e-value that is crossed with probability at most `alpha` by a candidate that is no worse."""
    low, high = 0.0, math.log(1 / alpha)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (low, middle) if crossing(line(weight, middle), weight) <= alpha else (middle, high)
    return high


@lru_cache(maxsize=64)
def _wealth(weight: float) -> NDArray[np.float64]:
    """Return the mixture's log wealth, shape (stable + 1, candidate + 1), far enough for every line that matters."""
    stable, candidate = np.meshgrid(np.arange(MOST + 1), np.arange(MOST + 1), indexing="ij")
    logs = eprocess.event_logs(stable.ravel(), candidate.ravel(), weight)
    return eprocess.mixed(logs).reshape(stable.shape)


def line(weight: float, log_e: float) -> NDArray[np.int64]:
    """Return for each number of harmed units of stable how many of the candidate reach `log_e`, shape (MOST + 1,)."""
    reached = _wealth(weight) >= log_e
    return np.where(reached.any(axis=1), reached.argmax(axis=1), MOST + 1).astype(np.int64)


def crossing(line: NDArray[np.int64], chance: float) -> float:
    """Return the probability that counts reach the line within MOST harmed units, each the candidate's by chance."""
    counts = np.arange(MOST + 1)
    alive = np.zeros(MOST + 1)  # probability by number of candidate units, for walks that have not crossed
    alive[0], crossed = 1.0, 0.0
    for n in range(1, MOST + 1):
        moved = alive * (1 - chance)
        moved[1:] += alive[:-1] * chance
        over = counts[: n + 1] >= line[n - counts[: n + 1]]
        crossed += float(moved[: n + 1][over].sum())
        moved[: n + 1][over] = 0.0
        alive = moved
    return crossed

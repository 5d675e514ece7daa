"""Which arm a unit belongs to: sticky, monotone in the weight, pure.

Must not keep state: the same route and unit give the same arm in every process, today and after a restart.
"""

from __future__ import annotations

import hashlib
import math
from functools import lru_cache

from ondol.records.rollout import STABLE, Arm, Route

BUCKETS = 10_000
"""A weight is honoured to a hundredth of a percent."""


def places(salt: str, unit: str) -> tuple[int, int]:
    """Return two numbers in [0, 10000), uniform over units and independent of each other and between salts."""
    state = _salted(salt).copy()
    state.update(unit.encode("utf-8", "surrogatepass"))
    rest, first = divmod(int.from_bytes(state.digest(), "big"), BUCKETS)
    return first, rest % BUCKETS


def bucket(salt: str, unit: str) -> int:
    """Return the unit's place in [0, 10000): it is a variant's when this is below the weight."""
    return places(salt, unit)[0]


@lru_cache(maxsize=1024)
def _salted(salt: str) -> hashlib.blake2b:
    """Return a hash that knows the salt already; copying it is half the price of making it."""
    raw = salt.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(digest_size=8, key=raw if len(raw) <= 64 else hashlib.blake2b(raw, digest_size=32).digest())


def assign(route: Route, unit: str) -> Arm:
    """Return the arm that serves this unit.

    A unit once in a variant stays there as the weight grows, because its bucket does not change and the variants own
    the buckets below the weight; a second number says which variant. A caller without a unit passes something random,
    such as the request's id.
    """
    if not route.candidate or route.weight <= 0:
        return STABLE
    if route.weight >= 100 and not route.others:
        return route.candidate_name
    first, second = places(route.salt, unit)
    # round(): 0.29 * 100 is 28.999999999999996, and a hundredth of a percent must not get lost in that.
    if first >= round(route.weight * 100):
        return STABLE
    edge = 0.0
    for one in route.others:
        edge += one.share
        if second < edge * BUCKETS:
            return one.name
    return route.candidate_name


_RATIOS = (0.25, 0.5, 0.8, 0.9, 1.1, 1.25, 2.0, 4.0)  # candidate share of units, as odds against what was asked for


def mismatch_log_e(counts: list[tuple[float, int, int]]) -> float:
    """Return the log e-value against "units arrive in the arms as the weights say" (sample ratio mismatch).

    :param counts: per weight (0 to 1): the weight, new units seen in stable, new units seen in candidate.

    A mixture of likelihood ratios over odds ratios on both sides of 1 is a non-negative martingale under the null, so
    that by Ville's inequality it exceeds 1/α at any time with probability at most α; after Lindon and Malek, "Anytime-
    valid inference for multinomial count data" (2020), with a discrete mixture in place of their Dirichlet prior.
    """
    logs = []
    for ratio in _RATIOS:
        total = 0.0
        for weight, stable, candidate in counts:
            if 0 < weight < 1:
                total += candidate * math.log(ratio) - (stable + candidate) * math.log1p(weight * (ratio - 1))
        logs.append(total)
    top = max(logs)
    return top + math.log(sum(math.exp(one - top) for one in logs) / len(logs))

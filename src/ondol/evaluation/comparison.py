"""Is the candidate better than the champion on the same samples? Intervals, not opinions.

Every function compares answers to the *same* samples in the same order: what both find hard cancels out, which is worth
many times the samples. Must not decide whether a difference is good enough: that is the gates' part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ondol.base import errors
from ondol.records.evaluation import Comparison

Floats = NDArray[np.float64]
_CHUNK = 4_000_000  # numbers drawn at a time: 32 MB


def paired_bootstrap(
    candidate: ArrayLike,
    champion: ArrayLike,
    *,
    metric: str,
    greater_is_better: bool = False,
    clusters: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    kind: Literal["bca", "percentile"] = "bca",
) -> Comparison:
    """Compare two models by a metric that is a mean over samples (a loss, an accuracy).

    :param candidate: the candidate's value per sample, shape (n,).
    :param champion: the champion's value for the same samples, shape (n,).
    :param greater_is_better: False for losses.
    :param clusters: a label per sample (a day, a user) when samples of one cluster are alike; whole clusters are drawn
        then, which keeps the interval honest.
    :raises InputError: when the shapes differ, a value is not finite, or there is nothing to compare.

    The bias-corrected and accelerated interval of Efron, "Better bootstrap confidence intervals" (1987), with the
    acceleration from the jackknife.
    """
    ours, theirs = _values(candidate, "candidate"), _values(champion, "champion")
    if ours.shape != theirs.shape:
        raise errors.InputError(
            f"the candidate has {len(ours)} values and the champion {len(theirs)}",
            way_out="Score both on the same samples, in the same order.",
            code="INP-040",
        )
    better = (ours - theirs) if greater_is_better else (theirs - ours)
    sums, sizes = _by_cluster(better, clusters)
    difference = float(sums.sum() / sizes.sum())
    draws = _resample(sums, sizes, resamples, np.random.default_rng(seed))
    low, high = _interval(draws, difference, sums - difference * sizes, level, kind)
    groups = "" if clusters is None else f", {len(sums)} clusters"
    return Comparison(
        metric, float(ours.mean()), float(theirs.mean()), difference, low, high, level, len(ours),
        f"paired bootstrap ({kind}), {resamples} resamples, seed {seed}{groups}",
    )  # fmt: skip


def _values(values: ArrayLike, name: str) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise errors.InputError(
            f"the {name}'s values have shape {array.shape}", way_out="Give one value per sample.", code="INP-041"
        )
    if not np.isfinite(array).all():
        where = int(np.flatnonzero(~np.isfinite(array))[0])
        raise errors.InputError(
            f"the {name}'s value {where} is {array[where]}", where=f"{name}[{where}]",
            way_out="Leave samples out for both models, or clip the metric.", code="INP-042",
        )  # fmt: skip
    return array


def _by_cluster(better: Floats, clusters: ArrayLike | None) -> tuple[Floats, Floats]:
    if clusters is None:
        return better, np.ones_like(better)
    names: NDArray[Any] = np.asarray(clusters)
    if names.shape != better.shape:
        raise errors.InputError(
            f"{len(names)} cluster labels for {len(better)} samples", way_out="Give one per sample.", code="INP-040"
        )
    _, index = np.unique(names, return_inverse=True)
    return np.bincount(index, weights=better).astype(np.float64), np.bincount(index).astype(np.float64)


def _resample(sums: Floats, sizes: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    """Return the mean of each resample, shape (resamples,)."""
    n = len(sums)
    pairs, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    if pairs.shape[1] <= 64:  # losses of labels: drawing how often each value comes is the same and much cheaper
        times = generator.multinomial(n, counts / n, size=resamples)
        return np.asarray((times @ pairs[0]) / (times @ pairs[1]))
    means = np.empty(resamples)
    rows = max(1, _CHUNK // n)
    even = bool((sizes == sizes[0]).all())
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        drawn = generator.integers(0, n, size=(stop - start, n))
        weight = n * sizes[0] if even else sizes[drawn].sum(axis=1)
        means[start:stop] = sums[drawn].sum(axis=1) / weight
    return means


def _interval(draws: Floats, estimate: float, influence: Floats, level: float, kind: str) -> tuple[float, float]:
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if kind == "bca":
        tails = _bca_tails(draws, estimate, influence, level)
    low, high = np.quantile(draws, tails)
    return float(low), float(high)


def _bca_tails(draws: Floats, estimate: float, influence: Floats, level: float) -> Floats:
    normal = NormalDist()
    below = float(((draws < estimate).sum() + 0.5 * (draws == estimate).sum()) / len(draws))
    plain = np.array([(1 - level) / 2, (1 + level) / 2])
    spread = float((influence**2).sum())
    if not 0 < below < 1 or spread == 0:
        return plain
    bias, acceleration = normal.inv_cdf(below), float((influence**3).sum()) / (6 * spread**1.5)
    shifted = [bias + normal.inv_cdf(float(tail)) for tail in plain]
    return np.array([normal.cdf(bias + z / (1 - acceleration * z)) for z in shifted])


def paired_auc(
    labels: ArrayLike, candidate: ArrayLike, champion: ArrayLike, *, metric: str = "roc_auc", level: float = 0.95
) -> Comparison:
    """Compare two models by the area under the ROC curve on the same samples.

    :param labels: 0 or 1 per sample.
    :param candidate: the candidate's scores; higher means more likely 1.
    :raises InputError: when there are fewer than two samples of a class.

    DeLong, DeLong and Clarke-Pearson (1988), in the O(n log n) form of Sun and Xu, "Fast implementation of DeLong's
    algorithm" (2014).
    """
    truth = _values(labels, "labels")
    scores = [_values(candidate, "candidate"), _values(champion, "champion")]
    positive = truth == 1
    ones, zeros = int(positive.sum()), int((truth == 0).sum())
    if ones + zeros != len(truth) or min(ones, zeros) < 2 or any(len(one) != len(truth) for one in scores):
        raise errors.InputError(
            f"AUC needs labels 0 and 1 and two samples of each; there are {ones} ones and {zeros} zeros among "
            f"{len(truth)}",
            way_out="Evaluate on more samples, or compare a loss with paired_bootstrap.",
            code="INP-043",
        )
    components = [_placements(one[positive], one[~positive]) for one in scores]
    areas = [float(above.mean()) for above, _ in components]
    above, under = components[0][0] - components[1][0], components[0][1] - components[1][1]
    error = math.sqrt(float(above.var(ddof=1)) / ones + float(under.var(ddof=1)) / zeros)
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    difference = areas[0] - areas[1]
    return Comparison(
        metric, areas[0], areas[1], difference, difference - reach, difference + reach, level, len(truth),
        "paired DeLong",
    )  # fmt: skip


def _placements(ones: Floats, zeros: Floats) -> tuple[Floats, Floats]:
    """Return for each 1 the share of zeros below it, and for each 0 the share of ones above it (ties count half)."""
    m, n = len(ones), len(zeros)
    ranks = _midranks(np.concatenate([ones, zeros]))
    return (ranks[:m] - _midranks(ones)) / n, 1 - (ranks[m:] - _midranks(zeros)) / m


def _midranks(values: Floats) -> Floats:
    ordered = np.sort(values)
    left, right = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
    return np.asarray((left + right + 1) / 2, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class McNemar:
    """Samples on which exactly one of the two is right."""

    only_candidate: int
    only_champion: int
    p_value: float
    """Two-sided, exact."""


def mcnemar(candidate_correct: Sequence[bool] | ArrayLike, champion_correct: Sequence[bool] | ArrayLike) -> McNemar:
    """Test whether two models are right equally often on the same samples: McNemar (1947), exact binomial."""
    ours, theirs = np.asarray(candidate_correct, dtype=bool), np.asarray(champion_correct, dtype=bool)
    if ours.shape != theirs.shape:
        raise errors.InputError(
            f"{ours.size} and {theirs.size} answers are not the same samples",
            way_out="Score both on the same samples, in the same order.",
            code="INP-040",
        )
    gained, lost = int((ours & ~theirs).sum()), int((~ours & theirs).sum())
    n = gained + lost
    few = np.arange(min(gained, lost) + 1)
    factorials = np.array([math.lgamma(k + 1) + math.lgamma(n - k + 1) for k in few])
    tail = float(np.exp(math.lgamma(n + 1) - factorials - n * math.log(2)).sum())
    return McNemar(gained, lost, min(1.0, 2 * tail) if n else 1.0)


def minimum_detectable_effect(differences: ArrayLike, level: float = 0.95, power: float = 0.8) -> float:
    """Return the smallest true difference that as many such samples would show with the given power.

    :param differences: per-sample differences of any pilot comparison, shape (n,).
    """
    values = _values(differences, "differences")
    if len(values) < 2:
        return math.inf
    normal = NormalDist()
    reach = normal.inv_cdf((1 + level) / 2) + normal.inv_cdf(power)
    return reach * float(values.std(ddof=1)) / math.sqrt(len(values))


def samples_needed(differences: ArrayLike, effect: float, level: float = 0.95, power: float = 0.8) -> int:
    """Return how many samples would show a true difference of `effect` with the given power."""
    if effect <= 0:
        raise errors.InputError(f"an effect of {effect!r} cannot be planned for", way_out="Give a number above 0.")
    values = _values(differences, "differences")
    shown = minimum_detectable_effect(values, level, power)
    if not math.isfinite(shown):
        raise errors.InputError("one sample says nothing about the spread", way_out="Give at least two differences.")
    return max(2, math.ceil(len(values) * (shown / effect) ** 2))

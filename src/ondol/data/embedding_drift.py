"""Are other things asked than before? One test on the embeddings of texts, and how much of what is asked has moved.

p-value: energy distance between the two sets of unit vectors, by exchanging whole blocks of neighbouring texts, which
are alike. Effect: how much better than by chance a linear classifier, which has not seen the block, says which set a
text is from: 2·accuracy − 1, a lower bound of the total variation. 0 is the same, 1 nothing in common. Topics, found
in both sets together, are for people: they say what is asked more, and what less.
Must not embed anything, nor quote a text: what people asked is kept for a while, a finding for ever.

Sources: Székely and Rizzo (2004) for the energy distance; Phipson and Smyth (2010) for permutation p-values;
Lopez-Paz and Oquab (2017) for two-sample tests by a classifier; Dhillon and Modha (2001) for spherical k-means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.base import errors
from ondol.data.drift import ColumnDrift, DriftReport, Options

Floats = NDArray[np.float64]
_TOPICS = 12
_PER_TOPIC = 25  # texts a topic needs, at the least, on average
_ROUNDS = 12
_LEAST = 30
_LEAST_BLOCKS = 5
_FOLDS = 5
_RIDGE = 1.0  # of the mean variance: a few hundred texts in a few hundred dimensions
_SAID = 3  # topics that a finding names


@dataclass(frozen=True, slots=True)
class Topic:
    """Texts that are alike, and their share of each set."""

    centre: Floats
    """Unit vector, shape (d,)."""

    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How one set of embedded texts differs from another."""

    effect: float
    p_value: float
    topics: tuple[Topic, ...]
    """The one that moved most first."""


def difference(reference: NDArray[Any], current: NDArray[Any], blocks: int, options: Options) -> Difference:
    """Compare two sets of unit vectors, in the order in which the texts came, shapes (n, d) and (m, d).

    :param blocks: pieces each set is cut into; 1: every text is independent of its neighbours.
    :raises InputError: INP-061 for fewer than 30 texts, INP-060 for fewer than 5 blocks.
    """
    if min(len(reference), len(current)) < _LEAST:
        raise errors.InputError(
            f"{len(reference)} and {len(current)} texts; a comparison needs {_LEAST}", code="INP-061"
        )
    counts = [len(part) if blocks <= 1 else min(blocks, len(part)) for part in (reference, current)]
    if min(counts) < _LEAST_BLOCKS:
        raise errors.InputError(f"{blocks} blocks are too few to exchange; 5 are needed", code="INP-060")
    both = np.concatenate([reference, current]).astype(np.float64)
    shares = np.zeros((sum(counts), len(both)))  # row: a block, as the mean over its texts
    first_blocks = np.arange(len(reference)) * counts[0] // len(reference)
    block = np.concatenate([first_blocks, counts[0] + np.arange(len(current)) * counts[1] // len(current)])
    shares[block, np.arange(len(both))] = 1.0
    shares /= shares.sum(axis=1, keepdims=True)
    apart = np.sqrt(np.maximum(2 - 2 * (both @ both.T), 0.0))
    members = _exchanges(counts, options)
    energies = _energy(members, shares @ apart @ shares.T)
    # One is added to both: the observed arrangement, the first, is one of the possible ones.
    p_value = float((1 + np.sum(energies[1:] >= energies[0] - 1e-12)) / len(energies))
    topic, centres = _topics(both, options.seed)
    before, after = (members[0] @ shares / counts[0])[None], ((1 - members[0]) @ shares / counts[1])[None]
    one_hot = np.eye(len(centres))[topic]
    first, second = (before @ one_hot)[0], (after @ one_hot)[0]
    order = np.argsort(-np.abs(first - second), kind="stable")
    found = tuple(Topic(centres[one], float(first[one]), float(second[one])) for one in order)
    return Difference(_told_apart(both, block, len(reference)), p_value, found)


def report(
    found: Difference, column: str, rows: tuple[int, int], options: Options, name: Callable[[Floats], str]
) -> DriftReport:
    """Say a difference as a drift report with one column.

    :param rows: texts of the reference and of the current set.
    :param name: says what the texts around a vector are about.
    """
    drifted = found.p_value <= options.alpha and found.effect >= options.effect
    said = [f"{name(one.centre)} {one.before:.0%} → {one.after:.0%}" for one in found.topics[:_SAID]]
    entry = ColumnDrift(
        column, "feature", "embedding", "energy by block", found.effect, found.p_value, found.p_value, drifted,
        ", ".join(said), *rows,
    )  # fmt: skip
    summary = f"other topics: {entry.change}" if drifted else "no other topics"
    return DriftReport((entry,), drifted, summary, *rows, options.alpha, options.effect)


def _exchanges(counts: list[int], options: Options) -> Floats:
    """Return which blocks are in the first set, shape (1 + permutations, blocks): as they are, then exchanged."""
    generator = np.random.default_rng(options.seed)
    members = np.zeros((1 + options.permutations, sum(counts)))
    members[0, : counts[0]] = 1.0
    for row in members[1:]:
        row[generator.permutation(sum(counts))[: counts[0]]] = 1.0
    return members


def _told_apart(vectors: Floats, block: NDArray[np.intp], cut: int) -> float:
    """Return 2·(balanced accuracy) − 1 of a ridge classifier on blocks that it was not fitted on; never below 0."""
    is_current = np.arange(len(vectors)) >= cut
    weight = np.where(is_current, 1 / is_current.sum(), 1 / cut)
    right = np.zeros(len(vectors))
    for fold in range(_FOLDS):
        held = block % _FOLDS == fold
        seen, side, chance = vectors[~held], np.where(is_current[~held], 1.0, -1.0), weight[~held]
        middle = np.average(seen, axis=0, weights=chance)
        scaled = (seen - middle) * chance[:, None]
        spread = scaled.T @ (seen - middle)
        spread[np.diag_indices_from(spread)] += _RIDGE * np.trace(spread) / len(spread) + 1e-12
        plane = np.linalg.solve(spread, scaled.T @ side)
        right[held] = ((vectors[held] - middle) @ plane > 0) == is_current[held]
    return max(0.0, float(right[is_current].mean() + right[~is_current].mean()) - 1)


def _energy(members: Floats, apart: Floats) -> Floats:
    """Return the energy distance of each arrangement from the mean distances between blocks."""
    x = members / members.sum(axis=1, keepdims=True)
    y = (1 - members) / (1 - members).sum(axis=1, keepdims=True)
    gap = x - y  # 2·x'Dy − x'Dx − y'Dy
    return np.asarray(-np.sum((gap @ apart) * gap, axis=1))


def _topics(vectors: Floats, seed: int) -> tuple[NDArray[np.intp], Floats]:
    """Sort unit vectors into topics by spherical k-means; return the topic of each and the centres."""
    count = max(2, min(_TOPICS, len(vectors) // _PER_TOPIC))
    generator = np.random.default_rng(seed)
    centres = vectors[[int(generator.integers(len(vectors)))]]
    while len(centres) < count:  # far from what there is (k-means++)
        far = np.maximum(1 - (vectors @ centres.T).max(axis=1), 1e-12) ** 2
        centres = np.concatenate([centres, vectors[[int(generator.choice(len(vectors), p=far / far.sum()))]]])
    topic = np.zeros(len(vectors), dtype=np.intp)
    for _ in range(_ROUNDS):
        topic = np.argmax(vectors @ centres.T, axis=1)
        sums = np.eye(count)[topic].T @ vectors
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(length > 0, sums / np.maximum(length, 1e-12), centres)
    return topic, centres

"""Paired comparisons: intervals that cover, formulas that agree with an independent computation."""

from __future__ import annotations

import numpy as np
import pytest

from ondol.base import errors
from ondol.evaluation import comparison


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        hard = generator.gamma(2.0, 1.0, 300)
        gain = generator.exponential(0.2, 300)  # skewed, mean 0.2
        found = comparison.paired_bootstrap(hard - gain, hard, metric="loss", resamples=500, seed=seed)
        covered += found.low <= 0.2 <= found.high
    assert 180 <= covered <= 199


def test_better_is_positive_whatever_the_metric() -> None:
    loss = comparison.paired_bootstrap([0.1, 0.2, 0.3], [0.2, 0.3, 0.5], metric="loss")
    accuracy = comparison.paired_bootstrap([1, 1, 0], [0, 1, 0], metric="accuracy", greater_is_better=True)
    assert loss.difference == pytest.approx(0.4 / 3)
    assert accuracy.difference == pytest.approx(1 / 3)
    assert loss.method == "paired bootstrap (bca), 2000 resamples, seed 0"


def test_the_same_seed_gives_the_same_interval_and_equal_models_give_zero() -> None:
    values = np.random.default_rng(2).random(1000)
    other = values + np.random.default_rng(3).normal(0, 0.1, 1000)
    first = comparison.paired_bootstrap(values, other, metric="loss", seed=5)
    assert first == comparison.paired_bootstrap(values, other, metric="loss", seed=5)
    same = comparison.paired_bootstrap(values, values, metric="loss")
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)


def test_few_values_and_many_values_take_the_same_road() -> None:
    """Zero-one losses are drawn by counts; a jitter too small to matter sends them down the general path."""
    generator = np.random.default_rng(4)
    ours, theirs = generator.integers(0, 2, 2000), generator.integers(0, 2, 2000)
    fast = comparison.paired_bootstrap(ours, theirs, metric="error", resamples=4000)
    slow = comparison.paired_bootstrap(ours + generator.random(2000) * 1e-9, theirs, metric="error", resamples=4000)
    assert fast.low == pytest.approx(slow.low, abs=0.003)
    assert fast.high == pytest.approx(slow.high, abs=0.003)


def test_clusters_widen_the_interval_of_samples_that_are_alike() -> None:
    generator = np.random.default_rng(5)
    days = np.repeat(np.arange(30), 100)
    difference = generator.normal(0, 0.1, 30)[days] + generator.normal(0, 0.1, 3000)
    alone = comparison.paired_bootstrap(difference, np.zeros(3000), metric="loss")
    grouped = comparison.paired_bootstrap(difference, np.zeros(3000), metric="loss", clusters=days)
    assert grouped.high - grouped.low > 5 * (alone.high - alone.low)
    assert "30 clusters" in grouped.method
    assert grouped.difference == pytest.approx(alone.difference)


def test_auc_agrees_with_counting_pairs_and_with_the_bootstrap() -> None:
    generator = np.random.default_rng(6)
    labels = (generator.random(600) < 0.3).astype(int)
    ours = np.round(labels + generator.normal(0, 1.0, 600), 1)  # rounded: ties
    theirs = np.round(labels + generator.normal(0, 1.6, 600), 1)
    found = comparison.paired_auc(labels, ours, theirs)

    def counted(scores: np.ndarray) -> float:
        ones, zeros = scores[labels == 1], scores[labels == 0]
        return float((ones[:, None] > zeros).mean() + 0.5 * (ones[:, None] == zeros).mean())

    assert found.candidate == pytest.approx(counted(ours))
    assert found.champion == pytest.approx(counted(theirs))
    differences = []
    for _ in range(300):
        drawn = generator.integers(0, 600, 600)
        kept = labels[drawn]
        if 0 < kept.sum() < 600:
            again = comparison.paired_auc(kept, ours[drawn], theirs[drawn])
            differences.append(again.difference)
    assert (found.high - found.low) / 3.92 == pytest.approx(float(np.std(differences)), rel=0.15)


def test_mcnemar_is_exact() -> None:
    found = comparison.mcnemar([True] * 8 + [False] * 2 + [True] * 90, [False] * 8 + [True] * 2 + [True] * 90)
    assert (found.only_candidate, found.only_champion) == (8, 2)
    assert found.p_value == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert comparison.mcnemar([True], [True]).p_value == 1.0


def test_what_can_be_seen_and_what_it_takes() -> None:
    differences = np.random.default_rng(7).normal(0, 1, 10_000)
    effect = comparison.minimum_detectable_effect(differences)
    assert effect == pytest.approx(0.028, abs=0.001)
    assert comparison.samples_needed(differences, effect) == pytest.approx(10_000, abs=2)


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [([1.0], [1.0, 2.0], "1 values"), ([], [], "shape"), ([1.0, float("nan")], [1.0, 1.0], "value 1 is nan")],
)
def test_what_cannot_be_compared_is_refused(ours: list[float], theirs: list[float], said: str) -> None:
    with pytest.raises(errors.InputError, match=said):
        comparison.paired_bootstrap(ours, theirs, metric="loss")
    with pytest.raises(errors.InputError, match="two samples of each"):
        comparison.paired_auc([1, 1, 0], [1, 2, 3], [1, 2, 3])

"""Gates: pure rules, three verdicts, the numbers always there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.gates import rules
from ondol.gates.rules import Rules, Threshold
from ondol.records.evaluation import Comparison, Score


def compared(low: float, high: float, n: int = 1000, metric: str = "log_loss") -> Comparison:
    middle = (low + high) / 2
    return Comparison(metric, 0.4 - middle, 0.4, middle, low, high, 0.95, n, "test")


@pytest.mark.parametrize(
    ("low", "high", "n", "wanted", "verdict"),
    [
        (0.01, 0.03, 1000, Rules(), "pass"),
        (-0.01, 0.03, 1000, Rules(), "not-enough-data"),
        (-0.01, 0.03, 1000, Rules(margin=0.02), "pass"),
        (-0.01, 0.03, 1000, Rules(margin=0.02, must_improve=True), "not-enough-data"),
        (-0.05, -0.03, 1000, Rules(margin=0.02), "fail"),
        (-0.05, -0.01, 1000, Rules(margin=0.02), "fail"),  # worse for sure, and not within the margin
        (-0.05, 0.01, 1000, Rules(margin=0.02), "not-enough-data"),
        (0.01, 0.03, 100, Rules(), "not-enough-data"),
        (0.0, 0.0, 1000, Rules(), "pass"),  # the same model again
        (0.0, 0.0, 1000, Rules(must_improve=True), "not-enough-data"),
    ],
)
def test_against_the_champion(low: float, high: float, n: int, wanted: Rules, verdict: str) -> None:
    result = rules.decide([compared(low, high, n)], [], wanted)
    assert result.verdict == verdict
    assert result.rules[0]["low"] == low
    assert "log_loss" in result.reason


def test_the_first_model_must_beat_the_base_rate() -> None:
    assert rules.decide([], [], baseline=compared(0.01, 0.1)).verdict == "pass"
    assert rules.decide([], [], baseline=compared(-0.01, 0.1)).verdict == "not-enough-data"
    assert rules.decide([], [], baseline=compared(-0.1, 0.01)).verdict == "fail"
    assert rules.decide([], []).verdict == "not-enough-data"


def test_absolute_thresholds_look_at_the_whole_and_not_at_a_slice() -> None:
    wanted = Rules(thresholds={"roc_auc": Threshold(at_least=0.7), "log_loss": Threshold(at_most=0.5)})
    scores = [Score("roc_auc", 0.1, 900, slice="carrier=UA"), Score("roc_auc", 0.75, 900), Score("log_loss", 0.6, 900)]
    result = rules.decide([], scores, wanted)
    assert result.verdict == "fail"
    assert result.reason == "log_loss is 0.6 (at most 0.5 is demanded, n=900)"
    assert [rule["verdict"] for rule in result.rules] == ["fail", "pass"]
    assert rules.decide([], scores[:2], wanted).verdict == "not-enough-data"


def test_a_slice_proven_worse_fails_and_a_small_one_does_not() -> None:
    good = [compared(0.01, 0.02)]
    worse = {"carrier=HA": compared(-0.2, -0.1), "carrier=UA": compared(-0.01, 0.02)}
    result = rules.decide(good, [], Rules(slice_margin=0.05), slices=worse)
    assert result.verdict == "fail"
    assert "carrier=HA" in result.reason
    small = {"carrier=HA": compared(-0.2, -0.1, n=50)}
    assert rules.decide(good, [], Rules(), slices=small).verdict == "pass"


def test_a_failed_data_check_fails_whatever_the_model() -> None:
    assert rules.decide([compared(0.1, 0.2)], [], data_check=False).verdict == "fail"
    assert rules.decide([compared(0.1, 0.2)], [], data_check=True).verdict == "pass"


def test_a_comparison_by_another_metric_does_not_count() -> None:
    result = rules.decide([compared(0.1, 0.2, metric="accuracy")], [])
    assert result.verdict == "not-enough-data"
    assert "'log_loss'" in result.reason


@given(st.floats(-1, 1), st.floats(0, 1), st.floats(0, 0.5), st.integers(1, 5000))
def test_a_better_candidate_is_never_judged_worse(low: float, width: float, margin: float, n: int) -> None:
    order = ["fail", "not-enough-data", "pass"]
    wanted = Rules(margin=margin)
    here = rules.decide([compared(low, low + width, n)], [], wanted).verdict
    better = rules.decide([compared(low + 0.1, low + 0.1 + width, n)], [], wanted).verdict
    assert order.index(better) >= order.index(here)

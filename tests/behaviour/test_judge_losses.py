"""What one answered request costs: every shape of prediction and label that doors and clients write."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.records import codec
from ondol.records.rollout import JudgePolicy, Observation
from ondol.rollout import losses


def loss(prediction: Any, label: Any, kind: str = "auto", **more: Any) -> float | None:
    policy = codec.typed({**codec.plain(JudgePolicy()), "quality_loss": kind, **more}, JudgePolicy)
    return losses.of(
        Observation(
            "r", 1.0, "s", "d", "stable", "u", 200, 1.0, prediction=json.dumps(prediction), label=json.dumps(label)
        ),
        policy,
    )


@pytest.mark.parametrize(
    ("prediction", "label", "kind", "expected"),
    [
        ([1], 1, "auto", 0.0),
        ([0], 1, "auto", 1.0),
        (["UA"], "UA", "auto", 0.0),
        (["UA"], "AA", "zero_one", 1.0),
        ([0.8], 1, "auto", 0.04),
        (0.8, 0, "brier", 0.64),
        ([[0.2, 0.8]], 1, "auto", 0.04),
        ([0.2, 0.8], 1, "auto", 0.04),
        ([[0.2, 0.3, 0.5]], 2, "auto", (0.04 + 0.09 + 0.25) / 2),
        ([[0.2, 0.8]], 0, "zero_one", 1.0),
        ([0.7], 1, "zero_one", 0.0),
        ([1, 0, 1], [1, 1, 1], "auto", 1 / 3),
        ([0.5, 0.9], [0, 1], "auto", (0.25 + 0.01) / 2),
        ({"predictions": [1]}, 1, "auto", 0.0),
        ([0.001], 0, "log_clipped", math.log(0.999) / math.log(0.001)),
        ([1.0], 0, "log_clipped", 1.0),
        ([12.5], 10, "absolute", 1.0),
        ([True], True, "auto", 0.0),
    ],
)
def test_losses(prediction: Any, label: Any, kind: str, expected: float) -> None:
    assert loss(prediction, label, kind) == pytest.approx(expected)


def test_an_absolute_error_is_measured_in_the_unit_that_counts_as_one() -> None:
    assert loss([12.5], 10, "absolute", quality_scale=10.0) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("prediction", "label"),
    [
        ([1, 0], 1),
        ([1], [1, 0]),
        ({"answer": "네"}, 1),
        (None, 1),
        ([[0.2, 0.9]], 1),
        ([[0.2, 0.8]], 5),
        ([], []),
        ([12.5], 10),
        ([10.0], 9.5),
        ([0.7], "yes"),
    ],
)
def test_what_does_not_fit_is_no_loss_at_all(prediction: Any, label: Any) -> None:
    assert loss(prediction, label) is None


def test_a_score_counts_without_a_label() -> None:
    one = Observation("r", 1.0, "s", "d", "stable", "u", 200, 1.0, signals={"quality": 0.75})
    assert losses.of(one, JudgePolicy()) == 0.25


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)


@given(values, values, st.sampled_from(["auto", "zero_one", "brier", "absolute", "log_clipped"]))
def test_nothing_a_client_posts_breaks_the_judge(prediction: Any, label: Any, kind: str) -> None:
    found = loss(prediction, label, kind)
    assert found is None or 0 <= found <= 1


@given(st.text(max_size=20), st.text(max_size=20))
def test_nor_does_text_that_is_not_json(prediction: str, label: str) -> None:
    one = Observation("r", 1.0, "s", "d", "stable", "u", 200, 1.0, prediction=prediction, label=label)
    found = losses.of(one, JudgePolicy())
    assert found is None or 0 <= found <= 1

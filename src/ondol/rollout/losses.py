"""The loss of one answered request against its ground truth, in [0, 1]; 1 is as wrong as it gets.

Must not raise on what a model answered or a client posted as a label: what cannot be scored is None, and counted.
"""

from __future__ import annotations

import json
import math
from typing import Any

from ondol.records.rollout import JudgePolicy, Observation

_LOG_FLOOR = 1e-3  # probabilities below this cost as much as this one: the log loss must be bounded


def of(observation: Observation, policy: JudgePolicy) -> float | None:
    """Return the loss of an observation: from feedback, its `quality` signal, or prediction and label.

    Feedback is a label like `{"score": 0.8}`, and a `quality` signal a number: both from 0 (wrong) to 1 (right).

    A prediction is a label, a probability of class 1, a list of class probabilities, or a list of those (then the
    label is a list as long, and the loss is their mean).
    """
    scored = _feedback(observation.label)
    if scored is not None:
        return scored
    score = observation.signals.get("quality")
    if isinstance(score, (int, float)) and not isinstance(score, bool) and math.isfinite(score):
        return min(max(1.0 - float(score), 0.0), 1.0)
    if not observation.label or not observation.prediction:
        return None
    try:
        prediction, label = json.loads(observation.prediction), json.loads(observation.label)
    except ValueError:
        return None
    if isinstance(prediction, dict):
        prediction = prediction.get("predictions")
    return _of_values(prediction, label, policy)


def _feedback(label: str) -> float | None:
    """Return the loss of a label that says how right the answer was, whatever the answer."""
    if not label.startswith("{"):
        return None
    try:
        score = json.loads(label).get("score")
    except ValueError:
        return None
    return min(max(1.0 - float(score), 0.0), 1.0) if _is_number(score) and not isinstance(score, bool) else None


def _of_values(prediction: Any, label: Any, policy: JudgePolicy) -> float | None:
    if isinstance(label, list):
        if not isinstance(prediction, list) or len(prediction) != len(label) or not label:
            return None
        losses = [_of_one(one, truth, policy) for one, truth in zip(prediction, label, strict=True)]
        known = [loss for loss in losses if loss is not None]
        return sum(known) / len(known) if len(known) == len(losses) else None
    if isinstance(prediction, list) and len(prediction) == 1:
        prediction = prediction[0]
    return _of_one(prediction, label, policy)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_fraction(value: Any) -> bool:
    return isinstance(value, float) and not value.is_integer()


def _of_one(prediction: Any, label: Any, policy: JudgePolicy) -> float | None:
    kind = policy.quality_loss
    if isinstance(prediction, list):
        return _of_distribution(prediction, label, kind)
    if kind == "auto":
        probability = isinstance(prediction, float) and 0 <= prediction <= 1 and not prediction.is_integer()
        kind = "brier" if probability and label in (0, 1) else "zero_one"
        if kind == "zero_one" and (_is_fraction(prediction) or _is_fraction(label)):
            return None  # a quantity: never exactly right, so every model would be as wrong as any other
    if kind == "zero_one":
        if isinstance(prediction, float) and not prediction.is_integer() and label in (0, 1):
            prediction = int(prediction >= 0.5)
        return None if isinstance(prediction, dict) or prediction is None else float(prediction != label)
    if not (_is_number(prediction) and _is_number(label)):
        return None
    if kind == "absolute":
        return float(min(abs(prediction - label) / policy.quality_scale, 1.0))
    if not 0 <= prediction <= 1 or label not in (0, 1):
        return None
    return _brier_or_log(prediction if label else 1 - prediction, kind)


def _brier_or_log(truth_probability: float, kind: str) -> float:
    if kind == "log_clipped":
        return math.log(max(truth_probability, _LOG_FLOOR)) / math.log(_LOG_FLOOR)
    return (1 - truth_probability) ** 2


def _of_distribution(probabilities: list[Any], label: Any, kind: str) -> float | None:
    """Return the loss of class probabilities when the label is the index of a class."""
    if not any(isinstance(p, float) for p in probabilities):
        return None  # labels of several rows, and only one truth
    if not all(_is_number(p) for p in probabilities) or not math.isclose(sum(probabilities), 1.0, abs_tol=1e-3):
        return None
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if not isinstance(label, int) or not 0 <= label < len(probabilities):
        return None
    if kind == "zero_one":
        return float(max(range(len(probabilities)), key=probabilities.__getitem__) != label)
    if kind == "absolute":
        return float(min(max(1 - probabilities[label], 0.0), 1.0))
    if kind == "log_clipped":
        return _brier_or_log(probabilities[label], kind)
    # Halved, so that two classes give the same as the probability of one of them, and the worst is 1.
    return float(sum((p - (index == label)) ** 2 for index, p in enumerate(probabilities)) / 2)

"""Copies of requests for a candidate that answers for the record only, and what its answers differ in.

A copy is made after the caller has his answer. It waits in the candidate's own queue, which is short: what does not fit
is dropped and counted. Must not delay, change or fail what is served.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from ondol.api.kserve import answers
from ondol.base import errors
from ondol.records.rollout import Observation, Route
from ondol.serving.batching import Job
from ondol.serving.models import Model
from ondol.serving.request_log import RequestLog
from ondol.serving.rows import Rows

_encode = msgspec.json.Encoder().encode

WAITING_ROWS = 256
"""Rows of copies that may wait for a candidate; a copy that would make it more is dropped."""

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Original:
    """A request that was answered, and how."""

    id: str
    unit: str
    rows: Rows
    probabilities: bool
    status: int
    predictions: list[Any]
    milliseconds: float
    """From the queue to the predictions."""


class Mirror:
    """Sends copies to candidates and logs what came of them."""

    def __init__(self, request_log: RequestLog) -> None:
        self._log = request_log
        self.dropped = 0
        """Copies that were not made because the candidate was behind."""

    def takes(self, route: Route) -> bool:
        """Return whether this request is one of those that are copied."""
        return bool(route.mirror) and (route.mirror >= 100 or random.random() * 100 < route.mirror)

    def copy(self, original: Original, route: Route, candidate: Model) -> None:
        """Queue a copy, or drop it; returns at once and never raises."""
        if not self.takes(route):
            return
        if candidate.batcher.waiting_rows + len(original.rows) > WAITING_ROWS:
            self.dropped += 1
            return
        began = time.perf_counter()

        def done(predictions: list[Any] | None, error: Exception | None) -> None:
            milliseconds = (time.perf_counter() - began) * 1000
            self._log.append(observation(original, route, candidate, predictions, error, milliseconds))

        probabilities = original.probabilities and candidate.probabilities
        try:
            candidate.batcher.submit(Job(original.rows, probabilities, time.monotonic() + TIMEOUT_SECONDS, done))
        except errors.RefusedError:
            self.dropped += 1


def observation(
    original: Original, route: Route, candidate: Model, predictions: list[Any] | None, error: Exception | None,
    milliseconds: float,
) -> Observation:  # fmt: skip
    """Return the record of a copy: how the candidate answered, and how that differs from the answer that was given."""
    status = answers.status_of_failure(error)
    signals: dict[str, float] = {"primary_status": float(original.status)}
    if error is None and predictions is not None and original.status == 200:
        signals |= compare(original.predictions, predictions)
        signals["latency_ratio"] = milliseconds / max(original.milliseconds, 1e-3)
    return Observation(
        original.id, time.time(), route.service, candidate.digest, route.candidate_name, original.unit, status,
        milliseconds, route.rollout, prediction=_encode(predictions).decode() if status == 200 else "",
        weight=route.weight, signals=signals, shadow=True,
    )  # fmt: skip


def compare(mine: list[Any], theirs: list[Any]) -> dict[str, float]:
    """Return how two answers to the same rows differ, each number a mean over rows.

    `disagreement`: share of rows with another label (of probabilities: another most probable class; of one
    probability: the other side of 0.5). `probability_difference`: |difference|, of probabilities only.
    """
    if len(mine) != len(theirs):
        return {"disagreement": 1.0}
    pairs = list(zip(mine, theirs, strict=True))
    found = {"disagreement": sum(_label(one) != _label(other) for one, other in pairs) / len(pairs)}
    gaps = [gap for one, other in pairs if (gap := _gap(one, other)) is not None]
    if gaps:
        found["probability_difference"] = sum(gaps) / len(gaps)
    return found


def _is_probability(value: Any) -> bool:
    return isinstance(value, float) and 0.0 <= value <= 1.0 and not value.is_integer()


def _label(value: Any) -> Any:
    if isinstance(value, list) and value and all(isinstance(one, float) for one in value):
        return max(range(len(value)), key=value.__getitem__)
    return value >= 0.5 if _is_probability(value) else value


def _gap(one: Any, other: Any) -> float | None:
    """Return the largest difference between two probabilities or distributions; None when they are neither."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        gaps = [gap for a, b in zip(one, other, strict=True) if (gap := _gap(a, b)) is not None]
        return max(gaps, default=None)
    if isinstance(one, float) and isinstance(other, float) and (_is_probability(one) or _is_probability(other)):
        return abs(one - other)
    return None

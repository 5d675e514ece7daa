"""The injection and jailbreak classifier: a linear model over `features`, shipped weights, about a millisecond a text.

Trained by `tools/train_guard.py`; `weights/injection.json` is its model card (data, thresholds, measured quality).
A long text is also scored window by window, so that an instruction hidden in a document is seen. Must not import a
machine-learning library.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ondol.base import hashing
from ondol.guardrails import features, normalize
from ondol.guardrails.decision import Span, Verdict, is_korean
from ondol.guardrails.features import Features

WINDOW, STRIDE = 280, 140
LONG = 420
"""Characters from which on a text is a document: it is scored in windows, against the document threshold."""


@dataclass(frozen=True, slots=True)
class Model:
    """Weights with their card."""

    hashed: NDArray[np.float32]
    concepts: NDArray[np.float32]
    bias: float
    card: dict[str, Any]
    digest: str

    def threshold(self, name: str) -> float:
        return float(self.card["thresholds"][name])


@cache
def load() -> Model:
    """Read the shipped weights, once."""
    folder = resources.files("ondol.guardrails") / "weights"
    raw = (folder / "injection.bin").read_bytes()
    card_text = (folder / "injection.json").read_bytes()
    card = json.loads(card_text)
    values = np.frombuffer(raw, dtype=np.int8).astype(np.float32) * np.float32(card["scale"])
    concepts = np.array(card["concepts"], dtype=np.float32)
    return Model(values, concepts, float(card["bias"]), card, hashing.of_bytes(raw + card_text))


def _probability(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, value))))


def score_features(found: Features, model: Model) -> float:
    """Return the probability that a text, taken as one piece, is an attack."""
    total = float(model.hashed[found.index].sum()) / math.sqrt(max(1, len(found.index)))
    total += sum(float(model.concepts[index]) for index in features.concept_features(found.hits))
    return _probability(total + model.bias)


def _windows(found: Features, model: Model) -> tuple[float, int]:
    """The highest window's probability and where it starts."""
    weights = np.bincount(found.place, weights=model.hashed[found.index], minlength=found.length + 1)
    counts = np.bincount(found.place, minlength=found.length + 1)
    sums = np.concatenate(([0.0], np.cumsum(weights)))
    numbers = np.concatenate(([0], np.cumsum(counts)))
    best, where = -1e9, 0
    for start in range(0, max(1, found.length - STRIDE), STRIDE):
        end = min(found.length, start + WINDOW)
        value = (sums[end] - sums[start]) / math.sqrt(max(1, numbers[end] - numbers[start]))
        value += sum(float(model.concepts[index]) for index in features.concept_features(found.hits, start, end))
        if value > best:
            best, where = float(value), start
    return _probability(best + model.bias), where


def score(plain: str) -> tuple[float, str, int, int]:
    """Return the highest probability, `chat` or `document`, and the window it stands for, in the plain text."""
    model = load()
    found = features.extract(plain)
    if len(plain) < LONG:
        return score_features(found, model), "chat", 0, len(plain)
    probability, start = _windows(found, model)
    return probability, "document", start, min(len(plain), start + WINDOW)


def check(text: str, plain: str = "", thresholds: dict[str, float] | None = None, document: bool = False) -> Verdict:
    """Block an attempt to overrule the instructions, to pull them out, or to unbind the model.

    :param plain: `normalize.plain(text)` when the caller has it already.
    :param thresholds: `injection` and `injection_document`, instead of the model card's.
    :param document: the text was retrieved, not typed: always judged by the document threshold.
    """
    thresholds = thresholds or {}
    plain = plain or normalize.plain(text)
    worst, span_text, hidden = 0.0, "", False
    verdict_threshold = 1.0
    for index, piece in enumerate([plain, *normalize.decoded(text)]):
        probability, kind, start, end = score(piece)
        name = "injection_document" if document or kind == "document" else "injection"
        threshold = thresholds.get(name, load().threshold(name))
        if index == 0:
            verdict_threshold = threshold
        if probability - threshold > worst - verdict_threshold or index == 0:
            worst, verdict_threshold, span_text, hidden = probability, threshold, piece[start:end], index > 0
    if worst < verdict_threshold:
        return Verdict("pass", "", worst)
    quoted = span_text if len(span_text) <= 80 else span_text[:77] + "..."
    if is_korean(text):
        reason = (
            "숨겨진(인코딩된) " if hidden else ""
        ) + f"지시를 무시하게 하거나 제한을 풀려는 시도로 보입니다: “{quoted}”"
    else:
        reason = ("encoded " if hidden else "") + f"attempt to overrule or extract instructions: “{quoted}”"
    start = text.lower().find(span_text)
    spans = (Span(start, start + len(span_text), "injection", worst),) if start >= 0 and span_text else ()
    return Verdict("block", f"{reason} ({worst:.2f} ≥ {verdict_threshold:.2f})", worst, spans)

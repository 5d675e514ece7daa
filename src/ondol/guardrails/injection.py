"""The injection and jailbreak classifier: a linear model over `features`, shipped weights, about a millisecond a text.

Trained by `tools/train_guard.py`; `weights/injection.json` is its model card (data, thresholds, measured quality).
A long text is scored sentence by sentence, so that an instruction hidden in a document is seen. Must not import a
machine-learning library.
"""

from __future__ import annotations

import bisect
import json
import math
import re
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

LONG = 420
"""Characters from which on a text is a document: it is scored sentence by sentence, by the document threshold."""

_PIECE = 220  # a sentence longer than this is cut, so that an attack cannot hide in one
_SENTENCE_END = re.compile(r"(?<=[.!?。:;>\])])\s|(?<=다)\s(?=[가-힣])")


@dataclass(frozen=True, slots=True)
class Model:
    """Weights with their card."""

    hashed: NDArray[np.float32]
    concepts: tuple[float, ...]
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
    return Model(values, tuple(card["concepts"]), float(card["bias"]), card, hashing.of_bytes(raw + card_text))


def _probability(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, value))))


def _concept_sum(present: set[int], model: Model) -> float:
    return sum(map(model.concepts.__getitem__, features.concept_features(present))) if present else 0.0


def score_features(found: Features, model: Model) -> float:
    """Return the probability that a text, taken as one piece, is an attack."""
    total = float(model.hashed[found.index].sum()) / math.sqrt(max(1, len(found.index)))
    return _probability(total + _concept_sum({concept for concept, _ in found.hits}, model) + model.bias)


def pieces(plain: str) -> list[int]:
    """Return where the sentences of a text begin, in the text padded by one space, and its end."""
    cuts = [0, *(match.end() for match in _SENTENCE_END.finditer(plain)), len(plain) + 2]
    made = [0]
    for cut in cuts[1:]:
        while cut - made[-1] > _PIECE:
            made.append(made[-1] + _PIECE)
        if cut - made[-1] >= 24 or cut == cuts[-1]:
            made.append(cut)
    return made


def _parts(found: Features, plain: str, model: Model) -> tuple[float, int, int]:
    """The highest probability of a sentence or two neighbours, and where it is."""
    cuts = np.array(pieces(plain))
    number = np.clip(np.searchsorted(cuts, found.place, side="right") - 1, 0, len(cuts) - 2)
    sums = np.bincount(number, weights=model.hashed[found.index], minlength=len(cuts) - 1).tolist()
    counts = np.bincount(number, minlength=len(cuts) - 1).tolist()
    concepts: list[set[int]] = [set() for _ in sums]
    ends = cuts.tolist()
    for concept, place in found.hits:
        concepts[bisect.bisect_right(ends, place) - 1].add(concept)
    alone = [_concept_sum(present, model) for present in concepts]
    best, start, end = -1e9, 0, len(plain)
    for first, total in enumerate(sums):
        value = total / math.sqrt(max(1, counts[first])) + alone[first]
        if value > best:
            best, start, end = value, ends[first], ends[first + 1]
        if first + 1 < len(sums):
            value = (total + sums[first + 1]) / math.sqrt(max(1, counts[first] + counts[first + 1]))
            left, right = concepts[first], concepts[first + 1]
            both = _concept_sum(left | right, model) if left and right else alone[first] + alone[first + 1]
            if value + both > best:
                best, start, end = value + both, ends[first], ends[first + 2]
    return _probability(best + model.bias), max(0, start - 1), min(len(plain), end - 1)


def score(plain: str) -> tuple[float, str, int, int]:
    """Return the highest probability, `chat` or `document`, and the part it stands for, in the plain text."""
    model = load()
    found = features.extract(plain)
    if len(plain) < LONG:
        return score_features(found, model), "chat", 0, len(plain)
    probability, start, end = _parts(found, plain, model)
    return probability, "document", start, end


def _threshold(chosen: dict[str, float], document: bool) -> float:
    """The project's threshold, else the model card's."""
    if document:
        return chosen.get("injection_document", load().threshold("injection_document"))
    return chosen.get("injection", load().threshold("injection"))


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
        threshold = _threshold(thresholds, document or kind == "document")
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

"""Metrics of answers without a language model: deterministic, Korean and English alike.

They measure overlap of characters and words, or cosines when an embedder is given. That is a proxy: it tells whether an
answer's words stand in the context, not whether the context entails it. What it cannot see (a negation, a swapped name)
a judge must; never gate on `faithfulness` from here alone (measured in docs/benchmarks.md).

Must not call a model or do I/O.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from ondol.base import text
from ondol.records.evaluation import EvalSample, MetricValue

Cosine = Callable[[str, str], float]

SUPPORTED = 0.6
"""Share of a sentence that must stand in one context for the sentence to count as supported. Of character pairs, on
short answers against their passage, this separates with AUC 0.95 (English) and 0.97 (Korean)."""

RELEVANT = 0.45
"""Share of the reference's character pairs that a context must hold to count as useful."""

_CITATION = re.compile(r"\s*\[\d+(?:\s*,\s*\d+)*\]")
_NONCOMMITTAL = re.compile(
    r"찾을 수 없|알 수 없|모르겠|확인할 수 없|나와 있지 않|답변할 수 없|제공되지 않"
    r"|could(?:n't| not) find|(?:do|does) ?n[o']t (?:know|say|contain|mention)|not (?:mentioned|provided|available) in"
    r"|cannot (?:answer|be found)|no information|I(?:'m| am) not sure|unable to (?:find|answer)",
    re.IGNORECASE,
)


def is_noncommittal(answer: str) -> bool:
    """Tell whether an answer says that it does not know (or says nothing at all)."""
    return not answer.strip() or (bool(_NONCOMMITTAL.search(answer)) and len(answer) < 400)


def _pairs(value: str) -> Counter[str]:
    folded = unicodedata.normalize("NFKC", value).casefold()
    runs = re.findall(r"\w+", folded)
    pairs: Counter[str] = Counter()
    for run in runs:
        pairs.update([run] if len(run) == 1 else (run[i : i + 2] for i in range(len(run) - 1)))
    return pairs


def coverage(claim: str, evidence: str) -> float:
    """Return the share of the claim's character pairs that the evidence has too, in [0, 1]; 1 for an empty claim."""
    claimed = _pairs(claim)
    total = sum(claimed.values())
    if not total:
        return 1.0
    known = _pairs(evidence)
    return sum(count for pair, count in claimed.items() if pair in known) / total


def support(claim: str, evidence: str) -> float:
    """Return how much of a claim stands in the evidence: the smaller of its character pairs' and its own words' share.

    Pairs forgive inflection; words keep a sentence from passing on "the" and "is" alone.
    """
    own = text.subject_words(claim)
    known = set(text.words(evidence))
    worded = sum(word in known for word in own) / len(own) if own else 1.0
    return min(coverage(claim, evidence), worded)


def _claims(answer: str) -> list[str]:
    bare = _CITATION.sub("", answer)
    return [bare[start:end] for start, end in text.sentences(bare)]


def faithfulness(sample: EvalSample) -> MetricValue:
    """Share of the answer's sentences whose words stand in one of the contexts."""
    name = "faithfulness"
    claims = [] if is_noncommittal(sample.answer) else _claims(sample.answer)
    if not claims:
        return MetricValue(name, None, "the answer claims nothing")
    if not sample.contexts:
        return MetricValue(name, 0.0, f"{len(claims)} claims and no context")
    best = [max(support(claim, context) for context in sample.contexts) for claim in claims]
    unsupported = [claim for claim, value in zip(claims, best, strict=True) if value < SUPPORTED]
    value = 1 - len(unsupported) / len(claims)
    reason = f"{len(claims) - len(unsupported)} of {len(claims)} sentences stand in the context"
    return MetricValue(name, value, reason + (f"; not: {unsupported[0][:80]!r}" if unsupported else ""))


def answer_relevancy(sample: EvalSample, cosine: Cosine | None = None) -> MetricValue:
    """How much the answer is about the question: a cosine, or the share of the question's subject it takes up."""
    name = "answer_relevancy"
    if is_noncommittal(sample.answer):
        return MetricValue(name, 0.0, "the answer is noncommittal")
    if cosine is not None:
        value = cosine(sample.question, _CITATION.sub("", sample.answer))
        return MetricValue(name, min(1.0, max(0.0, value)), "cosine of question and answer")
    subject = text.subject_words(sample.question)
    said = set(text.words(sample.answer))
    value = sum(word in said for word in subject) / len(subject) if subject else 0.0
    return MetricValue(name, value, f"{value:.0%} of the question's subject words are in the answer")


def _useful(sample: EvalSample) -> tuple[list[bool], str]:
    """Return which contexts help, and how that was decided."""
    if sample.gold and len(sample.documents) == len(sample.contexts):
        pairs = zip(sample.documents, sample.contexts, strict=True)
        return [
            any(matches(one, *pair) for group in sample.gold for one in group) for pair in pairs
        ], "by gold document"
    return [
        coverage(sample.ground_truth, context) >= RELEVANT for context in sample.contexts
    ], "by overlap with the reference"


def matches(gold: str, document: str, context: str = "") -> bool:
    """Tell whether a retrieved text is a gold one: `a.md`, or `a.md#text` when the text must be in it too."""
    path, _, needed = gold.partition("#")
    same = document == path or document.endswith("/" + path)
    return same and (not needed or needed.casefold() in context.casefold())


def context_precision(sample: EvalSample) -> MetricValue:
    """Average precision of the useful contexts in the order they were retrieved."""
    name = "context_precision"
    if not sample.ground_truth and not sample.gold:
        return MetricValue(name, None, "no reference to judge the contexts by")
    if not sample.contexts:
        return MetricValue(name, 0.0, "nothing was retrieved")
    useful, how = _useful(sample)
    return MetricValue(name, average_precision(useful), f"{sum(useful)} of {len(useful)} contexts useful, {how}")


def average_precision(useful: Sequence[bool]) -> float:
    """Return the mean of precision@k over the ranks k of useful items; 0 when none is."""
    hits, total = 0, 0.0
    for rank, one in enumerate(useful, 1):
        if one:
            hits += 1
            total += hits / rank
    return total / hits if hits else 0.0


def context_recall(sample: EvalSample) -> MetricValue:
    """Share of the reference's sentences whose words stand in the contexts taken together."""
    name = "context_recall"
    claims = _claims(sample.ground_truth)
    if not claims:
        return MetricValue(name, None, "no reference answer")
    together = "\n".join(sample.contexts)
    found = [claim for claim in claims if sample.contexts and support(claim, together) >= SUPPORTED]
    return MetricValue(name, len(found) / len(claims), f"{len(found)} of {len(claims)} reference sentences retrieved")


def answer_correctness(sample: EvalSample) -> MetricValue:
    """Agreement with the reference: 1 when a short reference stands in the answer, else the words' F2.

    F2 weighs finding the reference's words over saying nothing else. A question without an answer is right when the
    answer says so, and wrong when it does not; the other way round for answerable ones.
    """
    name = "answer_correctness"
    abstained = is_noncommittal(sample.answer)
    if not sample.answerable:
        return MetricValue(
            name, float(abstained), "rightly found nothing" if abstained else "answered the unanswerable"
        )
    if not sample.ground_truth:
        return MetricValue(name, None, "no reference answer")
    if abstained:
        return MetricValue(name, 0.0, "found nothing although there is an answer")
    values = [_agreement(one, sample.answer) for one in (sample.ground_truth, *sample.alternatives)]
    value, reason = max(values)
    return MetricValue(name, value, reason)


def _agreement(reference: str, answer: str) -> tuple[float, str]:
    expected, said = Counter(text.words(reference)), Counter(text.words(answer))
    common = sum((expected & said).values())
    if len(expected) <= 6 and common == sum(expected.values()):
        return 1.0, "the reference stands in the answer"
    precision, recall = common / max(1, sum(said.values())), common / max(1, sum(expected.values()))
    value = 5 * precision * recall / (4 * precision + recall) if common else 0.0
    return value, f"{recall:.0%} of the reference's words, {precision:.0%} of the answer's"


def refusal(sample: EvalSample) -> MetricValue:
    """1 when the answer abstains exactly if the question has no answer."""
    abstained = is_noncommittal(sample.answer)
    return MetricValue(
        "refusal", float(abstained != sample.answerable), "found nothing" if abstained else "gave an answer"
    )

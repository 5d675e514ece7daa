"""The extractive reader: answers with sentences of the passages it is given, or says that it found nothing.

It is no language model and never poses as one: every character of an answer stands in a document, with its place. It is
deterministic. Must not retrieve: passages, and optionally a measure of similarity, are given to it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ondol.base import text

LABEL = "extractive"
NOT_FOUND = {"ko": "정보를 찾을 수 없습니다.", "en": "I could not find this in the documents."}
DEFAULT_THRESHOLD = 0.5
Similarity = Callable[[str, Sequence[str]], Sequence[float]]
"""Cosines of a question and passages, in [-1, 1]; an empty answer when there are no vectors."""

_PASSAGES = 5  # passages read
_COMPARED = 12  # sentences whose similarity is asked for: the embedding model is the slow part
_LIST = 12  # items of a list that follow the sentence that introduces it
_LISTED = ("- ", "* ", "+ ", "| ", "1. ", "2. ", "3. ", "4. ", "5. ", "6. ", "7. ", "8. ", "9. ")
_LONGEST = 1200  # characters of one sentence or code block in an answer


class Passage(Protocol):
    """What the reader needs of a search hit."""

    @property
    def chunk_id(self) -> str: ...
    @property
    def document(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def page(self) -> int: ...
    @property
    def score(self) -> float: ...
    @property
    def dense(self) -> float: ...
    @property
    def coverage(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a part of an answer stands."""

    document: str
    title: str
    """Document title and headings."""

    start: int
    end: int
    """Characters of the document's normalised text; the quote is exactly these."""

    quote: str
    chunk_id: str
    page: int = 0


@dataclass(frozen=True, slots=True)
class ExtractiveAnswer:
    """What the reader says."""

    text: str
    citations: tuple[Citation, ...]
    found: bool
    score: float
    """Estimated probability that the passages answer the question; below the threshold nothing is said."""

    label: str = LABEL


@dataclass(frozen=True, slots=True)
class _Sentence:
    passage: int
    position: int
    """Among the sentences of its passage."""

    start: int
    end: int
    text: str
    overlap: float = 0.0
    """Share of the question's weighted subject words."""

    cue: float = 0.0
    """1 when it has what the question asks for: a number, a date, a command, a reason."""

    similarity: float = 0.0


_CODE = re.compile(r"```|~~~|`[^`\n]+`")
_ASKS_HOW = re.compile(r"\bcommand\b|\bhow (do|can|to|should)\b|명령|어떻게|방법|하려면", re.I)
_ASKED = (
    (
        r"\b(when|what (time|year|day|date)|since)\b|언제|몇\s*(시|년|월|일)|무슨 요일",
        r"\d|day\b|month|January|February|March|April|May|June|July|August|September|October|November|December|요일",
    ),
    (
        r"\bhow (many|much|long|often|old|far|large|big|wide|high|fast|early)\b|얼마|몇|며칠|주기|percent|share",
        r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|twelve|hundred|thousand|million|half)\b|하루|이틀|사흘",
    ),
    (r"\bwhy\b|\breason|왜|이유|까닭", r"because|since|due to|so that|after|때문|므로|니까|위해|으로|뒤로"),
    (r"\bwho\b|\bwhose\b|누구|누가", r"(?<!^)(?<![.!?] )\b[A-Z][a-z]+|님|팀|씨|위원|장이|장은|장에게|자가|자는"),
    (r"\bwhere\b|어디", r"\b(in|at|on|to|under|below|near)\b|에|에서|으로|아래"),
)
_CUES = (*((re.compile(asking, re.I), re.compile(answering)) for asking, answering in _ASKED), (_ASKS_HOW, _CODE))


def answer(
    question: str,
    hits: Sequence[Passage],
    threshold: float = DEFAULT_THRESHOLD,
    *,
    similarity: Similarity | None = None,
    sentences: int = 2,
) -> ExtractiveAnswer:
    """Answer a question from passages, best passage first.

    :param threshold: least estimated probability with which something is said.
    :param similarity: usually `Index.similarities`; without it only words are compared.
    :param sentences: how many sentences an answer may join.
    """
    ranked = rank(question, hits, similarity)
    if not ranked:
        return _nothing(question, 0.0)
    score = confidence(hits, ranked)
    if score < threshold:
        return _nothing(question, score)
    chosen = _choose(question, hits, ranked, sentences)
    citations = tuple(_citation(hits[item.passage], item) for item in chosen)
    return ExtractiveAnswer(_join(chosen), citations, True, round(score, 4))


def _nothing(question: str, score: float) -> ExtractiveAnswer:
    return ExtractiveAnswer(NOT_FOUND[text.language(question)], (), False, round(score, 4))


def _candidates(question: str, hits: Sequence[Passage]) -> list[_Sentence]:
    found: list[_Sentence] = []
    for number, hit in enumerate(hits):
        for position, (start, end) in enumerate(text.sentences(hit.text)):
            found.append(
                _Sentence(
                    number,
                    position,
                    start,
                    min(end, start + _LONGEST),
                    hit.text[start : start + min(end - start, _LONGEST)],
                )
            )
    wanted = text.subject_words(question)
    having = [set(text.words(item.text)) for item in found]
    # A word that few of the sentences have says more: the IDF of these passages, not of the language.
    weights = {word: math.log(1 + len(found) / (1 + sum(word in words for words in having))) for word in wanted}
    mass = sum(weights.values()) or 1.0
    cues = [answering for asking, answering in _CUES if asking.search(question)]
    return [
        replace(
            item,
            overlap=sum(weight for word, weight in weights.items() if word in words) / mass,
            cue=float(bool(cues) and any(cue.search(item.text) for cue in cues)),
        )
        for item, words in zip(found, having, strict=True)
    ]


def rank(question: str, hits: Sequence[Passage], similarity: Similarity | None = None) -> list[tuple[float, _Sentence]]:
    """Return the sentences of the passages with their scores, best first; ties by place."""
    candidates = _candidates(question, hits[:_PASSAGES])
    same = text.language(question)

    def prior(item: _Sentence) -> float:
        hit = hits[item.passage]
        own_language = 0.05 if text.language(item.text) == same else 0.0
        return 0.6 * item.overlap + 0.2 * item.cue + 0.8 * max(0.0, hit.dense) + 0.2 * hit.coverage + own_language

    shortlist = sorted(candidates, key=lambda item: (-prior(item), item.passage, item.position))[:_COMPARED]
    cosines = list(similarity(question, [item.text for item in shortlist])) if similarity else []
    if cosines:
        shortlist = [replace(item, similarity=cosine) for item, cosine in zip(shortlist, cosines, strict=True)]
    scored = [(prior(item) + item.similarity, item) for item in shortlist]
    return sorted(scored, key=lambda pair: (-pair[0], pair[1].passage, pair[1].position))


def features(hits: Sequence[Passage], ranked: Sequence[tuple[float, _Sentence]]) -> tuple[float, ...]:
    """Return what the confidence is computed from, each about 0 when nothing answers.

    Levels of similarity differ between collections, so two of the four are gaps: how much nearer the best passage and
    the best sentence are than their rivals. The passage gap leaves out the second best, which may be a translation.
    """
    dense = sorted((hit.dense for hit in hits[:_PASSAGES]), reverse=True)
    near = sorted((item.similarity for _, item in ranked), reverse=True)
    return (
        max(hit.coverage for hit in hits[:_PASSAGES]),
        max(item.overlap * max(0.0, item.similarity) for _, item in ranked),
        dense[0] - _mean(dense[2:]),
        near[0] - _mean(near[1:]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else _BACKGROUND


# Fitted by tools/fit_confidence.py on tools/calibration.tsv. Without vectors the last three are 0 or absent, and only
# words are left to judge by.
_BACKGROUND = 0.3  # similarity of passages on the same subject, where there are no rivals to compare with
_BIAS, _WEIGHTS = -2.61, (1.12, 5.27, 0.38, 5.95)
_WORDS_BIAS, _WORDS_WEIGHTS = -1.85, (1.53, 3.7)


def confidence(hits: Sequence[Passage], ranked: Sequence[tuple[float, _Sentence]]) -> float:
    """Return the estimated probability that the passages answer, by logistic regression."""
    if any(item.similarity for _, item in ranked):
        return _logistic(_BIAS, _WEIGHTS, features(hits, ranked))
    words = (max(hit.coverage for hit in hits[:_PASSAGES]), max(item.overlap for _, item in ranked))
    return _logistic(_WORDS_BIAS, _WORDS_WEIGHTS, words)


def _logistic(bias: float, weights: Sequence[float], values: Sequence[float]) -> float:
    return 1.0 / (1.0 + math.exp(-(bias + sum(weight * value for weight, value in zip(weights, values, strict=True)))))


def _choose(
    question: str, hits: Sequence[Passage], ranked: Sequence[tuple[float, _Sentence]], limit: int
) -> list[_Sentence]:
    """Return the sentences of the answer in reading order; what introduces code or a list takes it along."""
    best_score, best = ranked[0]
    language = text.language(best.text)
    chosen = {(best.passage, best.position): best}
    for score, item in ranked[1:]:
        same = item.passage == best.passage
        # A translation of the best sentence scores as well as it does and says nothing new.
        near = score >= (0.8 if same else 0.9) * best_score and (same or text.language(item.text) == language)
        if len(chosen) < limit and near:
            chosen[item.passage, item.position] = item
    for item in list(chosen.values()):
        passage = hits[item.passage].text
        for follower in _led_to(question, passage, text.sentences(passage), item):
            chosen.setdefault((follower.passage, follower.position), follower)
    return sorted(chosen.values(), key=lambda item: (item.passage != best.passage, item.passage, item.position))


def _led_to(question: str, passage: str, spans: Sequence[tuple[int, int]], item: _Sentence) -> list[_Sentence]:
    """Return the code block or list that a sentence introduces, or that follows it when the question asks how."""
    introduces = item.text.rstrip().endswith(":")
    found: list[_Sentence] = []
    for position in range(item.position + 1, min(len(spans), item.position + 1 + _LIST)):
        start, end = spans[position]
        piece = passage[start : min(end, start + _LONGEST)]
        code, listed = piece.startswith(("```", "~~~")), piece.startswith(_LISTED)
        if not (listed and introduces) and not (code and not found and (introduces or _ASKS_HOW.search(question))):
            break
        found.append(_Sentence(item.passage, position, start, start + len(piece), piece))
        if code:
            break
    return found


def _citation(hit: Passage, item: _Sentence) -> Citation:
    return Citation(
        document=hit.document,
        title=hit.title,
        start=hit.start + item.start,
        end=hit.start + item.end,
        quote=item.text,
        chunk_id=hit.chunk_id,
        page=hit.page,
    )


def _join(chosen: Sequence[_Sentence]) -> str:
    """Join sentences with a space; code blocks and list items keep their own lines."""
    parts: list[str] = []
    for item in chosen:
        if parts:
            own_line = any("\n" in piece or piece.startswith(_LISTED) for piece in (parts[-1], item.text))
            parts.append("\n" if own_line else " ")
        parts.append(item.text)
    return "".join(parts)

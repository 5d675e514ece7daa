"""Whether an answer is said by its contexts: how much of each sentence's character pairs they cover.

A proxy, measured (see `bench/guard.py`): it catches what is about something else and numbers that are not there, not a
sentence that turns the context's meaning round. Refusals ("정보를 찾을 수 없습니다") are always grounded.
Must not call a model; an embedder may be passed in.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ondol.guardrails.decision import Span, Verdict, is_korean

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""Texts to unit vectors."""

_SENTENCE = re.compile(r"[^.!?。\n]+(?:[.!?。](?!\s|$)[^.!?。\n]*)*[.!?。]*")
_REFUSAL = re.compile(
    r"(?:정보를?|내용을?|답을?|답변을?|근거를?|관련\s?(?:정보|내용)[을를이가]?)\s?(?:찾을\s?수\s?없|찾지\s?못|확인할\s?수\s?없|없습니다|없어요)"
    r"|(?:문서|컨텍스트|자료|제공된)[^.]{0,30}(?:없습니다|나와\s?있지\s?않|언급되지\s?않|포함(?:되어|하고)\s?있지\s?않)|(?:잘\s?)?모르겠|알\s?수\s?없"
    r"|답(?:변)?(?:을|를)?\s?(?:드릴|할)\s?수\s?없"
    r"|(?:could|can|did|do)\s?(?:not|n't|n’t) (?:find|know|answer|determine|help)|cannot (?:find|"
    r"answer|determine|help)"
    r"|(?:not|isn't|no) (?:mentioned|specified|provided|stated|information|relevant|enough|available|"
    r"found|answer)|i'm not sure"
    r"|(?:context|document|source|passage|text)s? (?:does|do|did)(?: not|n't|n’t)|unable to|i have no|"
    r"there is no information",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_FURNITURE = re.compile(
    r"^\W*(?:출처|참고|참조|sources?|references?|citations?)\b.{0,200}$|^\W*\[\d+\]\W*$", re.IGNORECASE
)
_WORD = re.compile(r"[^\W_]+")
_ENDING = re.compile(
    r"(?:합니다|입니다|됩니다|습니다|하세요|하십시오|해야|해요|돼요|이에요|예요|한다|된다|이다|하며|하고|되며|되고)(?=$|[\s.,!?])"
)
_MARKS = re.compile(r"\[[^\]]{0,40}\]|[*_`#>|]")


@dataclass(frozen=True, slots=True)
class Support:
    """How well one sentence is supported."""

    start: int
    end: int
    text: str
    score: float
    """0 to 1: the share of its character pairs the contexts have; halved for a number they do not have."""

    missing_numbers: tuple[str, ...] = ()


def is_refusal(sentence: str) -> bool:
    """Return whether a sentence says that there is no answer."""
    return len(sentence) < 200 and _REFUSAL.search(sentence) is not None


def _pairs(text: str, across: bool = False) -> set[str]:
    """Character pairs inside words, without predicate endings; `across` adds those over spaces (spacing varies)."""
    lower = unicodedata.normalize("NFKC", text).lower()
    words = _WORD.findall(_ENDING.sub(" ", lower))
    found = {word[index : index + 2] for word in words for index in range(max(1, len(word) - 1))}
    if across:
        flat = "".join(_WORD.findall(lower))
        found |= {flat[index : index + 2] for index in range(len(flat) - 1)}
    return found


def _numbers(text: str) -> set[str]:
    return {number.rstrip(".,:").replace(",", "") for number in _NUMBER.findall(unicodedata.normalize("NFKC", text))}


def sentences(answer: str) -> list[tuple[int, int, str]]:
    """Return the sentences that claim something, with their places."""
    found = []
    for match in _SENTENCE.finditer(answer):
        text = _MARKS.sub("", match[0]).strip()
        if sum(char.isalnum() for char in text) >= 2 and not _FURNITURE.match(text):
            lead = len(match[0]) - len(match[0].lstrip())
            found.append((match.start() + lead, match.end(), text))
    return found


def support(answer: str, contexts: Sequence[str], question: str = "", embed: Embed | None = None) -> list[Support]:
    """Score every sentence of the answer against the contexts.

    :param question: its words may be repeated in the answer without support.
    :param embed: adds the best cosine with any context sentence, averaged with the coverage.
    """
    joined = "\n".join(contexts)
    context_pairs = _pairs(joined, across=True)
    asked_pairs, known_numbers = _pairs(question), _numbers(joined) | _numbers(question)
    claims = [each for each in sentences(answer) if not is_refusal(each[2])]
    closeness = _closeness([text for _, _, text in claims], contexts, embed) if embed and claims else None
    made = []
    for index, (start, end, text) in enumerate(claims):
        pairs = _pairs(text)
        # What the question said already proves nothing; it is left out unless nothing else is said.
        own = pairs - (asked_pairs - context_pairs) or pairs
        score = len(own & context_pairs) / len(own) if own else 0.0
        if closeness is not None:
            score = (score + closeness[index]) / 2
        missing = tuple(sorted(_numbers(text) - known_numbers))
        made.append(Support(start, end, text, score / 2 if missing else score, missing))
    return made


def _closeness(claims: list[str], contexts: Sequence[str], embed: Embed) -> list[float]:
    pieces = [text for context in contexts for _, _, text in sentences(context)] or list(contexts)
    vectors = embed([*claims, *pieces])
    own, theirs = vectors[: len(claims)], vectors[len(claims) :]
    return [
        max((max(0.0, sum(a * b for a, b in zip(left, right, strict=True))) for right in theirs), default=0.0)
        for left in own
    ]


def check(
    answer: str, contexts: Sequence[str], question: str = "", threshold: float = 0.6, embed: Embed | None = None
) -> Verdict:
    """Block an answer with a sentence that its contexts do not support."""
    found = support(answer, contexts, question, embed)
    korean = is_korean(answer)
    if not found:
        reason = "주장하는 문장이 없습니다." if korean else "makes no claim."
        return Verdict("pass", reason, 1.0)
    worst = min(found, key=lambda each: each.score)
    if worst.score >= threshold:
        return Verdict("pass", "", worst.score)
    spans = tuple(Span(each.start, each.end, "unsupported", each.score) for each in found if each.score < threshold)
    quoted = worst.text if len(worst.text) <= 80 else worst.text[:77] + "..."
    if not contexts:
        reason = "근거로 삼을 문서가 없습니다" if korean else "there is no context to support it"
    elif worst.missing_numbers:
        numbers = ", ".join(worst.missing_numbers)
        reason = f"문서에 없는 숫자입니다({numbers})" if korean else f"numbers that are in no context ({numbers})"
    else:
        reason = "문서가 뒷받침하지 않습니다" if korean else "not supported by the contexts"
    return Verdict("block", f"{reason}: “{quoted}” ({worst.score:.2f} < {threshold:.2f})", worst.score, spans)

"""Words and sentences of Korean and English text, the same for everybody who counts or compares them.

Must not import a language model or a dictionary: the rules below are scripts, suffixes and punctuation only.

Words are cut where the script changes (`ERR-4821는` is `err`, `4821`, `는`), because Korean particles are written
together with the word before them; runs of Hangul, Han and Kana become overlapping pairs of characters, which finds the
stem of an inflected word without a dictionary.
"""

from __future__ import annotations

import re
import unicodedata

_PAIRED = "가-힣ᄀ-ᇿ\u3040-\u30ff\u4e00-\u9fff"
_RUNS = re.compile(f"[{_PAIRED}]+|[^\\W{_PAIRED}]+")
_FENCE = re.compile(r"^ {0,3}(```+|~~~+).*?(?:^ {0,3}\1[ \t]*$|\Z)", re.M | re.S)
# A sentence ends at its mark (with the quotes and brackets that close with it) before white space; Korean ends like
# `다.` need no rule of their own. What looks like an end and is none is listed in `_NOT_AN_END`.
_END = re.compile(r"[.!?。！？…]+[\"'”’)\]》」]*(?=\s|$)|\n\s*\n|\n(?=\s*(?:[-*+] |\d+[.)] |#{1,6} |\||>))")
_NOT_AN_END = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Mr|Mrs|Ms|Dr|St|No|Fig|approx|[A-Z])|^\s*\d+)\.$")
HANGUL = re.compile("[가-힣]")


def normalise(text: str) -> str:
    """Return the text in NFC, with `\\n` line ends and without NUL and byte-order marks."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "").replace("\ufeff", "")
    return text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)


def language(text: str) -> str:
    """Return `ko` when the text has Korean in it (three in ten letters or more), else `en`."""
    letters = sum(character.isalpha() for character in text)
    return "ko" if letters and len(HANGUL.findall(text)) >= 0.3 * letters else "en"


def _stem(word: str) -> str:
    """Fold English plurals: `indexes` and `index`, `queries` and `query`."""
    if len(word) < 4 or not word.isascii() or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    return word[:-1]


def words(text: str) -> list[str]:
    """Return the searchable words of a text in order: lower case, pairs of characters for Hangul, Han and Kana.

    A compound identifier gives itself and its parts: `min_requests` is `min_requests`, `min`, `request`.
    """
    found: list[str] = []
    for run in _RUNS.findall(text.casefold()):
        first = run[0]
        if first >= "\u1100" and not first.isascii() and re.match(f"[{_PAIRED}]", first):
            found.extend(run[i : i + 2] for i in range(len(run) - 1)) if len(run) > 1 else found.append(run)
        elif "_" in run:
            found.append(run)
            found.extend(_stem(part) for part in run.split("_") if part)
        else:
            found.append(_stem(run))
    return found


def sentences(text: str) -> list[tuple[int, int]]:
    """Return the sentences as `(start, end)` positions in `text`, without surrounding white space.

    A fenced code block is one sentence, and so is a list item, a table row or a heading. `text[start:end]` is exact.
    """
    spans: list[tuple[int, int]] = []
    position = 0
    for fence in _FENCE.finditer(text):
        spans.extend(_plain_sentences(text, position, fence.start()))
        spans.append((fence.start(), fence.end()))
        position = fence.end()
    spans.extend(_plain_sentences(text, position, len(text)))
    return [trimmed for span in spans if (trimmed := _trim(text, *span)) is not None]


def _plain_sentences(text: str, start: int, end: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    begin = start
    for match in _END.finditer(text, start, end):
        if match.group()[0] in ".!?" and _NOT_AN_END.search(text[max(begin, match.end() - 12) : match.end()]):
            continue
        spans.append((begin, match.end()))
        begin = match.end()
    spans.append((begin, end))
    return spans


def _trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    piece = text[start:end]
    kept = piece.strip()
    if not kept:
        return None
    start += len(piece) - len(piece.lstrip())
    return start, start + len(kept)


# What a question says besides its subject. Question words and polite endings are in no document that answers it, and
# would count as "not covered" otherwise.
_ENGLISH_QUESTION = """
a an and are as at be been but by can could did do does for from had has have how i if in into is it its me my of on or
our shall should than that the their them then there these they this those to was we were what when where which who
whom whose why will with would you your tell please about any show explain describe give
"""
_QUESTION_WORDS = frozenset(_ENGLISH_QUESTION.split())
_KOREAN_QUESTION = re.compile(
    "(?:무엇|무슨|어떻게|어떤|어느|어디|언제|누구|누가|왜|얼마나|얼마|몇|어떠한|알려|주세요|줘|설명|대해|대한|관해|위해|경우|있나요|있습니까|"
    "되나요|됩니까|하나요|합니까|인가요|입니까|인지|할까요|될까요|일까요|이란|란|뭐|뭔가|뭡니까|뭐야|해줘|하면|하려면|할|하는|되는|있는|해야|해도)"
)
_PARTICLE = re.compile(
    "(?:으로부터|로부터|에서는|에서도|에게서|으로는|까지는|입니까|인가요|입니다|합니다|하나요|되나요|나요|습니까|까요|에서|에게|으로|까지|부터|처럼|보다|마다|"
    "이나|하고|이며|은|는|이|가|을|를|의|에|로|와|과|도|만|요)$"
)


def subject_words(question: str) -> list[str]:
    """Return the words a question is about, each once: without question words, Korean particles and polite endings.

    When nothing is left (`무엇인가요?`), all words are returned: something must be searched for.
    """
    found: dict[str, None] = {}
    for run in _RUNS.findall(question.casefold()):
        if HANGUL.match(run):
            for part in _KOREAN_QUESTION.sub(" ", run).split():
                stem = _PARTICLE.sub("", part) if len(part) > 2 else part
                if len(stem) > 1 or len(run) == 1:
                    found.update(dict.fromkeys(words(stem)))
        elif run not in _QUESTION_WORDS and not (len(run) == 1 and run.isalpha() and run.isascii()):
            found.update(dict.fromkeys(words(run)))
    return list(found) or list(dict.fromkeys(words(question)))

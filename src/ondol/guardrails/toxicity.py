"""Insults and profanity, Korean and English: word lists on normalised text, measured in `bench/guard.py`.

Lists catch open abuse, not hate without swear words. Must not be read as a judgement of what a text means.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cache
from importlib import resources

from ondol.guardrails import normalize
from ondol.guardrails.decision import PASS, Span, Verdict, is_korean


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    data = json.loads((resources.files("ondol.guardrails") / "data" / "toxicity.json").read_text("utf-8"))
    korean = [unicodedata.normalize("NFKC", pattern) for pattern in data["ko"]]
    innocent = [unicodedata.normalize("NFKC", word) for word in data["ko_innocent"]]
    return (
        re.compile(r"(?=[ㄱ-ㅎ가-힣\u1100-\u11ff])(?:" + "|".join(korean) + ")"),
        re.compile("|".join(innocent)),
        re.compile(r"\b(?:" + "|".join(data["en"]) + r")\b"),
    )


def check(text: str, plain: str = "") -> Verdict:
    """Block open abuse.

    :param plain: `normalize.plain(text)` when the caller has it already.
    """
    plain = plain or normalize.plain(text)
    korean, innocent, english = _patterns()
    found = korean.search(innocent.sub(" ", plain)) or english.search(plain)
    if found is None:
        return PASS
    start = text.lower().find(found[0])
    spans = (Span(start, start + len(found[0]), "toxicity"),) if start >= 0 else ()
    reason = "욕설이나 모욕적인 표현이 있습니다" if is_korean(text) else "contains insults or profanity"
    return Verdict("block", reason, 1.0, spans)

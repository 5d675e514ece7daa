"""Which fast check stands for which NeMo flow. Must not call a model: that is `llm_checks`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ondol.formats.rails import Rail, RailsFile, Sensitive
from ondol.guardrails import credentials, grounding, injection, normalize, personal_data, toxicity
from ondol.guardrails.decision import PASS, Span, Verdict, is_korean
from ondol.guardrails.grounding import Embed

GROUNDING_THRESHOLD = 0.6
"""Least coverage of a sentence; measured in `bench/guard.py`."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked."""

    text: str
    plain: str
    question: str = ""
    contexts: Sequence[str] = ()
    known: dict[str, Verdict] = field(default_factory=dict)
    """Verdicts that a second flow would only repeat."""


@dataclass(frozen=True, slots=True)
class Native:
    """A fast check, the LLM task that adds to it, and how it decides."""

    run: Callable[[Subject, Rail, RailsFile, Embed | None], Verdict]
    method: str
    task: str = ""
    """The config prompt an LLM is asked with, when one is configured."""


def subject(text: str, question: str = "", contexts: Sequence[str] = ()) -> Subject:
    """Return the subject with its plain form."""
    return Subject(text, normalize.plain(text), question, contexts)


def _first_block(*verdicts: Callable[[], Verdict]) -> Verdict:
    best = PASS
    for make in verdicts:
        verdict = make()
        if verdict.action == "block":
            return verdict
        best = verdict if verdict.score > best.score else best
    return best


def _injection(it: Subject, rail: Rail, file: RailsFile, _: Embed | None) -> Verdict:
    if "injection" not in it.known:
        document = rail.channel == "retrieval"
        it.known["injection"] = injection.check(it.text, it.plain, file.options.thresholds, document=document)
    return it.known["injection"]


def _self_check_input(it: Subject, rail: Rail, file: RailsFile, embed: Embed | None) -> Verdict:
    return _first_block(
        lambda: credentials.check(it.text, it.plain),
        lambda: toxicity.check(it.text, it.plain),
        lambda: _injection(it, rail, file, embed),
    )


def _self_check_output(it: Subject, rail: Rail, file: RailsFile, embed: Embed | None) -> Verdict:
    def leaks() -> Verdict:
        keys = personal_data.find(it.text, ("API_KEY",))
        if not keys:
            return PASS
        reason = "답변에 키나 토큰이 들어 있습니다" if is_korean(it.text) else "the answer contains a key or token"
        return Verdict("block", reason, keys[0].score, tuple(keys))

    return _first_block(leaks, lambda: toxicity.check(it.text, it.plain))


def _grounding(it: Subject, rail: Rail, file: RailsFile, embed: Embed | None) -> Verdict:
    threshold = file.options.thresholds.get("grounding", GROUNDING_THRESHOLD)
    return grounding.check(it.text, it.contexts, it.question, threshold, embed)


def _hallucination_warning(it: Subject, rail: Rail, file: RailsFile, embed: Embed | None) -> Verdict:
    verdict = _grounding(it, rail, file, embed)
    if verdict.action != "block":
        return verdict
    note = (
        "주의: 이 답변은 문서에서 확인되지 않았습니다."
        if is_korean(it.text)
        else "Caution: not confirmed by the documents."
    )
    return Verdict("flag", verdict.reason, verdict.score, verdict.spans, f"{it.text}\n\n{note}")


def _sensitive(it: Subject, rail: Rail, file: RailsFile, _: Embed | None) -> Verdict:
    options = file.sensitive.get(rail.channel, Sensitive())
    spans = personal_data.find(it.text, options.entities, options.score_threshold)
    if not spans:
        return PASS
    kinds = ", ".join(dict.fromkeys(span.kind for span in spans))
    top = max(span.score for span in spans)
    if rail.flow.startswith("detect"):
        reason = f"개인정보가 있습니다: {kinds}" if is_korean(it.text) else f"contains personal data: {kinds}"
        return Verdict("block", reason, top, tuple(spans))
    reason = f"개인정보를 가렸습니다: {kinds}" if is_korean(it.text) else f"masked personal data: {kinds}"
    return Verdict("mask", reason, top, tuple(spans), personal_data.mask(it.text, spans, options.mask_token))


def _regex(it: Subject, rail: Rail, file: RailsFile, _: Embed | None) -> Verdict:
    options = file.patterns.get(rail.channel)
    if options is None:
        return PASS
    flags = re.IGNORECASE if options.case_insensitive else 0
    for pattern in options.patterns:
        if match := re.search(pattern, it.text, flags):
            reason = f"금지된 표현과 맞습니다: {pattern!r}" if is_korean(it.text) else f"matches {pattern!r}"
            return Verdict("block", reason, 1.0, (Span(*match.span(), "pattern"),))
    return PASS


CHECKS: dict[str, Native] = {
    "self check input": Native(_self_check_input, "rules+classifier", "self_check_input"),
    "topic safety check input": Native(_self_check_input, "rules+classifier", "topic_safety_check_input"),
    "jailbreak detection model": Native(_injection, "classifier"),
    "jailbreak detection heuristics": Native(_injection, "classifier"),
    "self check output": Native(_self_check_output, "rules", "self_check_output"),
    "self check facts": Native(_grounding, "coverage", "self_check_facts"),
    "self check hallucination": Native(_grounding, "coverage", "self_check_hallucination"),
    "hallucination warning": Native(_hallucination_warning, "coverage"),
    **{f"{verb} sensitive data on {channel}": Native(_sensitive, "patterns")
       for verb in ("mask", "detect") for channel in ("input", "output", "retrieval")},
    **{f"regex check {channel}": Native(_regex, "patterns") for channel in ("input", "output", "retrieval")},
}  # fmt: skip
"""Every native flow. Both jailbreak flows run the classifier: NeMo's own need a 1.5 GB model or a server."""

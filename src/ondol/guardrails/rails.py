"""All rails of a folder behind one door: `check_input`, `check_output`, `check_retrieved`, each decision explained.

Fast checks always run; where an LLM (`judge`) is given, `self check …` flows ask it too. A rail that breaks blocks,
unless the config says otherwise by name. Must not know who asks: no HTTP, no store.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondol.base import errors, hashing
from ondol.formats import rails as rails_format
from ondol.formats.rails import Channel, Rail, RailsFile
from ondol.guardrails import injection, llm_checks, native
from ondol.guardrails.decision import Check, RailDecision, Span, Verdict, is_korean
from ondol.guardrails.grounding import Embed
from ondol.guardrails.llm_checks import Judge
from ondol.guardrails.nemo import Runtime
from ondol.guardrails.nemo import require as require_nemo

_REFUSAL = {
    "input": {
        "ko": "이 요청은 도와드릴 수 없습니다.",
        "en": "I cannot help with this request.",
    },
    "output": {
        "ko": "확인된 문서로 뒷받침되지 않거나 안전하지 않은 답변이라 보여드리지 않습니다.",
        "en": "The answer was withheld: it is not supported by the documents, or not safe to show.",
    },
    "retrieval": {"ko": "이 문서는 쓰지 않습니다.", "en": "This document is not used."},
}
CONFIG_NAMES = ("config.yml", "config.yaml")


def config_file(folder: Path) -> Path:
    """Return the config file of a guardrails folder (or the file itself).

    :raises NotFoundError: when there is none.
    """
    if folder.is_file():
        return folder
    for name in CONFIG_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise errors.NotFoundError(
        f"no guardrails config in {str(folder)!r}", way_out="Put a NeMo `config.yml` there.", code="NOF-060"
    )


def _colang(folder: Path) -> dict[Path, frozenset[str]]:
    """The folder's Colang files and the flows each defines."""
    scripts = sorted(folder.rglob("*.co")) if folder.is_dir() else []
    return {path: rails_format.colang_flows(path.read_text(encoding="utf-8", errors="replace")) for path in scripts}


class Guardrails:
    """The rails of one configuration.

    :param judge: an LLM for the `self check …` prompts; without it the fast checks decide alone, and say so.
    :param embed: texts to unit vectors, to compare an answer's sentences with its contexts by meaning too.
    """

    def __init__(
        self,
        file: RailsFile,
        *,
        folder: Path | None = None,
        judge: Judge | None = None,
        embed: Embed | None = None,
    ) -> None:
        self.file = file
        self._folder = folder
        self._judge = judge
        self._embed = embed
        self._runtime: Runtime | None = None
        if file.needs_nemo:
            require_nemo(file, str(folder or "config.yml"))
        content = hashing.of_tree(folder) if folder else hashing.of_json(repr(file))
        self.digest = hashing.of_json(
            {"config": content, "weights": injection.load().digest, "grounding": native.GROUNDING_THRESHOLD}
        )
        """Changes when the folder, the shipped weights or a threshold change."""

    @classmethod
    def load(cls, folder: Path, *, judge: Judge | None = None, embed: Embed | None = None) -> Guardrails:
        """Read a NeMo guardrails folder.

        :raises NotFoundError: without a `config.yml`.
        :raises InputError: when it is wrong; `UnsupportedError` names every flow that does not exist.
        """
        path = config_file(folder)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise errors.InputError(f"cannot read the config: {error}", where=str(path), code="INP-060") from error
        colang = _colang(folder)
        custom = frozenset(name for names in colang.values() for name in names)
        file = rails_format.parse(text, str(path), custom)
        used = {rail.flow for rail in file.rails}
        for script, names in colang.items():
            if not names & used:
                raise errors.UnsupportedError(
                    f"{script.name!r} has Colang that is no rail of this config",
                    where=str(script),
                    way_out="List its flow below rails.input.flows or rails.output.flows; dialogues need NeMo itself.",
                    code="UNS-062",
                )
        return cls(file, folder=folder, judge=judge, embed=embed)

    @property
    def models(self) -> tuple[dict[str, Any], ...]:
        """The config's `models:` as written; who builds the judge reads them."""
        return self.file.models

    def check_input(self, text: str, context: Mapping[str, str] | None = None) -> RailDecision:
        """Check what a user wrote; waits while an LLM or NeMo is asked. No input rail reads `context` today."""
        return self._now(self.acheck_input(text, context))

    def check_output(self, text: str, question: str = "", contexts: Sequence[str] = ()) -> RailDecision:
        """Check an answer against its question and the contexts it was made from."""
        return self._now(self.acheck_output(text, question, contexts))

    def check_retrieved(self, text: str) -> RailDecision:
        """Check a retrieved document with the `retrieval` rails."""
        return self._now(self._decide("retrieval", text, "", ()))

    async def acheck_input(self, text: str, context: Mapping[str, str] | None = None) -> RailDecision:
        """`check_input` for a running event loop."""
        return await self._decide("input", text, "", ())

    async def acheck_output(self, text: str, question: str = "", contexts: Sequence[str] = ()) -> RailDecision:
        """`check_output` for a running event loop."""
        return await self._decide("output", text, question, contexts)

    def _now(self, work: Coroutine[Any, Any, RailDecision]) -> RailDecision:
        """Run to the end: without an event loop when nothing can wait, which is the fast path."""
        if self._judge is None and not self.file.needs_nemo:
            try:
                work.send(None)
            except StopIteration as done:
                result: RailDecision = done.value
                return result
            raise AssertionError("a fast check waited")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(work)
        work.close()
        raise errors.StateError(
            "a judge cannot be waited for inside a running event loop",
            way_out="Await `acheck_input` or `acheck_output` instead.",
            code="STA-060",
        )

    async def _decide(self, channel: Channel, text: str, question: str, contexts: Sequence[str]) -> RailDecision:
        begun = time.perf_counter()
        if len(text) > self.file.options.max_chars:
            return self._too_long(channel, text, begun)
        checks: list[Check] = []
        current = text
        subject = native.subject(text, question, contexts)
        for rail in self.file.on(channel):
            for check, changed in await self._run(rail, subject):
                checks.append(check)
                if check.action == "block":
                    return self._refused(channel, text, check, checks, begun)
                if changed is not None and changed != current:
                    current = changed
                    subject = native.subject(current, question, contexts)
        told = [check for check in checks if check.action != "pass"]
        last = told[-1] if told else None
        return RailDecision(
            allowed=True,
            text=current,
            rail=last.rail if last else "",
            reason=last.reason if last else "",
            score=max((check.score for check in told), default=0.0),
            took_ms=_since(begun),
            spans=tuple(span for check in told for span in check.spans),
            checks=tuple(checks),
        )

    async def _run(self, rail: Rail, subject: native.Subject) -> list[tuple[Check, str | None]]:
        """Return what the fast check said, then the LLM, or what NeMo said; with the text each changed it to."""
        if rail.runner == "nemo":
            return [await self._guarded(rail, "nemo", subject, self._nemo(rail, subject))]
        known = native.CHECKS[rail.flow]
        method = known.method if not known.task or self._judge else f"{known.method}, no LLM"
        found = [await self._guarded(rail, method, subject, self._fast(known, rail, subject))]
        if known.task and self._judge and found[0][0].action != "block":
            found.append(await self._guarded(rail, "llm", subject, self._ask(known.task, rail, subject)))
        return found

    async def _fast(self, known: native.Native, rail: Rail, subject: native.Subject) -> Verdict:
        return known.run(subject, rail, self.file, self._embed)

    async def _ask(self, task: str, rail: Rail, subject: native.Subject) -> Verdict:
        assert self._judge is not None
        template = self.file.prompts.get(task) or llm_checks.DEFAULT_PROMPTS[task]
        values = llm_checks.variables(subject.text, subject.question, "\n\n".join(subject.contexts), rail.channel)
        answer = self._judge(llm_checks.render(template, values))
        if inspect.isawaitable(answer):
            answer = await answer
        return llm_checks.verdict(task, answer, subject.text)

    async def _nemo(self, rail: Rail, subject: native.Subject) -> Verdict:
        if self._runtime is None:
            assert self._folder is not None
            self._runtime = await asyncio.to_thread(Runtime, self._folder, self.file)
        if "nemo" not in subject.known:  # one call runs all of NeMo's flows of the channel
            subject.known["nemo"] = await self._runtime.check(subject.text, subject.question, rail.channel)
        return subject.known["nemo"]

    async def _guarded(
        self, rail: Rail, method: str, subject: native.Subject, work: Coroutine[Any, Any, Verdict]
    ) -> tuple[Check, str | None]:
        """Run one check; what breaks becomes a decision by `on_error`, block by default."""
        begun = time.perf_counter()
        try:
            verdict = await work
        except Exception as error:  # noqa: BLE001 - fail closed on whatever a rail or a judge raises
            action = self.file.options.on_error.get(rail.flow, "block")
            korean = is_korean(subject.text)
            reason = f"검사가 실패했습니다: {error}" if korean else f"the check failed: {error}"
            outcome = {"block": "block", "allow": "pass", "flag": "flag"}[action]
            verdict = Verdict(outcome, reason)  # type: ignore[arg-type]  # the three values are Actions
        check = Check(rail.flow, verdict.action, verdict.reason, verdict.score, _since(begun), method, verdict.spans)
        return check, verdict.text

    def _refusal(self, channel: str, text: str) -> str:
        language = "ko" if is_korean(text) else "en"
        return self.file.options.refusal.get(channel, {}).get(language) or _REFUSAL[channel][language]

    def _refused(self, channel: str, text: str, check: Check, checks: Iterable[Check], begun: float) -> RailDecision:
        return RailDecision(
            allowed=False,
            text=self._refusal(channel, text),
            rail=check.rail,
            reason=check.reason,
            score=check.score,
            took_ms=_since(begun),
            spans=check.spans,
            checks=tuple(checks),
        )

    def _too_long(self, channel: str, text: str, begun: float) -> RailDecision:
        limit = self.file.options.max_chars
        korean = is_korean(text[:1000])
        reason = (
            f"글이 너무 깁니다: {len(text)}자, 최대 {limit}자"
            if korean
            else f"too long: {len(text)} characters, {limit} allowed"
        )
        check = Check("length", "block", reason, 1.0, 0.0, "rules", (Span(limit, len(text), "too_long"),))
        decision = self._refused(channel, text[:1000], check, (check,), begun)
        return replace(decision, text=reason)


def _since(begun: float) -> float:
    return round((time.perf_counter() - begun) * 1000, 3)

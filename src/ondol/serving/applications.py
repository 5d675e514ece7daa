"""A running LLM application: guard, retrieve, render, answer, validate, guard; with citations and a trace of it all.

A stage that the release does not have is simply absent. Without an LLM the extractive reader answers, and says so.
Rails fail closed; a provider that is down is an error unless the release says `fallback: extractive`, and then the
answer says that it is degraded. Must not know HTTP, routes or who asks: that is the door's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from ondol.base import errors, text
from ondol.base.telemetry import ActiveSpan
from ondol.llm import extractive, metered, registry
from ondol.llm.port import ChatModel, Meter
from ondol.prompts import library
from ondol.records.chat import Answered, ChatAnswer, ChatRequest, Citation, Message, TokenUsage
from ondol.records.release import ApplicationManifest
from ondol.records.retrieval import Hit, SearchOptions
from ondol.records.usage import Price, UsageIntent, UsageRow
from ondol.serving import application_output as output

Json = dict[str, Any]
MAX_QUESTION = 32_000
"""Characters of a question; longer ones are refused: nobody asks so, and every stage would pay for it."""

_QUOTE = 300  # characters of a passage shown with a citation
_CITED = re.compile(r"\[(\d{1,2})\]")
_NOT_FOUND = re.compile(
    r"찾을 수 없(?:었)?습니다|I could not find|not (?:found|mentioned) in the (?:context|documents)",
    re.I,
)
_BUILT_IN_PROMPT = {
    "ko": '다음 컨텍스트만 사용하여 질문에 답하세요. 컨텍스트에 답이 없으면 "정보를 찾을 수 없습니다"라고 답하세요. '
    "근거가 되는 컨텍스트의 번호를 [1]처럼 적으세요.\n\n컨텍스트:\n{context}\n\n질문: {question}\n\n답변:",
    "en": "Answer the question using only the context. If the context does not contain the answer, say "
    '"I could not find this in the documents." Cite the number of the passage you use, like [1].\n\n'
    "Context:\n{context}\n\nQuestion: {question}\n\nAnswer:",
}


@dataclass(frozen=True, slots=True)
class Ask:
    """One question to an application."""

    question: str
    history: tuple[Message, ...] = ()
    """Earlier turns, user and assistant."""

    unit: str = ""
    options: Json = field(default_factory=dict)
    """What the caller may change: max_tokens, temperature, top_p, seed, stop."""


@dataclass(slots=True)
class Parts:
    """What a release was made of, opened."""

    name: str
    release: str
    manifest: ApplicationManifest
    model: ChatModel | None
    llm: registry.LLMSpec
    price: Price | None
    prompt: library.Commit | None = None
    index: Any = None
    rails: Any = None
    schema: Any = None


@dataclass(slots=True)
class _State:
    """One question on its way."""

    ask: Ask
    question: str
    hits: Sequence[Hit] = ()
    degraded: str = ""
    row: UsageRow | None = None
    usage: TokenUsage = field(default_factory=TokenUsage)
    cost: float | None = 0.0
    status: str = "free"

    @property
    def contexts(self) -> tuple[str, ...]:
        return tuple(hit.text for hit in self.hits)


class Application:
    """A release of an application, ready to answer."""

    def __init__(self, parts: Parts, meter: Meter, threads: ThreadPoolExecutor) -> None:
        self.parts, self._meter, self._threads = parts, meter, threads
        options = parts.manifest.retrieval
        self._k = int(options.get("k", 5))
        self._threshold = options.get("threshold")
        self._where = options.get("where")
        names = set(options) & set(SearchOptions.__dataclass_fields__)
        self._search = SearchOptions(**{name: options[name] for name in names})

    @property
    def answerer(self) -> str:
        """`extractive`, or the model's name."""
        return extractive.LABEL if self.parts.model is None else f"{self.parts.llm.provider}/{self.parts.model.name}"

    @property
    def streams(self) -> bool:
        """Whether pieces of an answer can be shown before it is whole: no rail and no schema has to see it first."""
        return self.parts.model is not None and self.parts.rails is None and self.parts.schema is None

    async def answer(self, ask: Ask, span: ActiveSpan) -> Answered:
        """Answer one question.

        :raises InputError: when the question is empty or too long. UpstreamError, RefusedError: as the model's call.
        """
        final: Answered | None = None
        async for piece in self._run(ask, span, stream=False):
            if isinstance(piece, Answered):
                final = piece
        assert final is not None  # _run always ends with it
        return final

    async def stream(self, ask: Ask, span: ActiveSpan) -> AsyncIterator[str | Answered]:
        """Yield pieces of the answer's text, and at the end everything about it; raises as `answer`."""
        async for piece in self._run(ask, span, stream=True):
            if isinstance(piece, Answered) and not self.streams:
                for part in pieces(piece.text):
                    yield part
            yield piece

    async def _run(self, ask: Ask, span: ActiveSpan, stream: bool) -> AsyncIterator[str | Answered]:
        state = _State(ask, check_question(ask.question))
        blocked = await self._guard_input(state, span)
        span.put("ondol.question", state.question)
        if blocked is not None:
            yield self._finish(blocked, state, span)
            return
        await self._retrieve(state, span)
        if self.parts.model is None:
            answered = await self._extract(state, span)
        elif self.parts.index is not None and not state.hits:
            answered = Answered(extractive.NOT_FOUND[text.language(state.question)], found=False)
        elif stream and self.streams:
            written: list[str] = []
            async for piece in self._stream_model(state, span):
                written.append(piece)
                yield piece
            answered = self._read("".join(written), None, state)
        else:
            answered = await self._ask_model_or_fall_back(state, span)
        answered = await self._guard_output(answered, state, span)
        yield self._finish(answered, state, span)

    def _finish(self, answered: Answered, state: _State, span: ActiveSpan) -> Answered:
        answered = replace(
            answered,
            contexts=state.contexts,
            documents=tuple(hit.document for hit in state.hits),
            answerer=self.answerer if not state.degraded else extractive.LABEL,
            degraded=state.degraded,
            usage=state.usage,
            cost=state.cost,
            cost_status=state.status,
            trace=span.trace,
            release=self.parts.release,
        )
        span.put("ondol.answer", answered.text)
        span.put("ondol.answerer", answered.answerer)
        span.put("ondol.found", answered.found)
        span.put("gen_ai.usage.input_tokens", state.usage.input)
        span.put("gen_ai.usage.output_tokens", state.usage.output)
        span.put("ondol.cost.status", state.status)
        if state.cost is not None:
            span.put("ondol.cost.usd", state.cost)
        if answered.blocked_by:
            span.put("ondol.blocked_by", answered.blocked_by)
        if answered.degraded:
            span.put("ondol.degraded", answered.degraded)
        return answered

    async def _in_thread(self, work: Any, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    async def _guard_input(self, state: _State, span: ActiveSpan) -> Answered | None:
        if self.parts.rails is None:
            return None
        with span.part("guardrail input") as one:
            decision = await self._in_thread(self.parts.rails.check_input, state.question, {})
            describe_rails(one, decision)
        if not decision.allowed:
            return Answered(decision.text, found=False, blocked_by=decision.rail, finish="content_filter")
        state.question = decision.text
        return None

    async def _retrieve(self, state: _State, span: ActiveSpan) -> None:
        index = self.parts.index
        if index is None:
            return
        with span.part(
            "retrieval", {"gen_ai.operation.name": "retrieval", "ondol.index": self.parts.manifest.index}
        ) as one:
            search = lambda: index.search(state.question, self._k, where=self._where, options=self._search)  # noqa: E731
            state.hits = await self._in_thread(self._passed, await self._in_thread(search))
            one.put("ondol.retrieval.documents", [_shown(hit) for hit in state.hits])

    def _passed(self, hits: Sequence[Hit]) -> list[Hit]:
        """Return the passages that the `retrieval` rails let through, masked where they say so."""
        if self.parts.rails is None:
            return list(hits)
        checked = [(hit, self.parts.rails.check_retrieved(hit.text)) for hit in hits]
        return [replace(hit, text=decision.text) for hit, decision in checked if decision.allowed]

    async def _extract(self, state: _State, span: ActiveSpan) -> Answered:
        with span.part("answer extractive") as one:
            options: Json = {} if self._threshold is None else {"threshold": float(self._threshold)}
            similarity = getattr(self.parts.index, "similarities", None)
            found = await self._in_thread(
                lambda: extractive.answer(state.question, state.hits, similarity=similarity, **options)
            )
            one.put("ondol.score", found.score)
            if self.parts.model is None:  # an answer without a model is on the ledger too: free, without tokens
                intent = replace(self._intent(span, extractive.LABEL), max_output=0)
                await self._meter.settle(await self._meter.reserve(intent), TokenUsage())
        citations = tuple(_extractive_citation(number, one, state) for number, one in enumerate(found.citations, 1))
        value = output.from_extractive(self.parts.schema, found, state.question)
        # The reader's score is its estimate that the passages answer: of being right, whether it spoke or not.
        quality = found.score if found.found else 1.0 - found.score
        return Answered(found.text, value, citations, found=found.found, quality=round(quality, 4))

    async def _ask_model_or_fall_back(self, state: _State, span: ActiveSpan) -> Answered:
        try:
            return await self._ask_model(state, span)
        except errors.UpstreamError as error:
            if not self.parts.manifest.retrieval.get("fallback") or self.parts.index is None:
                raise
            state.degraded = f"{self.answerer} failed ({error.message}); the extractive reader answered instead."
            return await self._extract(state, span)

    def _request(self, state: _State, span: ActiveSpan) -> ChatRequest:
        with span.part("prompt", {"ondol.prompt": self.parts.manifest.prompt or "built-in"}):
            messages = self._messages(state)
        options = dict(self.parts.prompt.prompt.metadata) if self.parts.prompt is not None else {}
        options = {name: options[name] for name in ("temperature", "max_tokens") if _is_number(options.get(name))}
        spec = self.parts.llm
        options |= {
            name: value
            for name, value in (("temperature", spec.temperature), ("max_tokens", spec.max_tokens))
            if value is not None
        }
        options |= state.ask.options
        schema = self.parts.schema
        assert self.parts.model is not None  # only called with a model
        constrained = schema is not None and self.parts.model.supports_json_schema
        return ChatRequest(
            (*state.ask.history, *messages),
            output_schema=output.strict(schema.json_schema) if constrained else None,
            schema_name=schema.model.__name__ if schema is not None else "answer",
            **options,
        )

    def _messages(self, state: _State) -> list[Message]:
        values: Json = {"context": context_text(state.hits), "question": state.question}
        instructions = output.instructions(self.parts.schema) if self.parts.schema is not None else ""
        if self.parts.prompt is None:
            filled = _BUILT_IN_PROMPT[text.language(state.question)].format(**values) if state.hits else state.question
            messages = [Message("user", filled)]
        else:
            names = self.parts.prompt.prompt.input_variables
            values["format_instructions"] = instructions
            rendered = library.render_messages(self.parts.prompt, {name: values[name] for name in names})
            messages = [Message(one["role"], one["content"]) for one in rendered]
            if "format_instructions" in names:
                instructions = ""
        if instructions:
            messages[-1] = replace(messages[-1], content=f"{messages[-1].content}\n\n{instructions}")
        return messages

    def _call(self, span: ActiveSpan) -> metered.Call:
        assert self.parts.model is not None  # only called with one
        return metered.Call(self.parts.model, self._meter, self._intent(span, self.parts.model.name), span)

    def _intent(self, span: ActiveSpan, model: str) -> UsageIntent:
        return UsageIntent(
            provider=self.parts.llm.provider,
            model=model,
            application=self.parts.name,
            release=self.parts.release,
            prompt=self.parts.manifest.prompt,
            unit=str(span.attributes.get("ondol.unit", "")),
            trace=span.trace,
            price=self.parts.price,
        )

    def _call_attributes(self, request: ChatRequest) -> Json:
        name, _, commit = self.parts.manifest.prompt.partition("@")
        attributes: Json = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self.parts.llm.provider,
            "gen_ai.request.model": self.parts.model.name if self.parts.model else "",
            "gen_ai.prompt.name": name,
            "gen_ai.prompt.version": commit,
            "gen_ai.request.max_tokens": request.max_tokens,
            "gen_ai.request.temperature": request.temperature,
        }
        return {key: value for key, value in attributes.items() if value not in (None, "")}

    def _book(self, state: _State, call: metered.Call) -> None:
        if call.row is None:
            return
        row = call.row
        before = state.usage
        state.usage = TokenUsage(before.input + row.input_tokens, before.output + row.output_tokens, row.cached_tokens)
        state.cost = None if row.cost is None or state.cost is None else state.cost + row.cost
        state.status = row.status

    async def _ask_model(self, state: _State, span: ActiveSpan) -> Answered:
        request = self._request(state, span)
        answer = await self._complete(request, state, span)
        if self.parts.schema is None:
            return self._read(answer.text, answer, state)
        return await self._validated(request, answer, state, span)

    async def _complete(self, request: ChatRequest, state: _State, span: ActiveSpan) -> ChatAnswer:
        attributes = self._call_attributes(request)
        with span.part(f"chat {attributes['gen_ai.request.model']}", attributes) as one:
            one.put("ondol.unit", state.ask.unit)
            call = self._call(one)
            try:
                answer = await call.complete(request)
            finally:
                self._book(state, call)
            one.put("gen_ai.response.finish_reasons", [answer.finish])
            return answer

    async def _stream_model(self, state: _State, span: ActiveSpan) -> AsyncIterator[str]:
        request = self._request(state, span)
        attributes = self._call_attributes(request)
        one = span.begin(f"chat {attributes['gen_ai.request.model']}", {**attributes, "ondol.unit": state.ask.unit})
        call = self._call(one)
        try:
            async for delta in call.stream(request):
                if delta.text:
                    yield delta.text
                if delta.finish:
                    one.put("gen_ai.response.finish_reasons", [delta.finish])
        except errors.OndolError as error:
            one.error = error.message
            raise
        finally:
            self._book(state, call)
            one.finish()

    async def _validated(self, request: ChatRequest, answer: ChatAnswer, state: _State, span: ActiveSpan) -> Answered:
        """Check the answer against the schema, ask once more with the error, or fail clearly."""
        schema = self.parts.schema
        with span.part("validation", {"ondol.schema": self.parts.manifest.output}) as one:
            value, problem = output.check(schema, answer)
            one.put("ondol.valid", not problem)
            if problem:
                one.put("ondol.problem", problem)
        if problem:
            again = output.ask_again(request, answer, problem)
            answer = await self._complete(again, state, span)
            with span.part("validation", {"ondol.schema": self.parts.manifest.output, "ondol.attempt": 2}) as one:
                value, problem = output.check(schema, answer)
                one.put("ondol.valid", not problem)
        if problem:
            raise errors.UpstreamError(
                f"{self.answerer} did not answer in the form of {schema.name!r}, twice: {problem}",
                way_out="Use a model that can constrain its output, or simplify the schema.",
                code="UPS-161",
            )
        read = self._read(output.answer_text(value, answer.text), answer, state)
        return replace(read, value=value, text=output.dump(value))

    def _read(self, written: str, answer: ChatAnswer | None, state: _State) -> Answered:
        """Find out what a model's answer cites; numbers that were not given to it are no citations."""
        numbers = sorted({int(one) for one in _CITED.findall(written) if 1 <= int(one) <= len(state.hits)})
        found = not _NOT_FOUND.search(written[:200])
        if found and not numbers and self.parts.index is not None:
            numbers = list(range(1, min(3, len(state.hits)) + 1))  # it names none: show what it was given
        citations = tuple(_citation(number, state.hits[number - 1]) for number in numbers) if found else ()
        return Answered(written, None, citations, found=found, finish=answer.finish if answer else "stop")

    async def _guard_output(self, answered: Answered, state: _State, span: ActiveSpan) -> Answered:
        if self.parts.rails is None or not answered.found:
            return answered
        plain = output.answer_text(answered.value, answered.text)
        with span.part("guardrail output") as one:
            decision = await self._in_thread(
                lambda: self.parts.rails.check_output(plain, question=state.question, contexts=list(state.contexts))
            )
            describe_rails(one, decision)
        if not decision.allowed:
            return replace(
                answered, text=decision.text, value=None, citations=(), found=False, blocked_by=decision.rail,
                finish="content_filter",
            )  # fmt: skip
        if decision.text == plain:
            return answered
        value = output.with_answer(answered.value, decision.text)
        return replace(answered, text=decision.text if value is None else output.dump(value), value=value)


def check_question(question: str) -> str:
    """Return the question without white space around it.

    :raises InputError: when it is empty, or too long to be one.
    """
    stripped = question.replace("\x00", "").strip()
    if not stripped:
        raise errors.InputError("the question is empty", code="INP-177")
    if len(stripped) > MAX_QUESTION:
        raise errors.InputError(
            f"the question has {len(stripped)} characters, more than {MAX_QUESTION}",
            way_out="Put documents into the index, and ask about them.",
            code="INP-178",
        )
    return stripped


def pieces(answer: str) -> list[str]:
    """Cut a whole answer into the pieces a stream shows."""
    return re.findall(r"\S+\s*|\s+", answer)


def context_text(hits: Sequence[Hit]) -> str:
    """Return what a prompt is given as context: numbered passages with their titles."""
    return "\n\n".join(f"[{number}] {hit.title}\n{hit.text}" for number, hit in enumerate(hits, 1))


def describe_rails(span: ActiveSpan, decision: Any) -> None:
    """Write a rail decision onto a span, without the text."""
    span.put("ondol.rail.allowed", decision.allowed)
    for name in ("rail", "reason", "score"):
        if value := getattr(decision, name, ""):
            span.put(f"ondol.rail.{name}", value)


def _shown(hit: Hit) -> Json:
    return {
        "id": hit.chunk_id,
        "document": hit.document,
        "title": hit.title,
        "score": round(hit.score, 4),
        "dense": round(hit.dense, 4),
        "lexical": round(hit.lexical, 3),
    }


def _citation(number: int, hit: Hit) -> Citation:
    quote = hit.text if len(hit.text) <= _QUOTE else hit.text[:_QUOTE].rstrip() + "…"
    return Citation(number, hit.document, hit.title, hit.chunk_id, quote, hit.start, hit.end, round(hit.score, 4))


def _extractive_citation(number: int, one: extractive.Citation, state: _State) -> Citation:
    score = next((hit.score for hit in state.hits if hit.chunk_id == one.chunk_id), 0.0)
    return Citation(number, one.document, one.title, one.chunk_id, one.quote[:_QUOTE], one.start, one.end, score)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

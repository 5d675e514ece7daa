"""A chat model whose every call is booked: reserved before, settled after, whatever happens in between.

Must not decide what is allowed: that is the meter's (`monitoring.ledger`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

from ondol.base import transport
from ondol.base.telemetry import ActiveSpan
from ondol.llm import tokens
from ondol.llm.port import ChatModel, Meter
from ondol.records.chat import ChatAnswer, ChatDelta, ChatRequest, TokenUsage
from ondol.records.usage import Reservation, UsageIntent, UsageRow


def intent_for(request: ChatRequest, base: UsageIntent) -> UsageIntent:
    """Return the intent with the request's size in it."""
    given = tokens.estimate_messages(one.content for one in request.messages)
    return replace(base, input_tokens=tokens.at_most(given), max_output=request.max_tokens)


def _clamped(request: ChatRequest, reservation: Reservation) -> ChatRequest:
    if reservation.max_output is None or reservation.max_output == request.max_tokens:
        return request
    return replace(request, max_tokens=reservation.max_output)


class Call:
    """One booked call of a model. After it, `row` says what was booked."""

    def __init__(self, model: ChatModel, meter: Meter, base: UsageIntent, span: ActiveSpan | None = None) -> None:
        self._model, self._meter, self._base, self._span = model, meter, base, span
        self.row: UsageRow | None = None

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        """Ask, wait, book.

        :raises RefusedError: by a budget. UpstreamError: by the provider; booked as failed.
        """
        reservation = await self._meter.reserve(intent_for(request, self._base))
        try:
            answer = await self._model.complete(_clamped(request, reservation))
        except BaseException as error:
            await self._settle(reservation, _lost(request, error), "error")
            raise
        await self._settle(reservation, answer.usage, "ok")
        return answer

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """Ask, pass the pieces on, book; what was written before a break is booked as estimated."""
        reservation = await self._meter.reserve(intent_for(request, self._base))
        written: list[str] = []
        usage, outcome = None, "aborted"
        try:
            async for delta in self._model.stream(_clamped(request, reservation)):
                usage = delta.usage or usage
                written.append(delta.text)
                if delta.usage is not None and outcome != "ok":
                    outcome = "ok"
                    await self._settle(reservation, delta.usage, outcome)
                yield delta
        except Exception:
            outcome = "error"
            raise
        finally:
            if self.row is None:
                await self._settle(reservation, usage or _so_far(request, written), outcome)

    async def _settle(self, reservation: Reservation, usage: TokenUsage, outcome: str) -> None:
        self.row = await self._meter.settle(reservation, usage, outcome)
        if self._span is not None:
            describe(self._span, self.row)


def _lost(request: ChatRequest, error: BaseException) -> TokenUsage:
    """Return what a failed call is thought to have cost: nothing when the provider refused it or never got it, the
    input when we only did not hear the answer."""
    if isinstance(error, transport.TimedOut | transport.Broken | asyncio.CancelledError):
        return TokenUsage(tokens.estimate_messages(one.content for one in request.messages), 0, estimated=True)
    return TokenUsage()


def _so_far(request: ChatRequest, written: list[str]) -> TokenUsage:
    """Return what a broken-off call is thought to have cost; nothing when the model had not begun."""
    if not written:
        return TokenUsage(estimated=True)
    given = tokens.estimate_messages(one.content for one in request.messages)
    return TokenUsage(given, tokens.estimate("".join(written)), estimated=True)


def describe(span: ActiveSpan, row: UsageRow) -> None:
    """Write a booking onto a span."""
    span.put("gen_ai.usage.input_tokens", row.input_tokens)
    span.put("gen_ai.usage.output_tokens", row.output_tokens)
    if row.cached_tokens:
        span.put("gen_ai.usage.cache_read.input_tokens", row.cached_tokens)
    span.put("ondol.cost.status", row.status)
    if row.cost is not None:
        span.put("ondol.cost.usd", row.cost)

"""The gateway: a caller's chat request goes to a provider as it is, and comes back as it is; booked, priced, traced.

The body is only touched where a budget must shorten the answer, and to ask a stream for its token counts (the extra
chunk is hidden from callers who did not ask for it). Must not interpret what is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ondol.api.openai import replies
from ondol.api.openai.wiring import Services
from ondol.base import errors, telemetry, transport
from ondol.base.telemetry import ActiveSpan
from ondol.llm import metered, openai_compatible, registry, tokens
from ondol.records.chat import ChatAnswer, ChatDelta, ChatRequest, Message, TokenUsage
from ondol.records.usage import Reservation, UsageIntent, UsageRow

Json = dict[str, Any]
_UNUSUAL_TIERS = ("flex", "priority", "scale", "batch")  # their prices are other than the table's
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Call:
    """One passed-on request."""

    body: Json
    spec: registry.LLMSpec
    model: Any
    span: ActiveSpan
    headers: dict[str, str]
    reservation: Reservation | None = None
    row: UsageRow | None = None
    written: list[str] = field(default_factory=list)
    usage: TokenUsage | None = None


class Gateway:
    """Passes chat completions and embeddings on to providers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def chat(
        self,
        body: Json,
        size: int,
        spec: registry.LLMSpec,
        unit: str,
        headers: dict[str, str],
        send: replies.Send,
        receive: replies.Receive,
        traceparent: str = "",
    ) -> int:
        """Answer one chat request and return the status sent.

        :param size: bytes of the request, from which its tokens are estimated.
        :raises OndolError: before anything was sent; booked as what it cost.
        """
        span = telemetry.start(self._services.spans, f"chat {spec.name}", _attributes(spec, unit), traceparent)
        headers["x-ondol-trace"] = span.trace
        call = _Call(body, spec, self._services.models.get(spec), span, headers)
        try:
            await self._reserve(call, size, unit)
            if body.get("stream") is True:
                return await self._stream(call, send, receive)
            return await self._whole(call, send)
        except errors.OndolError as error:
            span.error = error.message
            raise
        finally:
            if call.row is None and call.reservation is not None:
                await self._settle(call, call.usage or _so_far(call), "aborted")
            span.finish()

    async def _reserve(self, call: _Call, size: int, unit: str) -> None:
        body = call.body
        key = next((one for one in ("max_completion_tokens", "max_tokens") if isinstance(body.get(one), int)), "")
        answers = body["n"] if isinstance(body.get("n"), int) and body["n"] > 1 else 1
        price = None if body.get("service_tier") in _UNUSUAL_TIERS else self._services.price_of(call.spec)
        intent = UsageIntent(
            provider=call.spec.provider,
            model=call.spec.name,
            unit=unit,
            trace=call.span.trace,
            input_tokens=min(size // 3 + 16, 2_000_000),
            max_output=body[key] * answers if key else None,
            price=price,
        )
        call.reservation = await self._services.ledger.reserve(intent)
        allowed = call.reservation.max_output
        if allowed is not None and allowed != intent.max_output:
            name = key or ("max_completion_tokens" if call.spec.provider == "openai" else "max_tokens")
            call.body = {**body, name: max(1, allowed // answers)}
            call.headers["x-ondol-max-tokens"] = str(call.body[name])

    def _outgoing(self, call: _Call) -> bytes:
        return _encode({**call.body, "model": call.spec.name})

    async def _settle(self, call: _Call, usage: TokenUsage, outcome: str) -> None:
        assert call.reservation is not None  # settled only after a reservation
        call.row = await self._services.ledger.settle(call.reservation, usage, outcome)
        metered.describe(call.span, call.row)

    async def _whole(self, call: _Call, send: replies.Send) -> int:
        model = call.model
        if not hasattr(model, "post"):
            return await self._through_port(call, send)
        try:
            response = await model.post("/chat/completions", self._outgoing(call))
            data = await response.read()
        except (transport.TimedOut, transport.Broken):
            await self._settle(call, TokenUsage(_input(call), 0, estimated=True), "error")
            raise
        except errors.UpstreamError:
            await self._settle(call, TokenUsage(), "error")
            raise
        if response.status >= 400:
            await self._settle(call, TokenUsage(), "error")
            return await _pass_error(call, response, data, send)
        try:
            usage = _usage_of(call, data)
        except errors.UpstreamError:
            await self._settle(call, TokenUsage(_input(call), 0, estimated=True), "error")
            raise
        await self._settle(call, usage, "ok")
        call.span.finish()  # before it is answered: who has the trace's name may look for it
        await replies.send_bytes(send, 200, data, _with_cost(call), b"application/json")
        return 200

    async def _through_port(self, call: _Call, send: replies.Send) -> int:
        """Answer by a model that has no HTTP of its own (LangChain's)."""
        answer = await call.model.complete(_as_request(call.body))
        await self._settle(call, answer.usage, "ok")
        call.span.finish()
        await replies.send_json(send, 200, completion(call.span.id, call.spec.text, answer), _with_cost(call))
        return 200

    async def _stream(self, call: _Call, send: replies.Send, receive: replies.Receive) -> int:
        wanted = isinstance(call.body.get("stream_options"), dict) and call.body["stream_options"].get("include_usage")
        if not hasattr(call.model, "post"):
            raise errors.UnsupportedError("this model does not stream through the gateway", where="stream")
        response = await self._open_stream(call)
        if response.status >= 400:
            await self._settle(call, TokenUsage(), "error")
            return await _pass_error(call, response, await response.read(), send)
        events = replies.EventStream(send, receive, call.headers)
        try:
            await self._pass_events(call, response, events, bool(wanted))
            await self._settle(call, call.usage or _so_far(call), "ok")
            call.span.finish()
            await events.end()
        except replies.GoneAway:
            call.span.error = "the caller hung up"
            await self._settle(call, call.usage or _so_far(call), "aborted")
        except errors.UpstreamError as error:
            await self._settle(call, call.usage or _so_far(call), "error")
            if not events.started:
                raise
            call.span.error = error.message
            call.span.finish()
            await events.event(replies.error_body(error))
            await events.end(done=False)
            return 502
        finally:
            response.aclose()
            await events.close()
        return 200

    async def _open_stream(self, call: _Call) -> Any:
        """Open the stream with token counts asked for, or without where the endpoint refuses that."""
        endpoint = getattr(call.model, "endpoint", None)
        asked = isinstance(call.body.get("stream_options"), dict)
        inject = not asked and (endpoint is None or endpoint.stream_usage)
        before = call.body
        if inject:
            call.body = {**before, "stream_options": {"include_usage": True}}
        try:
            response = await call.model.post("/chat/completions", self._outgoing(call))
            if response.status not in (400, 422) or not inject:
                return response
            data = await response.read()
            if b"stream_options" not in data:
                return _Read(response.status, response.headers, data)
            if endpoint is not None:
                call.model.endpoint = replace(endpoint, stream_usage=False)
            call.body = before
            return await call.model.post("/chat/completions", self._outgoing(call))
        except (transport.TimedOut, transport.Broken):
            await self._settle(call, TokenUsage(_input(call), 0, estimated=True), "error")
            raise
        except errors.UpstreamError:
            await self._settle(call, TokenUsage(), "error")
            raise

    async def _pass_events(self, call: _Call, response: Any, out: replies.EventStream, wanted: bool) -> None:
        async for event in openai_compatible.events(response, call.spec.base_url or call.spec.text):
            text, finish, usage = openai_compatible.read_chunk(event)
            if not out.started:
                await out.start()
            call.usage = usage or call.usage
            if text:
                call.written.append(text)
            if finish:
                call.span.put("gen_ai.response.finish_reasons", [finish])
            if usage is not None and not wanted:
                if not event.get("choices"):
                    continue  # the chunk that only we asked for
                event = {name: value for name, value in event.items() if name != "usage"}
            await out.event(event)
        if not out.started:
            await out.start()

    async def embeddings(
        self, body: Json, spec: registry.LLMSpec, unit: str, headers: dict[str, str], send: replies.Send
    ) -> int:
        """Pass an embeddings request on and return the status sent."""
        span = telemetry.start(self._services.spans, f"embeddings {spec.name}", _attributes(spec, unit, "embeddings"))
        headers["x-ondol-trace"] = span.trace
        call = _Call(body, spec, self._services.models.get(spec), span, headers)
        given = tokens.at_most(tokens.estimate(str(body.get("input", ""))))
        intent = UsageIntent(
            provider=spec.provider, model=spec.name, unit=unit, trace=span.trace, input_tokens=given, max_output=1,
            price=self._services.price_of(spec), can_clamp=False,
        )  # fmt: skip
        try:
            call.reservation = await self._services.ledger.reserve(intent)
            response = await call.model.post("/embeddings", self._outgoing(call))
            data = await response.read()
            if response.status >= 400:
                await self._settle(call, TokenUsage(), "error")
                return await _pass_error(call, response, data, send)
            usage = openai_compatible.read_usage(_object(data).get("usage"))
            await self._settle(call, usage or TokenUsage(given, 0, estimated=True), "ok")
            span.finish()
            await replies.send_bytes(send, 200, data, _with_cost(call), b"application/json")
            return 200
        finally:
            if call.row is None and call.reservation is not None:
                await self._settle(call, TokenUsage(), "error")
            span.finish()


@dataclass(slots=True)
class _Read:
    """An answer whose body was read already; has what a response has."""

    status: int
    headers: Any
    data: bytes

    async def read(self) -> bytes:
        return self.data

    def aclose(self) -> None:
        pass


def _attributes(spec: registry.LLMSpec, unit: str, operation: str = "chat") -> Json:
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": spec.provider,
        "gen_ai.request.model": spec.name,
        "ondol.unit": unit,
        "ondol.root": True,
    }


def _with_cost(call: _Call) -> dict[str, str]:
    row = call.row
    if row is not None:
        call.headers["x-ondol-cost-status"] = row.status
        if row.cost is not None:
            call.headers["x-ondol-cost-usd"] = f"{row.cost:.8f}"
    return call.headers


async def _pass_error(call: _Call, response: Any, data: bytes, send: replies.Send) -> int:
    """Hand a provider's refusal on: its own status and words for the caller's mistakes, 502 for its own."""
    status = int(response.status)
    try:
        openai_compatible.check_status(status, data, call.spec.base_url or call.spec.text)
    except errors.UpstreamError as error:
        call.span.error = error.message
        call.span.finish()  # before it is answered, as above
        own = status in (400, 404, 409, 413, 422, 429)
        body = replies.error_body(error)
        more = {name: response.headers[name] for name in ("retry-after",) if name in response.headers}
        await replies.send_json(send, status if own else 502, body, {**call.headers, **more})
        return status if own else 502
    return status


def _object(data: bytes) -> Json:
    try:
        value = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return {}
    return value if isinstance(value, dict) else {}


class _Counted(msgspec.Struct):
    """What is read of a whole answer: enough to book it. Everything else passes through unread."""

    choices: list[msgspec.Raw]
    usage: Json | None = None
    model: str | None = None


_counted = msgspec.json.Decoder(_Counted)


def _usage_of(call: _Call, data: bytes) -> TokenUsage:
    """Return the tokens of a whole answer; counted by us when the provider is silent.

    :raises UpstreamError: when it is no chat completion.
    """
    try:
        answer = _counted.decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise openai_compatible.nonsense(data, call.spec.base_url or call.spec.text) from error
    if answer.model:
        call.span.put("gen_ai.response.model", answer.model)
    usage = openai_compatible.read_usage(answer.usage)
    if usage is not None:
        return usage
    read = openai_compatible.read_answer(data, ChatRequest(()), call.spec.text)
    return TokenUsage(_input(call), tokens.estimate(read.text), estimated=True)


def _texts(body: Json) -> list[str]:
    found: list[str] = []
    for one in body.get("messages") or []:
        content = one.get("content") if isinstance(one, dict) else None
        if isinstance(content, str):
            found.append(content)
        elif isinstance(content, list):
            found.extend(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return found


def _input(call: _Call) -> int:
    return tokens.estimate_messages(_texts(call.body))


def _so_far(call: _Call) -> TokenUsage:
    """Return what a call is thought to have cost until it broke off; nothing when no answer had begun."""
    if not call.written:
        return TokenUsage(estimated=True)
    return TokenUsage(_input(call), tokens.estimate("".join(call.written)), estimated=True)


def _as_request(body: Json) -> ChatRequest:
    messages = tuple(
        Message(str(one.get("role", "user")), text)
        for one, text in zip(body.get("messages") or [], _texts(body), strict=False)
        if isinstance(one, dict)
    )
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    temperature = body.get("temperature")
    return ChatRequest(messages, max_tokens=limit, temperature=temperature)


def completion(identifier: str, model: str, answer: ChatAnswer | ChatDelta, created: int = 0) -> Json:
    """Return an answer as a chat completion."""
    usage = answer.usage or TokenUsage()
    return {
        "id": f"chatcmpl-{identifier}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "finish_reason": answer.finish or "stop",
                "logprobs": None,
            }
        ],
        "usage": usage_body(usage),
    }


def usage_body(usage: TokenUsage) -> Json:
    """Return token counts in OpenAI's shape."""
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    }

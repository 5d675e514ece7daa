"""Any endpoint that speaks OpenAI's chat completions: OpenAI itself, vLLM, Ollama, llama.cpp, gateways.

The key comes from the environment by name at each call, so that it is never part of a record, a log or a release.
Must not book or price: see `metered`.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec

from ondol.base import errors, transport
from ondol.llm import tokens
from ondol.records.chat import ChatAnswer, ChatDelta, ChatRequest, TokenUsage

Json = dict[str, Any]
_RETRY_STATUS = (429, 503)
_MAX_WAIT = 5.0  # seconds we are willing to follow a Retry-After


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to call."""

    base_url: str
    """With the version: `https://api.openai.com/v1`."""

    key_env: str = ""
    """Name of the environment variable that holds the key; empty: no key is sent."""

    timeout: float = 60.0
    """Seconds for the head of an answer, and between two pieces of a stream."""

    supports_json_schema: bool = True
    stream_usage: bool = True
    """Whether the endpoint understands `stream_options.include_usage`; some strict servers refuse it."""


class OpenAICompatible:
    """A chat model behind an OpenAI-compatible address."""

    def __init__(self, provider: str, name: str, endpoint: Endpoint, client: transport.Client | None = None) -> None:
        self.provider, self.name, self.endpoint = provider, name, endpoint
        self.supports_json_schema = endpoint.supports_json_schema
        self._client = client or transport.Client()

    async def post(self, path: str, body: bytes) -> Any:
        """Send a request body as it is and return the answer (`transport.Response`) whatever its status.

        Connect errors, 429 and 503 are tried once more after a short random wait (or the Retry-After).
        """
        url = self.endpoint.base_url.rstrip("/") + path
        headers = {"content-type": "application/json", "accept": "*/*", **self._authorization()}
        try:
            response = await self._client.post(url, headers, body, self.endpoint.timeout)
        except transport.ConnectFailed:
            await asyncio.sleep(random.uniform(0.05, 0.3))
            return await self._client.post(url, headers, body, self.endpoint.timeout)
        if response.status not in _RETRY_STATUS:
            return response
        wait = _retry_after(response.headers.get("retry-after", ""))
        if wait > _MAX_WAIT:
            return response
        await response.read()
        await asyncio.sleep(wait + random.uniform(0.05, 0.3))
        return await self._client.post(url, headers, body, self.endpoint.timeout)

    def _authorization(self) -> dict[str, str]:
        name = self.endpoint.key_env
        if not name:
            return {}
        key = os.environ.get(name, "")
        if not key:
            raise errors.UpstreamError(
                f"{self.provider}/{self.name} needs a key and {name} is not set",
                way_out=f"export {name}=… before starting Ondol; it is read from the environment and never stored.",
                code="UPS-105",
            )
        return {"authorization": f"Bearer {key}"}

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        """Ask and wait for the whole answer."""
        body = self.body(request)
        response = await self.post("/chat/completions", msgspec.json.encode(body))
        data = await response.read()
        check_status(response.status, data, self.endpoint.base_url)
        return read_answer(data, request, self.endpoint.base_url)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """Ask and yield the answer as it is written."""
        body = self.body(request)
        body["stream"] = True
        if self.endpoint.stream_usage:
            body["stream_options"] = {"include_usage": True}
        response = await self.post("/chat/completions", msgspec.json.encode(body))
        if response.status >= 400:
            check_status(response.status, await response.read(), self.endpoint.base_url)
        finish, usage, text = "", None, []
        async for event in events(response, self.endpoint.base_url):
            piece, ended, counted = read_chunk(event)
            finish, usage = ended or finish, counted or usage
            if piece:
                text.append(piece)
                yield ChatDelta(piece, model=str(event.get("model") or ""))
        counted = usage or estimated(request, "".join(text))
        yield ChatDelta(finish=finish or "stop", usage=counted, model=self.name)

    def body(self, request: ChatRequest) -> Json:
        """Return the request as the endpoint wants it."""
        body: Json = {
            "model": self.name,
            "messages": [{"role": one.role, "content": one.content} for one in request.messages],
        }
        for name in ("max_tokens", "temperature", "top_p", "seed"):
            if (value := getattr(request, name)) is not None:
                body[name] = value
        if request.stop:
            body["stop"] = list(request.stop)
        if request.output_schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": request.schema_name, "schema": request.output_schema, "strict": True},
            }
        return body

    async def close(self) -> None:
        await self._client.close()


def _retry_after(value: str) -> float:
    try:
        return max(0.0, float(value))
    except ValueError:
        return 0.0


def check_status(status: int, data: bytes, where: str) -> None:
    """Raise what an error status means.

    :raises UpstreamError: for every status from 300 on, with the provider's own words.
    """
    if status < 300:
        return
    try:
        body = msgspec.json.decode(data)
        error = body.get("error", body) if isinstance(body, dict) else body
        message = str(error.get("message", error) if isinstance(error, dict) else error)
    except (msgspec.DecodeError, AttributeError):
        message = data[:200].decode("utf-8", "replace").strip()
    hints = {
        401: "Check the key.",
        403: "Check the key's rights.",
        404: "Check the model's name.",
        429: "Wait a while.",
    }
    raise errors.UpstreamError(
        f"the endpoint answered {status}: {message[:500]}", where=where, way_out=hints.get(status, ""), code="UPS-106"
    )


def read_answer(data: bytes, request: ChatRequest, where: str) -> ChatAnswer:
    """Read a whole chat completion.

    :raises UpstreamError: when it is none.
    """
    try:
        body = msgspec.json.decode(data)
        choice = body["choices"][0]
        text = choice["message"].get("content") or ""
        usage = read_usage(body.get("usage")) or estimated(request, text)
        return ChatAnswer(str(text), str(choice.get("finish_reason") or "stop"), usage, str(body.get("model") or ""))
    except (msgspec.DecodeError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise nonsense(data, where) from error


def nonsense(data: bytes, where: str) -> errors.UpstreamError:
    """Return the error for an answer that is no chat completion."""
    seen = data[:120].decode("utf-8", "replace")
    return errors.UpstreamError(
        f"the endpoint's answer is no chat completion: {seen!r}",
        where=where,
        way_out="Does the address speak OpenAI's protocol? It usually ends in /v1.",
        code="UPS-107",
    )


def read_usage(usage: Any) -> TokenUsage | None:
    """Read a `usage` object; None when there is none or it has no counts."""
    if not isinstance(usage, dict):
        return None
    given, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(given, int) or not isinstance(written, int | None) or given < 0:
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return TokenUsage(given, max(0, written or 0), cached if isinstance(cached, int) else 0)


def estimated(request: ChatRequest, written: str) -> TokenUsage:
    """Count what a provider did not."""
    given = tokens.estimate_messages(one.content for one in request.messages)
    return TokenUsage(given, tokens.estimate(written), estimated=True)


async def events(response: Any, where: str) -> AsyncIterator[Json]:
    """Yield the JSON events of a stream until its `[DONE]`.

    :raises UpstreamError: when the stream breaks off, carries an error, or is not made of events.
    """
    rest = b""
    done = False
    async for chunk in response.chunks():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            event = read_event(line.strip(), where)
            done = done or event is _DONE
            if event is not None and event is not _DONE:
                yield event
    last = read_event(rest.strip(), where)
    if last is not None and last is not _DONE:
        yield last
    if not (done or last is _DONE):
        raise transport.Broken("the stream ended without its end mark", where=where)


_DONE: Json = {}


def read_event(line: bytes, where: str) -> Json | None:
    """Read one line of a stream: an event, `_DONE`, or None for anything that carries no data."""
    if not line.startswith(b"data:"):
        if line and not line.startswith((b":", b"event:", b"id:", b"retry:")):
            raise nonsense(line, where)
        return None
    data = line[5:].strip()
    if data == b"[DONE]":
        return _DONE
    try:
        event = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise nonsense(data, where) from error
    if not isinstance(event, dict):
        raise nonsense(data, where)
    if event.get("error"):
        said = event["error"]
        message = said.get("message", said) if isinstance(said, dict) else said
        raise errors.UpstreamError(f"the endpoint broke off: {message}", where=where, code="UPS-108")
    return event


def read_chunk(event: Json) -> tuple[str, str, TokenUsage | None]:
    """Return the text, the finish reason and the usage of one stream event."""
    text = finish = ""
    choices = event.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        delta = choices[0].get("delta")
        text = str(delta.get("content") or "") if isinstance(delta, dict) else ""
        finish = str(choices[0].get("finish_reason") or "")
    return text, finish, read_usage(event.get("usage"))

"""FakeLLM: a real HTTP server on loopback that speaks OpenAI's protocol and answers from a script.

    with FakeLLM(["first answer", Fault("status", 500), lambda request: "…"]) as fake:
        openai.OpenAI(base_url=fake.url, api_key="any").chat.completions.create(…)

Answers are taken in order; the last one repeats. It streams word by word, counts tokens (one per word), and can be
slow, down, broken in the middle or talk nonsense. `python -m ondol.testing.fake_llm --latency 0.02` runs one until its
stdin is closed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import httptools
import msgspec

Json = dict[str, Any]
FaultKind = Literal["status", "hang", "half_stream", "garbage", "hang_up", "error_event"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong instead of an answer."""

    kind: FaultKind
    status: int = 500
    retry_after: str = ""
    text: str = "one two three four five six"
    """What a half stream says half of."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with more than its text."""

    text: str
    finish: str = "stop"
    usage: bool = True
    """Whether the server says how many tokens it took."""

    output_tokens: int | None = None


Answer = str | Reply | Fault
Script = Sequence[Answer | Callable[[Json], Answer]] | Callable[[Json], Answer]


@dataclass(slots=True)
class Received:
    """One request as the server saw it."""

    path: str
    headers: dict[str, str]
    body: Json
    hung_up: bool = False
    """True when the caller left before the end of the answer."""

    pieces: int = 0
    """Pieces of a stream that were sent."""


@dataclass(slots=True)
class _Call:
    path: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def _words(text: str) -> list[str]:
    parts = text.split(" ")
    return [part if index == 0 else f" {part}" for index, part in enumerate(parts)]


def _tokens(body: Json) -> int:
    messages = body.get("messages") or []
    return sum(len(str(one.get("content", "")).split()) for one in messages) or 1


class FakeLLM:
    """The server. A context manager; `start` and `stop` for other uses.

    :param script: answers in order, or a function of the request. Default: echoes the last message.
    :param latency: seconds before the head of an answer.
    :param piece_latency: seconds between two pieces of a stream.
    :param strict: refuses `stream_options` as some servers do.
    """

    def __init__(
        self,
        script: Script = (),
        latency: float = 0.0,
        piece_latency: float = 0.0,
        strict: bool = False,
        port: int = 0,
    ) -> None:
        self.latency, self.piece_latency, self.strict = latency, piece_latency, strict
        self.requests: list[Received] = []
        self.keep_requests = True
        self._script, self._port, self._taken = script, port, 0
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._server: asyncio.Server | None = None
        self.connected: set[asyncio.Transport] = set()
        """Who is connected now; nobody any more once it is stopped."""

    @property
    def url(self) -> str:
        """The base URL, with `/v1`."""
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> FakeLLM:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> FakeLLM:
        """Listen; returns when connections are taken."""
        self._thread = threading.Thread(target=self._run, name="fake-llm", daemon=True)
        self._thread.start()
        if not self._ready.wait(60):
            raise RuntimeError("the fake LLM does not listen")
        return self

    def stop(self) -> None:
        """Stop listening and hang up on everybody."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(60)
            self._thread = None

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(
            self._loop.create_server(lambda: _Protocol(self), "127.0.0.1", self._port)
        )
        self._port = self._server.sockets[0].getsockname()[1]
        self._ready.set()
        try:
            self._loop.run_forever()
        finally:
            self._server.close()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            left, self.connected = self.connected, set()
            for transport in left:
                transport.abort()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def answer(self, body: Json) -> Answer:
        """Return the next answer of the script."""
        if callable(self._script):
            return self._script(body)
        if not self._script:
            messages = body.get("messages") or [{"content": ""}]
            return f"echo: {messages[-1].get('content', '')}"
        chosen = self._script[min(self._taken, len(self._script) - 1)]
        self._taken += 1
        return chosen(body) if callable(chosen) else chosen


class _Protocol(asyncio.Protocol):
    def __init__(self, fake: FakeLLM) -> None:
        self.fake = fake
        self.parser = httptools.HttpRequestParser(self)
        self.call = _Call()
        self.task: asyncio.Task[None] | None = None
        self.received: Received | None = None
        self.answered = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.fake.connected.add(self.transport)

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        left = self.transport in self.fake.connected  # or this server was stopped
        self.fake.connected.discard(self.transport)
        if left and self.received is not None and not self.answered:
            self.received.hung_up = True
        if self.task is not None:
            self.task.cancel()

    def on_url(self, url: bytes) -> None:
        self.call = _Call(path=url.decode())

    def on_header(self, name: bytes, value: bytes) -> None:
        self.call.headers[name.decode().lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self.call.body += data

    def on_message_complete(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self._serve(self.call))

    async def _serve(self, call: _Call) -> None:
        try:
            body = msgspec.json.decode(call.body) if call.body else {}
        except msgspec.DecodeError:
            self._json({"error": {"message": "not JSON"}}, 400)
            return
        self.received, self.answered = Received(call.path, call.headers, body), False
        if self.fake.keep_requests:
            self.fake.requests.append(self.received)
        if self.fake.latency:
            await asyncio.sleep(self.fake.latency)
        if call.path.endswith("/embeddings"):
            self._embeddings(body)
        elif call.path.endswith("/models"):
            self._json({"object": "list", "data": [{"id": "fake", "object": "model", "owned_by": "fake"}]})
        elif self.fake.strict and "stream_options" in body:
            self._json({"error": {"message": "unknown field stream_options"}}, 400)
        else:
            await self._chat(body, self.fake.answer(body))
        self.answered = True

    async def _chat(self, body: Json, answer: Answer) -> None:
        if isinstance(answer, Fault):
            await self._fault(body, answer)
            return
        reply = Reply(answer) if isinstance(answer, str) else answer
        words = _words(reply.text)
        limit = body.get("max_tokens") or body.get("max_completion_tokens")
        if isinstance(limit, int) and len(words) > limit:
            words, reply = words[:limit], Reply(reply.text, "length", reply.usage)
        given = _tokens(body)
        written = len(words) if reply.output_tokens is None else reply.output_tokens
        usage = {"prompt_tokens": given, "completion_tokens": written, "total_tokens": given + written}
        if body.get("stream"):
            wanted = (body.get("stream_options") or {}).get("include_usage")
            await self._stream(body, words, reply.finish, usage if wanted and reply.usage else None)
            return
        message = {"role": "assistant", "content": "".join(words)}
        whole: Json = {
            "id": "chatcmpl-fake",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body.get("model", "fake"),
            "choices": [{"index": 0, "message": message, "finish_reason": reply.finish}],
        }
        if reply.usage:
            whole["usage"] = usage
        self._json(whole)

    def _event(self, body: Json, delta: Json, finish: str | None, usage: Json | None = None) -> bytes:
        choices = [] if usage is not None else [{"index": 0, "delta": delta, "finish_reason": finish}]
        event: Json = {
            "id": "chatcmpl-fake",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": body.get("model", "fake"),
            "choices": choices,
        }
        if usage is not None:
            event["usage"] = usage
        return b"data: " + msgspec.json.encode(event) + b"\n\n"

    async def _stream(self, body: Json, words: list[str], finish: str, usage: Json | None, stop_at: int = -1) -> None:
        self._head(200, "text/event-stream")
        for index, word in enumerate(words):
            if index == stop_at:
                self.transport.close()
                return
            self._chunk(self._event(body, {"role": "assistant", "content": word}, None))
            if self.received is not None:
                self.received.pieces += 1
            await asyncio.sleep(self.fake.piece_latency)
        self._chunk(self._event(body, {}, finish))
        if usage is not None:
            self._chunk(self._event(body, {}, None, usage))
        self._chunk(b"data: [DONE]\n\n")
        self.transport.write(b"0\r\n\r\n")

    async def _fault(self, body: Json, fault: Fault) -> None:
        if fault.kind == "hang":
            await asyncio.sleep(3600)
        elif fault.kind == "hang_up":
            self.transport.abort()
        elif fault.kind == "garbage":
            self._raw(200, "text/html", b"<html>this is no answer</html>")
        elif fault.kind == "status":
            more = {"retry-after": fault.retry_after} if fault.retry_after else {}
            self._json({"error": {"message": "scripted failure", "type": "server_error"}}, fault.status, more)
        else:
            words = _words(fault.text)
            if fault.kind == "error_event":
                self._head(200, "text/event-stream")
                self._chunk(self._event(body, {"content": words[0]}, None))
                self._chunk(b'data: {"error": {"message": "the model fell over"}}\n\n')
                self.transport.write(b"0\r\n\r\n")
            else:
                await self._stream(body, words, "stop", None, stop_at=max(1, len(words) // 2))

    def _embeddings(self, body: Json) -> None:
        texts = body.get("input")
        texts = [texts] if isinstance(texts, str) else list(texts or [])
        data = []
        for index, text in enumerate(texts):
            digest = hashlib.sha256(str(text).encode()).digest()
            data.append({"object": "embedding", "index": index, "embedding": [byte / 255 - 0.5 for byte in digest]})
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        self._json({"object": "list", "data": data, "model": body.get("model", "fake"), "usage": usage})

    def _json(self, value: Json, status: int = 200, more: dict[str, str] | None = None) -> None:
        self._raw(status, "application/json", msgspec.json.encode(value), more)

    def _raw(self, status: int, kind: str, data: bytes, more: dict[str, str] | None = None) -> None:
        extra = "".join(f"{name}: {value}\r\n" for name, value in (more or {}).items())
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(data)}\r\n{extra}\r\n"
        self.transport.write(head.encode() + data)

    def _head(self, status: int, kind: str) -> None:
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n"
        self.transport.write(head.encode())

    def _chunk(self, data: bytes) -> None:
        self.transport.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def main() -> None:
    """Run one until stdin is closed; prints its URL first."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--words", type=int, default=100)
    options = parser.parse_args()
    with FakeLLM([" ".join(["word"] * options.words)], latency=options.latency) as fake:
        fake.keep_requests = False
        print(fake.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()

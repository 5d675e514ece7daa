"""The short way of an inference request: from uvicorn's HTTP parser to the door, without a task and without ASGI.

A request for a model that arrives alone on its connection is handed to the door in the callback that read its last
byte, and its answer is one write. Everything else (other paths, pipelined requests, HTTP/1.0, `Expect`, bodies over the
limit) goes uvicorn's way through ASGI and behaves the same, only slower.

Also sweeps connections: one that is silent, takes too long to send its request or does not fetch its answer is closed.
While an answer is not fetched, no further request is read from its connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ondol.api.kserve import answers
from ondol.api.kserve.heads import END, Head, Heads

Respond = Callable[[str, str, dict[bytes, bytes], bytes, answers.Reply], None]

IDLE_SECONDS = 75.0
"""How long a connection may be silent between two requests."""

READ_SECONDS = 30.0
"""How long a client may take to send one request, once it began."""

WRITE_SECONDS = 30.0
"""How long a client may leave an answer, or a part of it, unfetched."""

AT_ONCE_BYTES = 1024 * 1024
"""Bodies up to this are put together on the event loop, larger ones beside it: joining these frees the interpreter."""

_MISSES = 64
"""After so many new heads in a row a connection is taken to send no other: looking them up costs a little."""

_PATHS = (b"/v1/models/", b"/v2/models/", b"/v1/graphs/")
_STATUS_LINES = {one.value: f"HTTP/1.1 {one.value} {one.phrase}\r\n".encode() for one in HTTPStatus}


class _Event:
    """Stands where uvicorn keeps an event that nobody waits for here."""

    def set(self) -> None:
        pass


class _Cycle:
    """Tells uvicorn about a request of ours: whether it is answered, and whether the connection stays."""

    __slots__ = ("disconnected", "keep_alive", "response_complete")
    message_event = _Event()

    def __init__(self, keep_alive: bool) -> None:
        self.response_complete = False
        self.keep_alive = keep_alive
        self.disconnected = False


class FastLane(HttpToolsProtocol):
    """uvicorn's protocol with a short way for inference. Made by `protocol_class`."""

    respond: Respond
    heads: Heads

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ours = False
        self._parts: list[bytes] = []
        self._size = 0
        self.since = self.loop.time()
        """When the request that is being read began, or the last answer ended."""

        self.reading = False
        self.stuck_since = 0.0
        """Since when the client has fetched nothing of what was written; 0 when it keeps up."""

        self._unfetched = 0
        self._between = False
        """Whether the parser stands behind a whole request of ours and before the next, whose head may be known."""

        self._last_head = b""
        self._misses = 0

    def data_received(self, data: bytes) -> None:
        """Called by the transport. A request that is here whole, and whose head came before, needs no parser."""
        cycle = self.cycle
        if not self._between or not cycle.response_complete:
            super().data_received(data)
            return
        end = data.find(END) + len(END)
        raw = data[:end]
        head = self.heads.find(raw)
        if head is not None and len(data) - end == head.length:
            self._misses = 0
            self._ask(_Cycle(True), head.method, head.path, head.headers, data[end:])
            return
        self._misses += 1
        super().data_received(data)
        # One whole request and nothing else was read: of two, or of chunks, the body is shorter than what came.
        if raw == self._last_head and self._between and self.cycle is not cycle and self._size == len(data) - end:
            method, path = self.parser.get_method().decode("ascii"), self.url.decode("ascii", "replace")
            self.heads.put(raw, Head(method, path, dict(self.headers), self._size))
        self._last_head = raw

    def pause_writing(self) -> None:
        """Called by the transport when the client does not fetch its answers: take no more requests from it."""
        super().pause_writing()
        self.flow.pause_reading()
        self.stuck_since, self._unfetched = self.loop.time(), self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """Called by the transport when the client has caught up."""
        super().resume_writing()
        self.flow.resume_reading()
        self.stuck_since = 0.0

    def on_message_begin(self) -> None:
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._ours = self._between = False
        self.reading = True
        self.since = self.loop.time()

    def on_headers_complete(self) -> None:
        cycle = self.cycle
        if (
            self.url.startswith(_PATHS)
            and (cycle is None or cycle.response_complete)
            and not self.expect_100_continue
            and b"%" not in self.url
            and b"?" not in self.url
            and self.parser.get_http_version() == "1.1"
            and not self.parser.should_upgrade()
        ):
            self._ours = True
            self._parts = []
            self._size = 0
            return
        headers, expects = self.headers, self.expect_100_continue
        url = self.url
        super().on_message_begin()  # makes the scope that was not needed until now
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._ours:
            super().on_body(body)
            return
        self._size += len(body)
        if self._size <= answers.MAX_BODY_BYTES:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        self.reading = False
        if not self._ours:
            super().on_message_complete()
            return
        if self._size > answers.MAX_BODY_BYTES:
            self.cycle = cycle = _Cycle(False)  # type: ignore[assignment]  # it has what uvicorn looks at
            answers.refuse(partial(self._reply, cycle), answers.too_big())
            return
        parts, self._parts = self._parts, []
        cycle = _Cycle(self.parser.should_keep_alive())
        self._between = cycle.keep_alive and self._misses < _MISSES
        method, path = self.parser.get_method().decode("ascii"), self.url.decode("ascii", "replace")
        if len(parts) == 1 or self._size <= AT_ONCE_BYTES:
            self._ask(cycle, method, path, dict(self.headers), parts[0] if len(parts) == 1 else b"".join(parts))
            return
        self.cycle = cycle  # type: ignore[assignment]  # as in `_ask`; it is busy from now on
        headers = dict(self.headers)

        def joined(future: asyncio.Future[bytes]) -> None:
            if future.exception() is not None:
                self.transport.abort()
            elif not cycle.disconnected:
                self._ask(cycle, method, path, headers, future.result())

        self.loop.run_in_executor(None, b"".join, parts).add_done_callback(joined)

    def _ask(self, cycle: _Cycle, method: str, path: str, headers: dict[bytes, bytes], body: bytes) -> None:
        self.cycle = cycle  # type: ignore[assignment]  # it has what uvicorn looks at
        self.respond(method, path, headers, body, partial(self._reply, cycle))

    def _reply(self, cycle: _Cycle, status: int, body: bytes, headers: answers.Headers) -> None:
        if cycle.response_complete:
            return
        cycle.response_complete = True
        if cycle.disconnected or self.transport.is_closing():
            return
        lines = [_STATUS_LINES[status]]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"content-length: %d\r\n" % len(body))
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines += (b"\r\n", body)
        self.transport.write(b"".join(lines))
        self.server_state.total_requests += 1
        self.since = self.loop.time()
        if not cycle.keep_alive:
            self.transport.close()
        elif self.pipeline:
            self.on_response_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the sweep closes idle connections
        self.since = self.loop.time()

    def _is_stuck(self, now: float) -> bool:
        """Return whether the client has fetched nothing for too long; a slow one that fetches may be slow."""
        left = self.transport.get_write_buffer_size()
        if left < self._unfetched:
            self.stuck_since, self._unfetched = now, left
        return now - self.stuck_since > WRITE_SECONDS

    def expire(self, now: float) -> None:
        """Close the connection if it was silent, or slow to send or to fetch, for too long."""
        if self.transport is None or self.transport.is_closing():
            return
        if self.stuck_since and self._is_stuck(now):
            self.transport.abort()  # closing would wait for what the client does not fetch
            return
        busy = self.cycle is not None and not self.cycle.response_complete
        if self.reading and now - self.since > READ_SECONDS:
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.transport.close()
        elif not self.reading and not busy and now - self.since > IDLE_SECONDS:
            self.transport.close()


def protocol_class(respond_with: Respond) -> type[FastLane]:
    """Return the protocol bound to a data plane."""

    class Bound(FastLane):
        respond = staticmethod(respond_with)
        heads = Heads()

    return Bound


async def sweep(connections: set[Any], every_seconds: float = 1.0) -> None:
    """Close what is silent or slow, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(every_seconds)
        now = loop.time()
        for connection in list(connections):
            if isinstance(connection, FastLane):
                connection.expire(now)

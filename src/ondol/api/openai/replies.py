"""Answers in OpenAI's shapes over raw ASGI: JSON, server-sent events, errors.

Must not decide anything.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from ondol.base import errors

Json = dict[str, Any]
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Json]]
Send = Callable[[Json], Awaitable[None]]

MAX_BODY = 8 << 20  # bytes: a chat with a few pictures; a question of an application has a limit of its own
_encoder = msgspec.json.Encoder()
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "invalid_request_error"}


class TooLarge(errors.InputError):
    """The request's body is larger than we take."""

    default_code = "INP-179"
    http_status = 413


class GoneAway(Exception):
    """The caller hung up."""


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the request's body.

    :raises TooLarge: beyond `MAX_BODY`. GoneAway: when the caller hung up before its end.
    """
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared) > MAX_BODY:
        raise _too_large(int(declared))
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise GoneAway
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY:
            raise _too_large(size)
        if not message.get("more_body"):
            return b"".join(parts) if len(parts) > 1 else parts[0]


def _too_large(size: int) -> TooLarge:
    return TooLarge(f"the request has {size} bytes or more; at most {MAX_BODY} are taken")


def header(scope: Scope, name: bytes) -> str:
    """Return a request header, or the empty text."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return ""


async def send_bytes(send: Send, status: int, data: bytes, headers: Mapping[str, str], kind: bytes) -> None:
    """Send a whole answer."""
    lines = [(b"content-type", kind), (b"content-length", str(len(data)).encode())]
    lines.extend((name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items())
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": data})


async def send_json(send: Send, status: int, value: Any, headers: Mapping[str, str]) -> None:
    """Send a JSON answer."""
    await send_bytes(send, status, _encoder.encode(value), headers, b"application/json")


def error_body(error: errors.OndolError, param: str | None = None) -> Json:
    """Return an error as OpenAI's clients read it."""
    message = error.message + (f" {error.way_out}" if error.way_out else "")
    kind = _TYPES.get(error.http_status, "api_error")
    if error.code == "REF-160":
        kind = "insufficient_quota"
    elif isinstance(error, errors.UpstreamError):
        kind = "upstream_error"
    elif isinstance(error, errors.RefusedError):
        kind = "permission_error"
    return {"error": {"message": message, "type": kind, "param": param or error.where or None, "code": error.code}}


def status_of(error: errors.OndolError) -> int:
    """Return the HTTP status of an error: a used-up budget is 429, an unsupported field is the caller's 400."""
    if error.code == "REF-160":
        return 429
    return 400 if isinstance(error, errors.UnsupportedError) else error.http_status


async def send_error(send: Send, error: errors.OndolError, headers: Mapping[str, str], param: str | None = None) -> int:
    """Send an error and return its status. What a retry can not mend tells the client not to."""
    status = status_of(error)
    more = {"x-should-retry": "false"} if isinstance(error, errors.RefusedError) else {}
    await send_json(send, status, error_body(error, param), {**headers, **more})
    return status


class EventStream:
    """Server-sent events. Notices when the caller hangs up."""

    def __init__(self, send: Send, receive: Receive, headers: Mapping[str, str]) -> None:
        self._send, self._receive, self._headers = send, receive, headers
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False
        self.started = False

    async def start(self) -> None:
        """Send the head."""
        lines = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        lines.extend((name.encode(), value.encode("latin-1", "replace")) for name, value in self._headers.items())
        await self._send({"type": "http.response.start", "status": 200, "headers": lines})
        self.started = True
        self._watcher = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True

    async def event(self, value: Any) -> None:
        """Send one event.

        :raises GoneAway: when nobody listens any more.
        """
        await self.raw(b"data: " + _encoder.encode(value) + b"\n\n")

    async def raw(self, data: bytes) -> None:
        """Send bytes that are events already; raises as `event`."""
        if self.gone:
            raise GoneAway
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, done: bool = True) -> None:
        """End the stream; `done` sends OpenAI's end mark, which a broken stream must not have."""
        if not self.gone:
            await self._send({"type": "http.response.body", "body": b"data: [DONE]\n\n" if done else b""})
        await self.close()

    async def close(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None

"""Reading a request's body once and handing it on as if it had not been read."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.types import Message, Receive, Scope

MAX_BYTES = 2_000_000  # JSON bodies that are looked into; larger ones are passed on unread
Json = dict[str, Any]


class Buffered:
    """A body that was read; call it as the ASGI `receive` to have it again."""

    def __init__(self, data: bytes, receive: Receive) -> None:
        self.data = data
        self._receive = receive
        self._sent = False

    async def __call__(self) -> Message:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self.data, "more_body": False}
        return await self._receive()

    def json(self) -> Json | None:
        """Return the body as a JSON object, or None when it is not one."""
        try:
            value = msgspec.json.decode(self.data)
        except msgspec.DecodeError:
            return None
        return value if isinstance(value, dict) else None


async def read(receive: Receive) -> Buffered:
    """Read the whole body."""
    message = await receive()
    data = message.get("body", b"")
    if message.get("more_body"):
        chunks = [data]
        while message.get("more_body"):
            message = await receive()
            chunks.append(message.get("body", b""))
        data = b"".join(chunks)
    return Buffered(data, receive)


def header(scope: Scope, name: bytes) -> str:
    """Return the first value of a header, or an empty string."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")


def with_length(scope: Scope, length: int) -> None:
    """Make the request's Content-Length fit a changed body."""
    headers = [(key, value) for key, value in scope["headers"] if key != b"content-length"]
    scope["headers"] = [*headers, (b"content-length", str(length).encode())]

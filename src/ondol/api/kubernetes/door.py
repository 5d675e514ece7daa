"""The resource API over HTTP: an ASGI application for everything under `/k8s` of the control process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ondol.api.kubernetes import status
from ondol.api.kubernetes.admission import MAX_BYTES
from ondol.api.kubernetes.api import Answer, ResourceApi, answer
from ondol.api.kubernetes.requests import Call
from ondol.api.kubernetes.watching import BOOKMARK_SECONDS, Bell, Watch
from ondol.store.connection import Store

_log = logging.getLogger(__name__)
PREFIX = "/k8s"
_THREADS = 8
_WARNING_CHARACTERS = 600
T = TypeVar("T")


def is_ours(path: str) -> bool:
    """Say whether a path belongs to the resource API."""
    return path == PREFIX or path.startswith(PREFIX + "/")


class KubernetesDoor:
    """An ASGI application. Requests are answered in a few threads of its own, each with its own connection."""

    def __init__(self, store: Store) -> None:
        self._api = ResourceApi(store)
        self._bell = Bell(store)
        self._threads = ThreadPoolExecutor(_THREADS, "resources")

    def close(self) -> None:
        """End all watches, as when the server goes away; safe in a signal handler."""
        self._bell.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            found = await self._answer(request)
        except ClientDisconnect:
            return
        if isinstance(found, Watch):
            # Chunked, unbuffered, one line an event.
            response: Response = StreamingResponse(self._stream(found), media_type="application/json")
        else:
            response = Response(found.body, found.status, dict(found.headers), found.media_type)
            for text in found.warnings:
                response.raw_headers.append((b"warning", warning(text)))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Answer | Watch:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BYTES:
                return answer(status.too_large(MAX_BYTES).to_json(), 413)
        call = Call(
            request.method,
            request.scope["path"].removeprefix(PREFIX) or "/",
            dict(request.query_params),
            dict(request.headers),
            body,
            PREFIX,
        )
        try:
            return await self._in_thread(lambda: self._api(call))
        except Exception as error:  # noqa: BLE001 - kubectl must get a Status, and the log the traceback
            _log.exception("%s %s failed", call.method, call.path)
            text = f"an error on the server: {type(error).__name__}: {error}"
            return answer(status.StatusError(500, "InternalError", text).to_json(), 500)

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def _stream(self, watch: Watch) -> AsyncIterator[bytes]:
        now = asyncio.get_running_loop().time
        end, marked = now() + watch.seconds, now()
        with self._bell.listening() as rung:
            for line in await self._in_thread(watch.begin):
                yield line
            while not watch.over and not self._bell.closed and now() < end:
                rung.clear()
                for line in await self._in_thread(watch.poll):
                    yield line
                if watch.bookmarks and now() - marked >= BOOKMARK_SECONDS:
                    marked = now()
                    yield watch.bookmark()
                await _either(rung, min(end - now(), marked + BOOKMARK_SECONDS - now() if watch.bookmarks else 3600.0))
            if watch.bookmarks and not watch.over:
                yield watch.bookmark()


async def _either(rung: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(rung.wait(), max(seconds, 0.0))
    except TimeoutError:
        return


def warning(text: str) -> bytes:
    """Return the value of a `Warning` header (RFC 7234, code 299), which has no room for every character."""
    short = text if len(text) <= _WARNING_CHARACTERS else f"{text[:_WARNING_CHARACTERS]}..."
    quoted = short.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
    return f'299 - "{quoted}"'.encode()

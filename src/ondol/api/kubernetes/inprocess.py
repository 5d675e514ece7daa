"""The resource API without a server: a transport for httpx that answers from the store itself.

Commands use it when no control process runs, so that they go through the same validation and write the same history.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx

from ondol.api.kubernetes.api import ResourceApi
from ondol.api.kubernetes.door import PREFIX, warning
from ondol.api.kubernetes.requests import Call
from ondol.api.kubernetes.watching import POLL_SECONDS, Watch
from ondol.store.connection import Store

URL = f"http://store{PREFIX}"


class StoreTransport(httpx.BaseTransport):
    """Answers requests to `URL` from a store."""

    def __init__(self, store: Store) -> None:
        self._api = ResourceApi(store)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        call = Call(
            request.method,
            request.url.path.removeprefix(PREFIX),
            dict(request.url.params),
            dict(request.headers),
            request.read(),
            PREFIX,
        )
        found = self._api(call)
        if isinstance(found, Watch):
            return httpx.Response(200, stream=_Events(found), request=request)
        headers = [
            (b"content-type", found.media_type.encode()),
            *((b"warning", warning(one)) for one in found.warnings),
        ]
        return httpx.Response(found.status, headers=headers, content=found.body, request=request)


class _Events(httpx.SyncByteStream):
    """The lines of a watch, asked for again and again until its time is over."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __iter__(self) -> Iterator[bytes]:
        end = time.monotonic() + self._watch.seconds
        yield from self._watch.begin()
        while not self._watch.over and time.monotonic() < end:
            yield from self._watch.poll()
            time.sleep(POLL_SECONDS)

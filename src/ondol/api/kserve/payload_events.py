"""KServe's payload logger: requests and answers as CloudEvents, sent beside the answer and never in its way.

Binary mode, version 1.0; types, ids and extensions are those of KServe's agent. Events wait in a bounded queue and are
tried again when the receiver fails; what is lost is counted. Must not delay or fail a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ondol.api.kserve.answers import Headers, Reply
from ondol.api.kserve.caller import RequestHeaders
from ondol.base import clock, errors, transport

if TYPE_CHECKING:
    from ondol.formats.inference_service import Logger

MOST_WAITING = 1_000
SENDERS = 5
TRIES_SECONDS = (0.2, 1.0, 5.0)
"""Waits between tries; the last failure is final."""

_TIMEOUT_SECONDS = 10.0
_TYPE = "org.kubeflow.serving.inference."


@dataclass(frozen=True, slots=True)
class Source:
    """Whose payloads are sent where."""

    logger: Logger
    service: str
    namespace: str
    component: str
    annotations: Mapping[str, str]
    """Those of the service that `metadataAnnotations` names."""


class PayloadEvents:
    """Takes payloads and sends them. Everything happens on the event loop."""

    def __init__(self) -> None:
        self.delivered = self.lost = 0
        self._client = transport.Client()
        self._queue: asyncio.Queue[tuple[str, dict[str, str], bytes]] = asyncio.Queue(MOST_WAITING)
        self._senders: list[asyncio.Task[None]] = []

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    def tap(self, source: Source, headers: RequestHeaders, body: bytes, reply: Reply) -> Reply:
        """Send the request as an event if that is wanted; return a reply that sends the answer when it is 200."""
        mode = source.logger.mode
        shared = _attributes(source, headers)
        if mode in ("all", "request"):
            self._put(source, shared, "request", body)
        if mode == "request":
            return reply

        def answer(status: int, payload: bytes, extra: Headers) -> None:
            reply(status, payload, extra)
            if status == 200:
                self._put(source, shared, "response", payload)

        return answer

    def _put(self, source: Source, shared: Mapping[str, str], kind: str, body: bytes) -> None:
        now = clock.iso(clock.SYSTEM.now())
        event = {**shared, "ce-type": _TYPE + kind, "ce-time": now, "ce-recordedtime": now}
        if not self._senders:
            loop = asyncio.get_running_loop()
            self._senders = [loop.create_task(self._send_all()) for _ in range(SENDERS)]
        try:
            self._queue.put_nowait((source.logger.url, event, body))
        except asyncio.QueueFull:
            self.lost += 1

    async def _send_all(self) -> None:
        while True:
            url, event, body = await self._queue.get()
            if await self._sent(url, event, body):
                self.delivered += 1
            else:
                self.lost += 1
            self._queue.task_done()

    async def _sent(self, url: str, event: Mapping[str, str], body: bytes) -> bool:
        for wait in (*TRIES_SECONDS, None):
            with contextlib.suppress(errors.OndolError, OSError):
                answer = await self._client.post(url, event, body, _TIMEOUT_SECONDS)
                await answer.read()
                if answer.status < 300:
                    return True
                if 400 <= answer.status < 500 and answer.status not in (408, 429):
                    return False  # it will not be taken next time either
            if wait is not None:
                await asyncio.sleep(wait)
        return False

    async def stop(self, seconds: float = 3.0) -> None:
        """Send what waits, for a while at most; the rest counts as dropped."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._queue.join()
        self.lost += self._queue.qsize()
        for one in self._senders:
            one.cancel()
        await self._client.close()


def _attributes(source: Source, headers: RequestHeaders) -> dict[str, str]:
    """Return what a request's two events have in common."""
    wanted = {name.lower(): name for name in source.logger.metadata_headers}
    metadata = {
        wanted[name.decode("latin-1")]: [value.decode("latin-1")]
        for name, value in headers.items()
        if name.decode("latin-1") in wanted
    }
    found = {
        "content-type": headers.get(b"content-type", b"application/json").decode("latin-1"),
        "ce-specversion": "1.0",
        "ce-id": headers.get(b"ce-id", b"").decode("latin-1") or str(uuid.uuid4()),
        "ce-source": f"{source.service}-{source.component}",
        "ce-inferenceservicename": source.service,
        "ce-namespace": source.namespace,
        "ce-component": source.component,
        "ce-endpoint": "default",
        "ce-metadata": json.dumps(metadata, ensure_ascii=True),
    }
    if source.annotations:
        found["ce-annotations"] = json.dumps(dict(source.annotations), ensure_ascii=True)
    return found

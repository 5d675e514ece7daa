"""One loopback port per service where its transformer and explainer reach the predictor behind them.

On a cluster a predictor has a host name of its own (`PREDICTOR_HOST`), and whatever model a path names is that
predictor's. Here it is a port. Must not be reachable from other machines.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from ondol.api.kserve import fast_lane
from ondol.app import listen
from ondol.base.settings import Address

Answer = Callable[[Any, Any, Any, fast_lane.Respond], Awaitable[None]]
_LOOPBACK = Address("127.0.0.1", 0)
_MODEL = re.compile(r"^(/v[12]/models/)[^/:]+")


class Inside:
    """The ports, opened when first asked for.

    :param respond: answers a request whose path names the service.
    :param answer: the same for a request that came through ASGI.
    """

    def __init__(self, respond: fast_lane.Respond, answer: Answer) -> None:
        self._respond = respond
        self._answer = answer
        self._ports: dict[str, str] = {}
        self._servers: list[asyncio.AbstractServer] = []
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._state: Any = None

    def start(self, loop: asyncio.AbstractEventLoop, state: Any) -> None:
        """Name the loop that answers and the server whose connections these are too."""
        self._loop, self._state = loop, state

    def address(self, service: str) -> str:
        """Return `HOST:PORT` of a service's predictor; called by the loading thread."""
        assert self._loop is not None  # `start` comes first
        with self._guard:
            if service not in self._ports:
                listening = listen.bind(_LOOPBACK)
                serving = self._serve(listening, service)
                self._servers.append(asyncio.run_coroutine_threadsafe(serving, self._loop).result(10))
                self._ports[service] = str(listen.address_of(listening))
            return self._ports[service]

    async def _serve(self, listening: Any, service: str) -> asyncio.AbstractServer:
        def respond(method: str, path: str, headers: dict[bytes, bytes], body: bytes, reply: Any) -> None:
            self._respond(method, _MODEL.sub(rf"\g<1>{service}", path), headers, body, reply)

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await self._answer(scope, receive, send, respond)

        kind = fast_lane.protocol_class(respond)
        config = uvicorn.Config(
            application, http=kind, ws="none", access_log=False, log_config=None, lifespan="off", server_header=False,
            date_header=False,
        )  # fmt: skip
        config.load()
        loop = asyncio.get_running_loop()
        return await loop.create_server(lambda: kind(config, self._state, {}, loop), sock=listening)

    def stop(self) -> None:
        """Close the ports."""
        for server in self._servers:
            server.close()

"""The data plane process: inference over HTTP, following the routes; control may come and go.

`python -m ondol.app.dataplane` (settings from the environment, or `--home`, `--listen`). SIGTERM: not ready first, then
what is under way is answered, the request log is written, exit 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hmac
import importlib
import logging
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from ondol.api.kserve import answers, fast_lane
from ondol.api.kserve.door import KServeDoor
from ondol.api.kserve.exchange import Context
from ondol.api.kserve.graphs import GraphDoor
from ondol.app import gauges, listen
from ondol.app.inside import Inside
from ondol.app.language_models import LanguageModels
from ondol.app.manifests import Manifests
from ondol.base import errors
from ondol.base import settings as settings_module
from ondol.base.settings import OFF, Address, Settings
from ondol.serving import collecting
from ondol.serving.desired import RouteTable
from ondol.serving.metrics import Metrics
from ondol.serving.models import Models
from ondol.serving.request_log import RequestLog
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

log = logging.getLogger("ondol.dataplane")
_encode = msgspec.json.Encoder().encode

NOT_READY_SECONDS = 0.2
"""How long it says "not ready" before it stops to accept: a prober must get the chance to see it."""

DRAIN_SECONDS = 8
_OPEN = ("/readyz", "/livez", "/v2/health/live", "/v2/health/ready")


class DataPlane:
    """The ASGI application and everything behind it."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.routes = RouteTable(store)
        self.request_log = RequestLog(store)
        self.metrics = Metrics()
        self.inside = Inside(self.respond_inside, self._answer)
        self.models = Models(store, Blobs(settings.blobs), settings.home, self.inside.address, safe=settings.safe)
        self.context = Context(self.request_log, self.metrics)
        self.door = KServeDoor(self.models, self.context, store)
        self.graphs = GraphDoor(self.door.handle, self.metrics, settings.propagate_headers)
        self.language_models = LanguageModels(store, settings, self.routes, self.models, self.context)
        self.manifests = Manifests(store, self.models, self.graphs, self.language_models)
        self.grpc: Any = None
        self._key = "" if settings.data.is_loopback else settings.api_key
        self._grpc_key = "" if settings.grpc is None or settings.grpc.is_loopback else settings.api_key
        gauges.add(self.context, self.models, self.door.around.events)

    async def start(self) -> None:
        """Follow the routes, load what they name, write what is observed."""
        self._read_policy()
        self.request_log.start()
        self.models.start(asyncio.get_running_loop())
        self.manifests.follow()
        self.routes.on_commit(self.manifests.follow)
        await asyncio.to_thread(self.routes.start)
        self.routes.subscribe(self.models.follow)
        self.language_models.start()
        if self.settings.grpc is not None:
            await self._start_grpc(self.settings.grpc)

    async def _start_grpc(self, address: Address) -> None:
        """Serve gRPC as well; its library is imported beside what loads already."""
        module = await asyncio.to_thread(importlib.import_module, "ondol.api.kserve.grpc_server")
        server = module.GRPCServer(self.door, lambda headers: not self._grpc_key or _has_key(headers, self._grpc_key))
        await server.start(address)
        self.grpc = server
        log.info("gRPC listens on %s", address)

    async def drain(self) -> None:
        """Wait until nothing is being answered any more, for a while at most."""
        deadline = asyncio.get_running_loop().time() + DRAIN_SECONDS
        while any(self.metrics.in_flight.values()) and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """Stop in the order that loses nothing: answers are out, then observations are written."""
        await self.drain()
        if self.grpc is not None:
            await self.grpc.stop(DRAIN_SECONDS)
        await self.graphs.close()
        await self.language_models.stop()
        await asyncio.to_thread(self.routes.stop)
        await asyncio.to_thread(self.models.stop)
        self.inside.stop()
        await self.door.around.events.stop()
        await asyncio.to_thread(self.request_log.stop)

    def _read_policy(self) -> None:
        """Take what the project says about logging; a project that is not there, or broken, is control's to report."""
        if not (self.settings.project / settings_module.PROJECT_FILE).is_file():
            return
        from ondol.formats import project as projects

        with contextlib.suppress(errors.OndolError):
            monitoring = projects.load(self.settings.project).monitoring
            self.context.sample, self.context.features = monitoring.sample, monitoring.features

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        allowed = not self._key or _has_key(dict(scope["headers"]), self._key)
        if path.startswith("/openai/v1") and allowed:
            await self.language_models.ask(scope, receive, send)
            return
        await self._answer(scope, receive, send, self.respond)

    async def _answer(self, scope: Any, receive: Any, send: Any, respond: fast_lane.Respond) -> None:
        if scope["type"] != "http":
            return
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[int, bytes, answers.Headers]] = loop.create_future()

        def reply(status: int, body: bytes, headers: answers.Headers) -> None:
            if not future.done():
                future.set_result((status, body, headers))

        try:
            body = await _read(receive, dict(scope["headers"]))
        except errors.OndolError as error:
            answers.refuse(reply, error, [(b"connection", b"close")])
        except ConnectionResetError:
            return
        else:
            respond(scope["method"], scope["path"], dict(scope["headers"]), body, reply)
        status, answer, headers = await future
        headers = [*headers, (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def respond(self, method: str, path: str, headers: dict[bytes, bytes], body: bytes, reply: answers.Reply) -> None:
        """Answer one whole request, now or later."""
        if self._key and path not in _OPEN and not _has_key(headers, self._key):
            message, way_out = "the API key is missing or wrong", "Send `Authorization: Bearer $ONDOL_API_KEY`."
            answers.refuse(reply, errors.RefusedError(message, way_out=way_out, code="REF-010"))
            return
        if self.graphs.handle(method, path, headers, body, reply):
            return
        if self.door.handle(method, path, headers, body, reply):
            return
        if path == "/readyz":
            ready = self.models.settled and self.language_models.is_open and not self.door.draining
            states = self.models.states()
            grpc_at = str(self.settings.grpc or OFF)
            document = {"ready": ready, "services": states, "grpc": grpc_at}
            reply(200 if ready else 503, _encode(document), [answers.JSON])
        elif path == "/livez":
            reply(200, b'{"live":true}', [answers.JSON])
        elif path == "/metrics":
            reply(200, self.metrics.render().encode(), [(b"content-type", b"text/plain; version=0.0.4")])
        else:
            answers.refuse(
                reply,
                errors.NotFoundError(f"nothing is served at {path!r}", way_out="GET /v1/models", code="NOF-021"),
            )

    def respond_inside(
        self, method: str, path: str, headers: dict[bytes, bytes], body: bytes, reply: answers.Reply
    ) -> None:
        """Answer a transformer or explainer that asks for its predictor."""
        if not self.door.handle(method, path, headers, body, reply, inside=True):
            missing = errors.NotFoundError(f"a predictor serves nothing at {path!r}", code="NOF-021")
            answers.refuse(reply, missing)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        await self.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})


def _has_key(headers: dict[bytes, bytes], key: str) -> bool:
    scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() != b"bearer":
        given = headers.get(b"x-api-key", b"")
    return hmac.compare_digest(given, key.encode())


async def _read(receive: Any, headers: dict[bytes, bytes]) -> bytes:
    """Return the whole body.

    :raises InputError: INP-208 as soon as it is known to be too big.
    """
    declared = headers.get(b"content-length", b"0")
    if declared.isdigit() and int(declared) > answers.MAX_BODY_BYTES:
        raise answers.too_big()
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise ConnectionResetError
    if not message.get("more_body"):
        return body
    parts, size = [body], len(body)
    while message.get("more_body"):
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > answers.MAX_BODY_BYTES:
            raise answers.too_big()
    return b"".join(parts)


class _Server(uvicorn.Server):
    """uvicorn's server that says "not ready" before it stops."""

    def __init__(self, config: uvicorn.Config, plane: DataPlane) -> None:
        super().__init__(config)
        self._plane = plane
        self._sweeper: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Start to accept; a sweeper looks after silent and slow connections."""
        self._plane.inside.start(asyncio.get_running_loop(), self.server_state)
        await super().startup(sockets)
        self._sweeper = asyncio.get_running_loop().create_task(fast_lane.sweep(self.server_state.connections))

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Let requests under way finish, then stop what is behind them."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Called by the signal: say so first, stop a moment later. A second signal stops at once."""
        if self._plane.door.draining:
            super().handle_exit(sig, frame)
            return
        self._plane.door.draining = True
        log.info("draining")
        threading.Timer(NOT_READY_SECONDS, self._stop).start()

    def _stop(self) -> None:
        self.should_exit = True  # looked at every tenth of a second


def main(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    exposed = [str(one) for one in (settings.data, settings.grpc) if one is not None and not one.is_loopback]
    if exposed and not settings.api_key:
        raise errors.RefusedError(
            f"refusing to listen on {exposed[0]!r} without a key",
            way_out="Set ONDOL_API_KEY, or listen on 127.0.0.1.",
            code="REF-002",
        )
    # Small predictions, many at once: OpenMP's threads would only wait for each other. Before scikit-learn is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    collecting.wait()
    listening = listen.inherited_or_bound(settings.data, "--data")
    store = Store(settings.database)
    plane = DataPlane(store, settings)
    config = uvicorn.Config(
        plane,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=fast_lane.protocol_class(plane.respond),
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        backlog=2048,
    )
    server = _Server(config, plane)
    log.info("listening on %s", listen.address_of(listening))
    server.run(sockets=[listening])
    store.close()


def _arguments(argv: list[str]) -> Settings:
    parser = argparse.ArgumentParser(prog="python -m ondol.app.dataplane")
    parser.add_argument("--home", help="folder with the state (default: as `ondol` finds it)")
    parser.add_argument("--listen", help="HOST:PORT (default: 127.0.0.1:8080)")
    parser.add_argument("--grpc", help="HOST:PORT or off (default: $ONDOL_GRPC, else off)")
    chosen = parser.parse_args(argv)
    if chosen.home:
        os.environ["ONDOL_HOME"] = str(Path(chosen.home).resolve())
    found = settings_module.load()
    if chosen.listen:
        found = replace(found, data=settings_module.parse_address(chosen.listen))
    return replace(found, grpc_at=chosen.grpc or found.grpc_at or OFF)


if __name__ == "__main__":
    try:
        main(_arguments(sys.argv[1:]))
    except errors.OndolError as error:
        print(f"error[{error.code}]: {error.message}\n  {error.way_out}", file=sys.stderr)
        sys.exit(error.exit_code)

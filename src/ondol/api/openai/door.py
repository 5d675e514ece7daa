"""The door: one ASGI application for everything below `/openai/v1`.

    POST chat/completions   model = an application, or PROVIDER/MODEL for the gateway
    POST embeddings         model = ondol-embedding, or PROVIDER/MODEL
    GET  models             applications and configured models

Must not import anything heavy: it is on the data plane's path.
"""

from __future__ import annotations

import hmac
import logging
import time
from typing import Any

from ondol.api.openai import application_chat, embeddings, gateway, replies, requests
from ondol.api.openai.wiring import Services
from ondol.base import errors, ids, settings
from ondol.llm import registry
from ondol.rollout import units
from ondol.serving.application_host import ApplicationHost
from ondol.serving.desired import RouteTable
from ondol.serving.request_log import RequestLog
from ondol.store.connection import Store

log = logging.getLogger("ondol.openai")
Json = dict[str, Any]
_REFUSED = {
    "/responses": "the responses API",
    "/completions": "the legacy completions API",
    "/images/generations": "images",
    "/audio/speech": "audio",
    "/audio/transcriptions": "audio",
    "/moderations": "moderations",
    "/files": "files",
    "/batches": "batches",
    "/fine_tuning/jobs": "fine-tuning",
    "/assistants": "assistants",
    "/threads": "threads",
    "/vector_stores": "vector stores",
}


class OpenAIDoor:
    """Answers OpenAI's clients.

    :param routes: who serves which application; followed by the data plane.
    :param request_log: takes an observation per question to an application.
    """

    def __init__(
        self,
        store: Store,
        settings_: settings.Settings,
        routes: RouteTable,
        request_log: RequestLog,
        services: Services | None = None,
    ) -> None:
        self._settings, self._routes = settings_, routes
        self.services = services or Services(store, settings_)
        self.host = ApplicationHost(store, self.services.opener.open)
        self._gateway = gateway.Gateway(self.services)
        self._applications = application_chat.ApplicationChat(self.services, self.host, request_log)

    async def start(self) -> None:
        """Begin to book, and open what the routes name."""
        self.services.start()
        self.host.start()
        self._routes.subscribe(self.host.follow)

    async def stop(self) -> None:
        """Write what is there and close everything."""
        self.host.stop()
        await self.services.stop()

    async def __call__(self, scope: replies.Scope, receive: replies.Receive, send: replies.Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = {"x-request-id": replies.header(scope, b"x-request-id")[:128] or ids.new_id("req")}
        try:
            await self._answer(scope, receive, send, headers)
        except replies.GoneAway:
            return
        except errors.OndolError as error:
            await replies.send_error(send, error, headers)
        except Exception:
            log.exception("the OpenAI door failed on %s", scope["path"])
            failed = errors.OndolError("Ondol failed on this request; its log says why", code="ERR-160")
            await replies.send_error(send, failed, headers)

    async def _answer(
        self, scope: replies.Scope, receive: replies.Receive, send: replies.Send, headers: dict[str, str]
    ) -> None:
        self._authorize(scope)
        path, method = _path(scope), scope["method"]
        if path == "/chat/completions" and method == "POST":
            await self._chat(scope, receive, send, headers)
        elif path == "/embeddings" and method == "POST":
            await self._embeddings(scope, receive, send, headers)
        elif path == "/models" and method == "GET":
            await replies.send_json(send, 200, {"object": "list", "data": self._models()}, headers)
        elif path.startswith("/models/") and method == "GET":
            await self._one_model(path.removeprefix("/models/"), send, headers)
        elif (
            refused := next((one for one in _REFUSED if path == one or path.startswith(one + "/")), None)
        ) is not None:
            raise errors.UnsupportedError(
                f"{_REFUSED[refused]} ({path}) is not offered here",
                way_out="Use /v1/chat/completions, /v1/embeddings or /v1/models.",
                code="UNS-167",
            )
        elif path in ("/chat/completions", "/embeddings", "/models"):
            raise errors.UsageError(f"{method} is not what {path} takes", code="USE-160")
        else:
            raise errors.NotFoundError(f"no such path: {path}", way_out="`GET /openai/v1/models`?", code="NOF-165")

    def _authorize(self, scope: replies.Scope) -> None:
        key = self._settings.api_key
        if not key or self._settings.data.is_loopback:
            return
        given = replies.header(scope, b"authorization").removeprefix("Bearer ").strip()
        if not hmac.compare_digest(given.encode(), key.encode()):
            raise _Unauthorized("the API key is missing or wrong", way_out="Send `Authorization: Bearer KEY`.")

    async def _chat(
        self, scope: replies.Scope, receive: replies.Receive, send: replies.Send, headers: dict[str, str]
    ) -> None:
        data = await replies.read_body(scope, receive)
        body = requests.decode(data)
        model = requests.model_of(body)
        unit = replies.header(scope, b"x-ondol-unit")
        parent = replies.header(scope, b"traceparent")
        route = self._routes.get(model)
        if route is not None and route.kind == "application":
            unit = unit or units.find(route.unit, lambda name: replies.header(scope, name.encode()), data)
            await self._applications.answer(body, route, unit, headers, send, receive, parent)
            return
        spec = self._spec(model)
        user = body["user"] if isinstance(body.get("user"), str) else ""
        await self._gateway.chat(body, len(data), spec, unit or user, headers, send, receive, parent)

    def _spec(self, model: str) -> registry.LLMSpec:
        spec = self.services.resolve(model)
        if spec is None:
            names = ", ".join(one["id"] for one in self._models()[:8]) or "none yet"
            raise errors.NotFoundError(
                f"the model {model!r} does not exist",
                where="model",
                way_out=f"There are: {names}; or PROVIDER/MODEL like openai/gpt-4o-mini.",
                code="model_not_found",
            )
        return spec

    async def _embeddings(
        self, scope: replies.Scope, receive: replies.Receive, send: replies.Send, headers: dict[str, str]
    ) -> None:
        body = requests.decode(await replies.read_body(scope, receive))
        model = requests.model_of(body)
        if model == embeddings.MODEL:
            await replies.send_json(send, 200, await embeddings.answer(body), headers)
            return
        unit = replies.header(scope, b"x-ondol-unit") or (body["user"] if isinstance(body.get("user"), str) else "")
        await self._gateway.embeddings(body, self._spec(model), unit, headers, send)

    def _models(self) -> list[Json]:
        names = [route.service for route in self._routes.every() if route.kind == "application"]
        owned = [(name, "ondol") for name in names]
        owned += [(text, spec.provider) for text, spec in self.services.configured().items()]
        owned += [(name, spec.provider) for name, spec in self.services.served.items()]
        owned.append((embeddings.MODEL, "ondol"))
        now = int(time.time())
        return [{"id": name, "object": "model", "created": now, "owned_by": owner} for name, owner in owned]

    async def _one_model(self, name: str, send: replies.Send, headers: dict[str, str]) -> None:
        found = next((one for one in self._models() if one["id"] == name), None)
        if found is None:
            self._spec(name)
            found = {"id": name, "object": "model", "created": int(time.time()), "owned_by": name.partition("/")[0]}
        await replies.send_json(send, 200, found, headers)


class _Unauthorized(errors.OndolError):
    default_code = "USE-161"
    http_status = 401


def _path(scope: replies.Scope) -> str:
    """Return the path below the version, wherever the door is mounted."""
    path = str(scope["path"])
    below = path.partition("/v1")[2] if "/v1" in path else path
    return below.rstrip("/") or "/"

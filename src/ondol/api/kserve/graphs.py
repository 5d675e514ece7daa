"""Inference graphs over HTTP: `POST /v1/graphs/NAME`, or a request whose Host is the graph's.

A service of this machine is called in the process, without HTTP; any other address over HTTP. Of the request's headers
only those go on to the steps that match `ONDOL_PROPAGATE_HEADERS`, as on a cluster, and the trace context.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from ondol.api.kserve import answers
from ondol.api.kserve.answers import Headers, Reply
from ondol.base import errors, transport
from ondol.serving.graph.router import Answer, Router, RoutingError
from ondol.serving.metrics import Metrics

if TYPE_CHECKING:
    from ondol.formats.inference_graph import InferenceGraph, Step

RequestHeaders = dict[bytes, bytes]
Handle = Callable[[str, str, RequestHeaders, bytes, Reply], bool]
"""Whatever serves the services of this machine: method, path, headers, body, reply; False: no such path."""

PREFIX = "/v1/graphs"
_ALWAYS = (b"traceparent", b"tracestate")
_FOREVER = 86_400.0
_LOCAL = re.compile(r"(?P<service>[a-z][-a-z0-9]*?)(-predictor)?\.[-a-z0-9]+\.svc(\.cluster\.local)?")


class GraphDoor:
    """The graphs of this data plane.

    :param handle: the door of the services of this machine.
    :param propagate: patterns of header names that go on to the steps.
    """

    def __init__(self, handle: Handle, metrics: Metrics, propagate: tuple[str, ...] = ()) -> None:
        self._handle = handle
        self._metrics = metrics
        self._patterns = [re.compile(one) for one in propagate]
        self._client = transport.Client()
        self._graphs: Mapping[str, InferenceGraph] = {}
        self._protocols: Mapping[str, str] = {}
        self._ready: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def configure(self, graphs: Mapping[str, InferenceGraph], protocols: Mapping[str, str]) -> None:
        """Take the graphs as they should be, and the protocol of each service; may be called from any thread."""
        changed = {name for name in graphs.keys() | self._graphs.keys() if graphs.get(name) != self._graphs.get(name)}
        self._protocols = dict(protocols)
        self._graphs = dict(graphs)
        self._ready = self._ready - changed

    async def close(self) -> None:
        """Close the connections to other servers."""
        await self._client.close()

    def handle(self, method: str, path: str, headers: RequestHeaders, body: bytes, reply: Reply) -> bool:
        """Answer a request through `reply`, later; return False when it is for no graph."""
        graph, known = self._find(method, path, headers)
        if graph is None and not known:
            return False
        try:
            self._begin(method, path, graph, headers, body, reply)
        except errors.OndolError as error:
            answers.refuse(reply, error)
        return True

    def _find(self, method: str, path: str, headers: RequestHeaders) -> tuple[InferenceGraph | None, bool]:
        """Return the graph a request is for, and whether it is for graphs at all."""
        if path == PREFIX or path.startswith(PREFIX + "/"):
            return self._graphs.get(path[len(PREFIX) + 1 :].rstrip("/")), True
        if self._graphs and method == "POST":
            name, _, rest = headers.get(b"host", b"").decode("latin-1").partition(".")
            graph = self._graphs.get(name)
            if graph is not None and rest.partition(":")[0].split(".")[0] == graph.namespace:
                return graph, True
        return None, False

    def _begin(
        self, method: str, path: str, graph: InferenceGraph | None, headers: RequestHeaders, body: bytes, reply: Reply
    ) -> None:
        if graph is None:
            if path.rstrip("/") == PREFIX and method == "GET":
                reply(200, msgspec.json.encode({"graphs": sorted(self._graphs)}), [answers.JSON])
                return
            name = path[len(PREFIX) + 1 :]
            raise errors.NotFoundError(
                f"no graph {name!r}", where="path", way_out=f"GET {PREFIX} lists them.", code="NOF-300"
            )
        if method == "GET" and path.startswith(PREFIX):
            self._check_ready(graph)
            reply(200, msgspec.json.encode({"name": graph.name, "ready": True}), [answers.JSON])
            return
        if method != "POST":
            raise errors.UsageError(f"method {method!r} is not served here", way_out="Use POST.", code="USE-020")
        if len(body) > answers.MAX_BODY_BYTES:
            raise answers.too_big()
        self._check_ready(graph)
        task = asyncio.get_running_loop().create_task(self._answer(graph, headers, body, reply))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _check_ready(self, graph: InferenceGraph) -> None:
        """Wait for the first time that every named service is ready, as KServe does before it starts a router.

        :raises StateError: STA-300 until then.
        """
        if graph.name in self._ready:
            return
        for service in graph.services:
            if not self._serves(service):
                raise errors.StateError(
                    f"graph {graph.name!r} is not ready: service {service!r} is not ready",
                    way_out=f"ondol describe isvc {service}",
                    code="STA-300",
                )
        self._ready.add(graph.name)

    def _serves(self, service: str) -> bool:
        seen: list[int] = []
        self._handle("GET", f"/v1/models/{service}", {}, b"", lambda status, _body, _headers: seen.append(status))
        return not seen or seen[0] == 200

    async def _answer(self, graph: InferenceGraph, headers: RequestHeaders, body: bytes, reply: Reply) -> None:
        started = time.perf_counter()
        flying = self._metrics.in_flight
        flying[graph.name] = flying.get(graph.name, 0) + 1
        try:
            status = await self._walk(graph, self._passed_on(headers), body, reply)
        finally:
            flying[graph.name] -= 1
        self._metrics.record(graph.name, "", "graph", status, time.perf_counter() - started)

    async def _walk(self, graph: InferenceGraph, headers: RequestHeaders, body: bytes, reply: Reply) -> int:
        async def call(step: Step, request: bytes) -> Answer:
            return await self._call(graph, step, headers, request)

        try:
            async with asyncio.timeout(graph.timeout_seconds or None):
                answer = await Router(graph, call).answer(body)
        except RoutingError as error:
            said = msgspec.json.encode({"error": "Failed to process request", "cause": error.cause})
            reply(error.status, said, [answers.JSON])
            return error.status
        except TimeoutError:
            limit = f"no answer within {graph.timeout_seconds:g} s"
            return answers.refuse(reply, errors.StateError(limit, where=graph.name, code="STA-020"))
        reply(answer.status, answer.body, _content_type(answer.body))
        return answer.status

    def _passed_on(self, headers: RequestHeaders) -> RequestHeaders:
        found = {name: headers[name] for name in _ALWAYS if name in headers}
        if self._patterns:
            for name, value in headers.items():
                canonical = "-".join(part.capitalize() for part in name.decode("latin-1").split("-"))
                if any(pattern.search(canonical) for pattern in self._patterns):
                    found[name] = value
        found.setdefault(b"content-type", b"application/json")
        for name in (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"):
            found.pop(name, None)
        return found

    async def _call(self, graph: InferenceGraph, step: Step, headers: RequestHeaders, body: bytes) -> Answer:
        limit = graph.step_timeout_seconds or None
        name = step.service or step.url
        try:
            async with asyncio.timeout(limit):
                local = self._local_path(step)
                if local:
                    return await self._in_process(local, headers, body)
                return await self._over_http(step.url, headers, body, limit or _FOREVER)
        except TimeoutError as error:
            raise RoutingError(500, f"no answer of {name!r} within {limit:g} s") from error
        except errors.OndolError as error:
            raise RoutingError(500, f"cannot call {name!r}: {error.message}") from error

    def _local_path(self, step: Step) -> str:
        """Return the path of a step that this data plane answers itself; empty for any other."""
        if step.service:
            return self._predict_path(step.service)
        parts = urlsplit(step.url)
        match = _LOCAL.fullmatch(parts.hostname or "")
        if match is None:
            return ""
        return parts.path if parts.path not in ("", "/") else self._predict_path(match["service"])

    def _predict_path(self, service: str) -> str:
        v2 = self._protocols.get(service, "v1").endswith("v2")
        return f"/v2/models/{service}/infer" if v2 else f"/v1/models/{service}:predict"

    async def _in_process(self, path: str, headers: RequestHeaders, body: bytes) -> Answer:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def reply(status: int, answer: bytes, _headers: Headers) -> None:
            if not future.done():
                future.set_result(Answer(status, answer))

        if not self._handle("POST", path, dict(headers), body, reply):
            raise errors.NotFoundError(f"nothing is served at {path!r}", code="NOF-021")
        return await future

    async def _over_http(self, url: str, headers: RequestHeaders, body: bytes, limit: float) -> Answer:
        named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        response: Any = await self._client.post(url, named, body, limit)
        return Answer(int(response.status), await response.read())


def _content_type(body: bytes) -> Headers:
    """Return the content type as KServe's router sets it: JSON is recognized, the rest is text, nothing has none."""
    if not body:
        return []
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [(b"content-type", b"text/plain; charset=utf-8")]
    return [answers.JSON]

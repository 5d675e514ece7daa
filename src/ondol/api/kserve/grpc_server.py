"""V2 over gRPC: `inference.GRPCInferenceService` on a port of its own, answered by the same door as HTTP.

The one module that imports gRPC; importing it costs a tenth of a second, so it is imported only when a port is given.
Runs on the data plane's event loop. Every mistake of a client is a status that names the field; an unknown method is
`UNIMPLEMENTED`. Must not read tensors (`grpc_tensors`) nor know models (`door`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio
import msgspec

from ondol.api.kserve import answers, aside, caller, forward, grpc_relay, grpc_tensors, repository, v2, v2_documents
from ondol.api.kserve.call import Call
from ondol.api.kserve.door import KServeDoor
from ondol.api.kserve.messages import SERVICE
from ondol.base import errors
from ondol.base.settings import Address
from ondol.serving.models import Serving

log = logging.getLogger("ondol.serving")

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    422: grpc.StatusCode.UNIMPLEMENTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""gRPC's code of an HTTP status; any other is INVALID_ARGUMENT."""

_ANSWERED = (
    "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelInfer", "RepositoryIndex",
    "RepositoryModelLoad", "RepositoryModelUnload",
)  # fmt: skip
_REFUSED = {
    "ModelStreamInfer": "streams are not served; call ModelInfer",
    "ModelConfig": "a model has no Triton configuration; call ModelMetadata",
    "ModelStatistics": "statistics are at /metrics of the HTTP port",
    "SystemSharedMemoryRegister": "shared memory is not served; send tensors with the request",
    "CudaSharedMemoryRegister": "shared memory is not served; send tensors with the request",
}
"""Methods of Triton's further service, and what to do instead."""

_TOLD = (b"x-", b"traceresponse")
"""Headers of an answer that are metadata as well."""

Handler = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


class GRPCServer:
    """Serves one data plane's models over gRPC.

    :param authorize: says whether a request's metadata carry the key, where one is demanded.
    """

    def __init__(self, door: KServeDoor, authorize: Callable[[dict[bytes, bytes]], bool]) -> None:
        self._door = door
        self._authorize = authorize
        self._relay = grpc_relay.Relay()
        self._server: grpc.aio.Server | None = None

    async def start(self, address: Address) -> None:
        """Listen.

        :raises ConflictError: CON-370 when the port is taken.
        """
        limit = answers.MAX_BODY_BYTES
        options = [("grpc.max_receive_message_length", limit), ("grpc.max_send_message_length", -1)]
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, _methods(self)),))
        try:
            server.add_insecure_port(str(address))
        except RuntimeError as error:
            raise errors.ConflictError(
                f"gRPC cannot listen on {str(address)!r}", where="--grpc", code="CON-370",
                way_out="Choose another port: `ondol up --grpc HOST:PORT`, or none: `--grpc off`.",
            ) from error  # fmt: skip
        await server.start()
        self._server = server

    async def stop(self, grace_seconds: float) -> None:
        """Take no more requests and wait for those under way."""
        if self._server is not None:
            await self._server.stop(grace_seconds)

    async def call(self, method: str, data: bytes, context: Any) -> bytes:
        """Answer one call; a refusal becomes its status."""
        headers = {name.encode(): _bytes(value) for name, value in context.invocation_metadata() or ()}
        started = time.perf_counter()
        try:
            if method not in ("ServerLive", "ServerReady") and not self._authorize(headers):
                raise errors.RefusedError(
                    "the API key is missing or wrong", where="authorization", code="REF-010",
                    way_out="Send metadata `authorization: Bearer $ONDOL_API_KEY`.",
                )  # fmt: skip
            if method == "ModelInfer":
                return await self._infer(data, headers, context, started)
            if method == "ModelMetadata":
                name = grpc_tensors.parse("ModelMetadataRequest", data).name
                if (serving := self._door.find(name)).forwards:
                    return await self._relayed(method, data, serving, "", headers, context, started)
            return self._document(method, data)
        except errors.OndolError as error:
            status = answers.status_of(error)
            self._door.context.metrics.record("", "", "grpc", status, time.perf_counter() - started)
            await _abort(context, status, answers.body_of(error))
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # a bug of ours: the caller learns no more than that
            log.exception("gRPC %s failed", method)
            await context.abort(grpc.StatusCode.INTERNAL, f"internal error: {type(error).__name__}")
        raise AssertionError("abort raises")

    async def _infer(self, data: bytes, headers: dict[bytes, bytes], context: Any, started: float) -> bytes:
        message = grpc_tensors.parse("ModelInferRequest", data)
        serving = self._door.find(message.model_name)
        if serving.forwards:
            return await self._relayed("ModelInfer", data, serving, message.id, headers, context, started)
        request = await self._read(message, len(data), serving)
        request.timeout = min(request.timeout, _remaining(context))
        reply, answered = _awaited()
        call = Call(serving, "grpc", headers, b"", reply, started, message.model_version)
        self._door.begin(call, request, grpc_tensors.Writer(serving, request).write, reply)
        return await _told(context, *await answered)

    async def _relayed(
        self, method: str, data: bytes, serving: Serving, given: str, headers: dict[bytes, bytes], context: Any,
        started: float,
    ) -> bytes:  # fmt: skip
        """Let the process answer that stands before the model, or instead of it.

        :param given: the id in the message, if any.
        """
        asking = self._door.callers.read(headers, 1, serving.route, given=given)
        asking.timeout = min(asking.timeout, _remaining(context))
        component = forward.component_for(serving, "grpc", inside=False)
        verb = "POST" if method == "ModelInfer" else "GET"
        reply, answered = _awaited()
        self._door.forwarding.start(
            forward.Request(
                serving, component, "grpc", verb, method, headers, data, reply, started, False, asking, self._relay
            )
        )
        return await _told(context, *await answered)

    async def _read(self, message: Any, size: int, serving: Serving) -> v2.Request:
        """Read a message, a large one beside the event loop."""
        if size <= aside.LARGE_BYTES:
            return grpc_tensors.read(message, serving)
        future: asyncio.Future[v2.Request] = asyncio.get_running_loop().create_future()

        def fail(error: Exception) -> None:
            if not future.done():
                future.set_exception(error)

        def begin(request: v2.Request) -> None:
            if not future.done():
                future.set_result(request)

        self._door.readers.run(size, partial(grpc_tensors.read, message, serving), begin, fail)
        return await future

    def _document(self, method: str, data: bytes) -> bytes:
        """Answer a method that needs no prediction."""
        door = self._door
        message = grpc_tensors.parse(f"{method}Request", data)
        found: dict[str, Any]
        if method == "ServerLive":
            found = {"live": True}
        elif method == "ServerReady":
            found = {"ready": door.models.settled and not door.draining}
        elif method == "ServerMetadata":
            found = v2_documents.server()
        elif method == "ModelReady":
            found = {"ready": self._is_ready(message.name, message.version)}
        elif method == "ModelMetadata":
            found = self._metadata(message.name, message.version)
        elif method == "RepositoryIndex":
            found = {"models": repository.index(door.models, message.ready)}
        else:
            name = message.second_name or message.first_name
            if method == "RepositoryModelUnload":
                raise repository.unload(door.models, name)
            repository.load(door.models, name, message.parameters)
            found = {"model_name": name, "isLoaded": True}
        return grpc_tensors.message(f"{method}Response", **found)

    def _is_ready(self, name: str, version: str) -> bool:
        try:
            serving = self._door.find(name)
        except errors.StateError:
            return False
        if version:
            v2_documents.arm_of(serving, version)
        return True

    def _metadata(self, name: str, version: str) -> dict[str, Any]:
        serving = self._door.find(name)
        if version:
            v2_documents.arm_of(serving, version)
        found = v2_documents.metadata(serving)
        for tensors in ("inputs", "outputs"):
            found[tensors] = [{part: one[part] for part in ("name", "datatype", "shape")} for one in found[tensors]]
        return {part: found[part] for part in ("name", "versions", "platform", "inputs", "outputs")}


def _methods(server: GRPCServer) -> dict[str, Any]:
    """Return the handler of every method; messages stay bytes, so that broken ones are refused by us and not by gRPC.

    A method that is not here gets gRPC's own UNIMPLEMENTED.
    """
    answered = {name: grpc.unary_unary_rpc_method_handler(_bound(server, name)) for name in _ANSWERED}
    refused = {
        name: grpc.stream_stream_rpc_method_handler(_refusal(f"{name}: {reason}")) for name, reason in _REFUSED.items()
    }
    return answered | refused


def _bound(server: GRPCServer, method: str) -> Handler:
    async def call(data: bytes, context: Any) -> bytes:
        return await server.call(method, data, context)

    return call


def _refusal(text: str) -> Any:
    async def refuse(_: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)

    return refuse


def _awaited() -> tuple[answers.Reply, asyncio.Future[Any]]:
    """Return a reply, and what waits for it: status, body and headers."""
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def reply(status: int, body: bytes, found: answers.Headers) -> None:
        if not answered.done():
            answered.set_result((status, body, found))

    return reply, answered


def _remaining(context: Any) -> float:
    """Return for how many seconds the caller still waits."""
    remaining = context.time_remaining()
    return caller.NEVER if remaining is None else max(remaining, 0.0)


async def _told(context: Any, status: int, body: bytes, headers: answers.Headers) -> bytes:
    """Return the body of an answer, its headers as metadata; a refusal ends the call."""
    metadata = tuple((name.decode(), value.decode()) for name, value in headers if name.startswith(_TOLD))
    refused = grpc_relay.refused_by(status, body, headers)
    if refused is not None:
        await context.abort(*refused, metadata)
    if status != 200:
        await _abort(context, status, body, metadata)
    context.set_trailing_metadata(metadata)
    return body


async def _abort(context: Any, status: int, body: bytes, metadata: Any = ()) -> None:
    """End the call with the code of an HTTP status; the text is the error's, after its field."""
    error = msgspec.json.decode(body)
    field = error["field"]
    text = error["error"] if field in ("", "$", "path") else f"{field}: {error['error']}"
    trailing = [("x-ondol-code", error["code"]), *metadata]
    if status in (429, 503):
        trailing.append(("retry-pushback-ms", "1000"))
    await context.abort(_CODES.get(status, grpc.StatusCode.INVALID_ARGUMENT), text, tuple(trailing))


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()

"""V2 over gRPC to the processes that answer a service: messages go through as they are, in both directions.

KServe's SDK serves gRPC beside HTTP, on port 8081 of its container; here that is the port a worker was given for it.
What stands around a request (arms, log, metrics, who answered) is `forward`'s. Must not read tensors.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from functools import partial
from typing import Any

import grpc
import grpc.aio

from ondol.api.kserve import answers, forward, grpc_tensors
from ondol.api.kserve.messages import SERVICE
from ondol.base import transport
from ondol.serving.workers.pool import Answer, Pool
from ondol.serving.workers.process import Worker

_STATUS_OF = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
"""The HTTP status that stands for a code in the log and the metrics; any other code is 500."""

_CODES = {str(code.value[0]): code for code in grpc.StatusCode}  # by its number, as `grpc-status` has it

_YOUNG_SECONDS = 10.0  # HTTP and gRPC ports of one server do not open at the same moment
_LOOK_SECONDS = 0.05
_OWN = ("grpc-", ":")
_NOT_PASSED_ON = ("user-agent", "content-type")


class Relay(forward.Way):
    """Asks processes over gRPC; keeps one channel to each."""

    def __init__(self) -> None:
        self._channels: weakref.WeakKeyDictionary[Worker, Any] = weakref.WeakKeyDictionary()

    async def send(self, request: forward.Request, pool: Pool) -> Answer:
        """Send a call, `request.path` names its method; an error's code is in the answer's `grpc-status`."""
        return await pool.ask(partial(self._ask, request), request.seconds)

    def asked(self, body: bytes) -> bytes:
        """Return a request as the JSON that V2 has over HTTP."""
        return grpc_tensors.as_json("ModelInferRequest", body)

    def answered(self, body: bytes) -> bytes:
        """Return an answer as the JSON that V2 has over HTTP."""
        return grpc_tensors.as_json("ModelInferResponse", body)

    async def _ask(self, request: forward.Request, worker: Worker) -> Answer:
        channel = self._channels.get(worker) or await self._open(request, worker)
        method, body = request.path, request.body
        if worker.model_name not in ("", request.service):
            body = grpc_tensors.renamed(f"{method}Request", body, worker.model_name)
        call = channel.unary_unary(f"/{SERVICE}/{method}")(body, timeout=request.seconds, metadata=_metadata(request))
        try:
            answer: bytes = await call
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE and not await _listens(worker):
                raise transport.Broken(f"the process ended while it answered: {error.details()}") from error
            found = {**_headers(error.trailing_metadata()), "grpc-status": str(error.code().value[0])}
            return Answer(_STATUS_OF.get(error.code(), 500), found, (error.details() or "").encode())
        return Answer(200, _headers(await call.trailing_metadata()), answer)

    async def _open(self, request: forward.Request, worker: Worker) -> Any:
        """Return a channel to a process that has not been asked yet.

        :raises UnsupportedError: UNS-370 when it does not serve gRPC.
        :raises ConnectFailed: when it has ended.
        """
        while not await _listens(worker):
            if worker.exit_code() is not None:
                raise transport.ConnectFailed(f"the process behind {request.service!r} has ended")
            if time.monotonic() - worker.started > _YOUNG_SECONDS:
                raise forward.not_spoken(request.service, "gRPC")
            await asyncio.sleep(_LOOK_SECONDS)
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        options = [*unlimited, ("grpc.enable_http_proxy", 0)]
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{worker.grpc_port}", options=options)
        return self._channels.setdefault(worker, channel)


async def _listens(worker: Worker) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", worker.grpc_port)
    except OSError:
        return False
    writer.close()
    return True


def _metadata(request: forward.Request) -> tuple[tuple[str, str | bytes], ...]:
    """Return the request's headers as gRPC takes them: in ASCII, or bytes."""
    return tuple(
        (name, value.encode("latin-1") if name.endswith("-bin") else value)
        for name, value in request.onwards().items()
        if not name.startswith(_OWN)
        and name not in _NOT_PASSED_ON
        and (name.endswith("-bin") or (value.isascii() and value.isprintable()))
    )


def _headers(metadata: Any) -> dict[str, str]:
    return {
        name: value.decode("latin-1") if isinstance(value, bytes) else value
        for name, value in metadata or ()
        if not name.startswith(_OWN)
    }


def refused_by(status: int, body: bytes, headers: answers.Headers) -> tuple[grpc.StatusCode, str] | None:
    """Return the code and the text of an answer that is a process' own refusal; None when it is none."""
    number = next((value.decode() for name, value in headers if name == b"grpc-status"), "")
    return (_CODES[number], body.decode("utf-8", "replace")) if status != 200 and number else None

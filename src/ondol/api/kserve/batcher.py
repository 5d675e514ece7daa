"""KServe's batcher: V1 requests wait for each other, and every answer says which batch it was part of.

A batch goes when it has `maxBatchSize` rows or its first request has waited `maxLatency`. Models in memory take the
requests of a batch in one turn, each with its own id, unit and arm; a process gets one request with all rows. Source of
the behaviour: KServe's agent. One thing differs: it answers 200 whatever happened, here a failure keeps its status.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ondol.api.kserve.answers import JSON, Headers, Reply
from ondol.api.kserve.caller import RequestHeaders
from ondol.serving import inputs

if TYPE_CHECKING:
    from ondol.formats.inference_service import Batcher

Dispatch = Callable[[RequestHeaders, bytes, Reply], None]


class _Request(msgspec.Struct):
    instances: list[msgspec.Raw]


class _Answer(msgspec.Struct):
    predictions: list[msgspec.Raw]


_REQUEST, _ANSWER = msgspec.json.Decoder(_Request), msgspec.json.Decoder(_Answer)
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Held:
    """One request that waits for its batch."""

    headers: RequestHeaders
    body: bytes
    reply: Reply
    rows: list[msgspec.Raw]


class Batches:
    """The batch that is being collected for one component.

    :param dispatch: sends one request on; it never raises.
    :param together: whether a batch is sent as one request.
    """

    def __init__(self, options: Batcher, dispatch: Dispatch, together: Callable[[], bool]) -> None:
        self.options = options
        self._dispatch = dispatch
        self._together = together
        self._held: list[Held] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, headers: RequestHeaders, body: bytes, reply: Reply) -> None:
        """Take a request.

        :raises InputError: INP-201 when it has no list `instances`, INP-206 when the list is empty.
        """
        try:
            rows = _REQUEST.decode(body).instances
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise inputs.wrong(f"must be an object with a list `instances`: {error}", "$", "INP-201") from None
        if not rows:
            raise inputs.wrong("no instances in the request", "instances", "INP-206")
        self._held.append(Held(headers, body, reply, rows))
        if sum(len(one.rows) for one in self._held) >= self.options.max_batch_size:
            self._go()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.options.max_latency_ms / 1000, self._go)

    def _go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        batch = str(uuid.uuid4())
        if self._together() and len(held) > 1:
            body = b'{"instances":[' + b",".join(bytes(row) for one in held for row in one.rows) + b"]}"
            self._dispatch(held[0].headers, body, partial(self._split, held, batch))
        else:
            self._one_by_one(held, batch)

    def _one_by_one(self, held: Sequence[Held], batch: str) -> None:
        for one in held:
            self._dispatch(one.headers, one.body, partial(_wrapped, one.reply, batch))

    def _split(self, held: Sequence[Held], batch: str, status: int, body: bytes, headers: Headers) -> None:
        """Give every request its rows' predictions; when the batch is refused, each is tried alone."""
        if 400 <= status < 500 and status != 429:
            self._one_by_one(held, batch)
            return
        predictions = _predictions(body) if status == 200 else None
        if predictions is None or len(predictions) != sum(len(one.rows) for one in held):
            if status == 200:
                status, body = 500, b"size of prediction is not equal to the size of instances"
            for one in held:
                _fail(one.reply, status, body, headers)
            return
        start = 0
        for one in held:
            _succeed(one.reply, batch, predictions[start : start + len(one.rows)], headers)
            start += len(one.rows)


def _predictions(body: bytes) -> list[msgspec.Raw] | None:
    try:
        return _ANSWER.decode(body).predictions
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _wrapped(reply: Reply, batch: str, status: int, body: bytes, headers: Headers) -> None:
    """Answer one request of a batch that was sent on by itself."""
    predictions = _predictions(body) if status == 200 else None
    if predictions is None:
        _fail(reply, status, body, headers)
    else:
        _succeed(reply, batch, predictions, headers)


def _succeed(reply: Reply, batch: str, predictions: Sequence[msgspec.Raw], headers: Headers) -> None:
    listed = b",".join(bytes(one) for one in predictions)
    reply(200, b'{"message":"","batchId":"%s","predictions":[%s]}' % (batch.encode(), listed), _json(headers))


def _fail(reply: Reply, status: int, body: bytes, headers: Headers) -> None:
    message = body.decode("utf-8", "replace")
    reply(status, _encode({"message": message, "batchId": "", "predictions": None}), _json(headers))


def _json(headers: Headers) -> Headers:
    return [JSON, *(one for one in headers if one[0] != b"content-type")]

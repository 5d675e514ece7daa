"""Requests that a process answers: transformers, explainers, and predictors that are servers of their own.

Bodies go through as they are, in both directions. What is ours stays ours: arms, timeout, the request log, metrics, and
the headers that say who answered. A transformer asks its predictor through a door of its own (`inside`), where the unit
and the id of the request that is being transformed are found again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

import msgspec

from ondol.api.kserve import answers, mirror, tracing
from ondol.api.kserve.answers import Headers, Reply
from ondol.api.kserve.caller import Caller, RequestHeaders
from ondol.api.kserve.exchange import Context
from ondol.api.kserve.mirror import Original
from ondol.base import errors, telemetry
from ondol.base.telemetry import ActiveSpan
from ondol.records.rollout import STABLE, Arm, Observation
from ondol.rollout import split
from ondol.serving import row_text
from ondol.serving.models import Model, Serving
from ondol.serving.workers.pool import Answer, Pool

_NOT_PASSED_ON = frozenset(
    (
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
        "upgrade", "host", "expect", "content-length", "accept-encoding", "x-api-key",
    )
)  # fmt: skip
_STATUSES = frozenset(status.value for status in HTTPStatus)
_KEEP_UNITS = 10_000
_MOST_COPIES = 64  # requests a candidate may have; a copy that would make it more is not made


class _Asked(msgspec.Struct):
    """The part of a request or answer that the request log keeps: V1's or V2's."""

    instances: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    predictions: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    outputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_ASKED = msgspec.json.Decoder(_Asked)


@dataclass(slots=True)
class Request:
    """One request on its way to a process."""

    serving: Serving
    component: str
    """Who answers: `transformer`, `explainer` or `predictor`."""

    protocol: str
    """`v1`, `v2`, `explain`, `mlflow` or `grpc`."""

    method: str
    path: str
    headers: RequestHeaders
    body: bytes
    reply: Reply
    started: float
    inside: bool
    caller: Caller
    way: Way
    arm: Arm = STABLE
    span: ActiveSpan | None = None
    """This request in its caller's trace, if it is traced."""

    @property
    def service(self) -> str:
        return self.serving.route.service

    @property
    def model(self) -> Model:
        """The predictor's release that answers, or stands behind the one that does."""
        return self.serving.model(self.arm)

    @property
    def mirrored(self) -> bool:
        """Whether the answer may be compared with a candidate's."""
        asks = self.method == "POST" and self.protocol != "explain"
        return self.component == "predictor" and self.arm == STABLE and asks

    @property
    def seconds(self) -> float:
        """How long the answer is waited for."""
        return min(self.serving.options.timeout_seconds, self.caller.timeout)

    def onwards(self) -> Mapping[str, str]:
        """Return the headers for the process, with the id and the unit that the predictor is to know."""
        found = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in self.headers.items()
            if name.decode("latin-1") not in _NOT_PASSED_ON
        }
        found["x-request-id"] = self.caller.ids[0]
        if self.span is not None:
            found["traceparent"] = telemetry.traceparent(self.span)
        if self.caller.unit != self.caller.ids[0]:
            found["x-ondol-unit"] = self.caller.unit
        return found


class Way(Protocol):
    """How a process is asked, and how the request log reads what goes through."""

    async def send(self, request: Request, pool: Pool) -> Answer: ...

    def asked(self, body: bytes) -> bytes:
        """Return a request's body as JSON of V1 or V2; empty when it is none."""

    def answered(self, body: bytes) -> bytes:
        """Return an answer's body likewise."""


class _OverHTTP(Way):
    async def send(self, request: Request, pool: Pool) -> Answer:
        path = partial(_path, request)
        return await pool.send(request.method, path, request.onwards(), request.body, request.seconds)

    def asked(self, body: bytes) -> bytes:
        return body

    def answered(self, body: bytes) -> bytes:
        return body


OVER_HTTP = _OverHTTP()


def component_for(serving: Serving, protocol: str, inside: bool) -> str:
    """Return which component's processes answer a request; empty when the model in memory does, or nobody."""
    parts = serving.options.parts
    if protocol == "explain" and "explainer" in parts:
        return "explainer"
    if protocol != "explain" and not inside and "transformer" in parts:
        return "transformer"
    return "predictor" if serving.stable.pool is not None else ""


def not_spoken(service: str, what: str) -> errors.UnsupportedError:
    """Return the refusal of a protocol that the process behind a service does not serve."""
    return errors.UnsupportedError(
        f"{service!r} is answered by a process of its own, which does not serve {what}", where="path",
        way_out=f"POST /v1/models/{service}:predict or /v2/models/{service}/infer.", code="UNS-370",
    )  # fmt: skip


class Forwarding:
    """Sends requests to processes and answers with what they say."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()
        self._units: dict[str, str] = {}  # of requests that a transformer or explainer has, by id

    def start(self, request: Request) -> None:
        """Begin; the answer comes later.

        :raises StateError: STA-021 while a transformer or explainer does not serve yet.
        """
        pool = self._pool(request)
        if request.caller.traceparent:
            name = f"{request.component} {request.service}"
            request.span = tracing.begin(self._context.spans, request.caller.traceparent, name, request.started)
        flying = self._context.metrics.in_flight
        flying[request.service] = flying.get(request.service, 0) + 1
        task = asyncio.get_running_loop().create_task(self._answer(request, pool))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _pool(self, request: Request) -> Pool:
        """Return the processes that answer; those of a predictor depend on the arm."""
        serving = request.serving
        if request.component != "predictor":
            found = serving.parts.get(request.component)
            if found is None:
                raise errors.StateError(
                    f"the {request.component} of {request.service!r} does not serve yet",
                    way_out="`ondol get isvc` says why.", code="STA-021",
                )  # fmt: skip
            return found
        unit = request.caller.unit or request.caller.ids[0]
        request.arm = request.caller.pinned or split.assign(serving.route, unit)
        if request.model.pool is None:
            raise errors.UnsupportedError(
                "this arm is a model in memory, its rival a server of its own: they cannot share traffic",
                way_out="Give both the same form.", code="UNS-341",
            )  # fmt: skip
        return request.model.pool

    def recalled(self, headers: RequestHeaders) -> RequestHeaders:
        """Return a transformer's headers with the unit of the request it works on, which SDKs do not pass on."""
        unit = self._units.get(headers.get(b"x-request-id", b"").decode("utf-8", "replace"))
        return headers if unit is None or b"x-ondol-unit" in headers else {**headers, b"x-ondol-unit": unit.encode()}

    async def _answer(self, request: Request, pool: Pool) -> None:
        caller = request.caller
        remembers = request.component != "predictor" and caller.unit != caller.ids[0] and len(self._units) < _KEEP_UNITS
        if remembers:
            self._units[caller.ids[0]] = caller.unit
        failure: Exception | None = None
        answer = Answer(500, {}, b"")
        try:
            answer = await request.way.send(request, pool)
            if request.protocol == "mlflow" and answer.status == 404:
                failure = not_spoken(request.service, "MLflow's /invocations")
        except Exception as error:  # noqa: BLE001 - whatever happened is this request's answer
            failure = error
        finally:
            if remembers:
                self._units.pop(caller.ids[0], None)
        headers = _headers(request)
        if failure is None and answer.status in _STATUSES:
            request.reply(answer.status, answer.body, [*_back(answer.headers), *headers])
            status = answer.status
        else:
            status = answers.refuse(request.reply, _public(failure, request, answer), headers)
        self._account(request, status, answer)
        if request.mirrored and self._context.mirror.takes(request.serving.route):
            self._copy(request, status, answer)

    def _copy(self, request: Request, status: int, answer: Answer) -> None:
        """Let the candidate's process answer too, for the record, unless it is behind."""
        candidate = request.serving.candidate
        if candidate is None or candidate.pool is None or candidate.pool.load.active >= _MOST_COPIES:
            self._context.mirror.dropped += 1
            return
        caller, milliseconds = request.caller, (time.perf_counter() - request.started) * 1000
        mine = _values(request.way.answered(answer.body)) if status == 200 else []
        original = Original(caller.ids[0], caller.unit, [], False, status if mine else 500, mine, milliseconds)
        task = asyncio.get_running_loop().create_task(self._copied(request, original, candidate, candidate.pool))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _copied(self, request: Request, original: Original, candidate: Model, pool: Pool) -> None:
        began = time.perf_counter()
        error: Exception | None = None
        predictions: list[Any] = []
        try:
            answer = await request.way.send(request, pool)
            if answer.status == 200:
                predictions = _values(request.way.answered(answer.body))
            else:
                error = errors.ComponentError(f"status {answer.status}")
        except Exception as raised:  # noqa: BLE001 - nobody waits for this answer
            error = raised
        milliseconds = (time.perf_counter() - began) * 1000
        record = mirror.observation(original, request.serving.route, candidate, predictions, error, milliseconds)
        self._context.request_log.append(record)

    def _account(self, request: Request, status: int, answer: Answer) -> None:
        context, route, caller = self._context, request.serving.route, request.caller
        context.metrics.in_flight[route.service] -= 1
        seconds = time.perf_counter() - request.started
        protocol = f"{request.protocol}-inside" if request.inside else request.protocol
        predictor = request.component == "predictor"
        version = request.model.version if predictor else request.component
        context.metrics.record(route.service, version, protocol, status, seconds)
        if request.span is not None:
            release = request.model.digest if predictor else ""
            tracing.end(request.span, route.service, release, request.arm, protocol, status, f"status {status}")
        if not predictor or request.method != "POST" or request.protocol == "explain" or 400 <= status < 500:
            return  # the predictor's own exchange is what the log keeps
        now = time.time()
        if caller.explicit or route.candidate or status >= 500 or context.keeps(route.service, now, 1):
            features = _kept(request.way.asked(request.body))
            prediction = _kept(request.way.answered(answer.body)) if status == 200 else ""
            context.request_log.append(
                Observation(
                    caller.ids[0], now, route.service, request.model.digest, request.arm, caller.unit, status,
                    seconds * 1000, route.rollout, features, prediction, weight=route.weight,
                    trace=request.span.trace if request.span is not None else "",
                )
            )  # fmt: skip


def _headers(request: Request) -> Headers:
    """Return what says who answered; a transformer's answer is the work of several."""
    identifier = request.caller.ids[0]
    safe = identifier if identifier.isascii() and identifier.isprintable() else "?"
    found = [(b"x-request-id", safe.encode())]
    if request.span is not None:
        found += tracing.response(request.span)
    if request.component == "predictor":
        found += [
            (b"x-ondol-release", request.model.digest.encode()),
            (b"x-ondol-arm", request.arm.encode()),
            (b"x-ondol-route", b"%d" % request.serving.route.generation),
        ]
    return found


def _kept(body: bytes) -> str:
    """Return the rows of a body as JSON text; empty when it has none, or too many."""
    if len(body) > row_text.MAX_FEATURES_CHARS:
        return ""
    try:
        found = _ASKED.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    for raw in (found.instances, found.predictions, found.inputs, found.outputs):
        if isinstance(raw, msgspec.Raw):
            return bytes(raw).decode()
    return ""


def _values(body: bytes) -> list[Any]:
    """Return the predictions of an answer, V1's or the first output of V2's; empty when it has none."""
    text = _kept(body)
    try:
        found = msgspec.json.decode(text) if text else []
    except msgspec.MsgspecError:
        return []
    if found and isinstance(found[0], dict) and isinstance(found[0].get("data"), list):
        return list(found[0]["data"])
    return found if isinstance(found, list) else []


def _path(request: Request, name: str) -> str:
    """Return the path as the process knows it: it may call its model otherwise than the service."""
    if not name or name == request.service:
        return request.path
    head, _, tail = request.path.partition(f"/models/{request.service}")
    return f"{head}/models/{name}{tail}"


def _back(headers: Mapping[str, str]) -> Headers:
    """Return the process' headers for the client, without what speaks of its connection or is ours to say."""
    return [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in headers.items()
        if name not in _NOT_PASSED_ON
        and not name.startswith("x-ondol-")
        and name not in ("x-request-id", "date", "server")
    ]


def _public(failure: Exception | None, request: Request, answer: Answer) -> errors.OndolError:
    """Return the error as the client may see it."""
    if isinstance(failure, TimeoutError):
        limit = request.seconds
        return errors.StateError(f"no answer within {limit:g} s", way_out="Ask for less at once.", code="STA-020")
    if isinstance(failure, errors.OndolError):
        return failure
    if failure is None:
        message = f"the process answered with status {answer.status}, which is none of HTTP's"
        return errors.UpstreamError(message, code="UPS-340")
    return errors.UpstreamError(f"the process cannot be asked: {type(failure).__name__}: {failure}", code="UPS-340")

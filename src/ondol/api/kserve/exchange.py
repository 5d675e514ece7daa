"""One inference request from the parsed body to its answer: arms, prediction, timeout, observation.

Must not know whether it is V1 or V2: the protocol gives the rows and a function that writes the answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import msgspec

from ondol.api.kserve import answers, tracing
from ondol.api.kserve.answers import Headers, Reply
from ondol.api.kserve.caller import Caller
from ondol.api.kserve.mirror import Mirror, Original
from ondol.base import errors
from ondol.base.telemetry import NOWHERE, ActiveSpan, SpanSink
from ondol.records.rollout import STABLE, Arm, Observation, Route
from ondol.rollout import split
from ondol.serving import row_text
from ondol.serving import rows as rows_module
from ondol.serving.batching import Job
from ondol.serving.metrics import Metrics
from ondol.serving.models import Model, Serving
from ondol.serving.request_log import RequestLog
from ondol.serving.rows import Rows

log = logging.getLogger("ondol.serving")

Write = Callable[[list[Any], Model], bytes]
_encode = msgspec.json.Encoder().encode
ANONYMOUS_PER_SECOND = 500
"""Rows per second and service that are logged though their requests carry no id of the caller's and no trial is on."""


class Context:
    """What all exchanges of one data plane share."""

    def __init__(self, request_log: RequestLog, metrics: Metrics) -> None:
        self.request_log = request_log
        self.metrics = metrics
        self.mirror = Mirror(request_log)
        self.spans: SpanSink = NOWHERE
        """Takes the spans of requests that are traced."""

        self.sampled_out = 0
        self.sample = 1.0
        """Share of requests that are logged while no trial is on."""
        self.features = True
        """Whether what was asked is logged."""
        self._second = 0
        self._kept: dict[str, int] = {}

    def keeps(self, service: str, now: float, rows: int) -> bool:
        """Say whether one more anonymous request, of some rows, is logged this second."""
        if int(now) != self._second:
            self._second = int(now)
            self._kept.clear()
        kept = self._kept.get(service, 0)
        if kept >= ANONYMOUS_PER_SECOND:
            self.sampled_out += 1
            return False
        self._kept[service] = kept + rows
        return True

    def samples(self) -> bool:
        """Say whether one more request is logged, as the project's share says."""
        if self.sample >= 1.0 or random.random() < self.sample:
            return True
        self.sampled_out += 1
        return False


class Part:
    """The rows of a request that one arm answers."""

    __slots__ = ("arm", "began", "ended", "error", "indices", "model", "predictions")

    def __init__(self, arm: Arm, model: Model, indices: list[int] | None) -> None:
        self.arm: Arm = arm
        self.model = model
        self.indices = indices
        self.predictions: list[Any] = []
        self.error: Exception | None = None
        self.began = self.ended = 0.0
        """When it was handed on and answered; 0 where the whole request's time is its own."""


class Exchange:
    """State of one request between `start` and its answer."""

    __slots__ = (
        "_caller", "_context", "_features", "_finished", "_parts", "_pending", "_probabilities", "_protocol",
        "_queued", "_reply", "_rows", "_seconds", "_span", "_timer", "_write", "serving", "started",
    )  # fmt: skip

    def __init__(
        self, context: Context, serving: Serving, protocol: str, started: float, caller: Caller, write: Write,
        reply: Reply,
    ) -> None:  # fmt: skip
        self._context = context
        self.serving = serving
        self._protocol = protocol
        self.started = started
        self._caller = caller
        self._seconds = min(serving.options.timeout_seconds, caller.timeout)
        self._span: ActiveSpan | None = None
        if caller.traceparent:
            name = f"predict {serving.route.service}"
            self._span = tracing.begin(context.spans, caller.traceparent, name, started)
        self._write = write
        self._reply = reply
        self._timer: asyncio.TimerHandle | None = None
        self._finished = False
        self._parts: list[Part] = []
        self._pending = 0
        self._rows: Rows = []
        self._features = ""
        self._probabilities: bool | None = False
        self._queued = 0.0

    def start(self, rows: Rows, features: str, probabilities: bool | None) -> None:
        """Send the rows to their arms. The answer comes later, through `reply`.

        :raises RefusedError: REF-020 when the queue is full; then nothing was begun.
        """
        serving = self.serving
        if self._caller.per_row:
            rows = rows_module.cells_of(rows)
        self._rows, self._features, self._probabilities = rows, features, probabilities
        self._parts = self._assign(len(rows))
        self._pending = len(self._parts)
        deadline = time.monotonic() + self._seconds
        soon = True
        if serving.route.mirror and self._caller.pinned is None:
            self._queued = time.perf_counter()
        apart = self._caller.per_row and timed_apart(serving.route)
        for number, part in enumerate(self._parts):
            part.began = time.perf_counter() if apart else 0.0
            mine = rows if part.indices is None else [rows[index] for index in part.indices]
            job = Job(mine, probabilities, deadline, partial(self._done, part))
            try:
                soon = part.model.batcher.submit(job) and soon
            except errors.RefusedError:
                if number == 0:
                    raise
                part.error = errors.RefusedError("too busy", way_out="Try again.", code="REF-020")
                self._pending -= 1
        flying = self._context.metrics.in_flight
        flying[serving.route.service] = flying.get(serving.route.service, 0) + 1
        if not soon:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)

    def _assign(self, count: int) -> list[Part]:
        serving, route = self.serving, self.serving.route
        if not route.candidate:
            return [Part(STABLE, serving.stable, None)]
        caller = self._caller
        if not caller.per_row or caller.pinned is not None:
            arm = caller.pinned or split.assign(route, caller.unit)
            return [Part(arm, serving.model(arm), None)]
        arms: dict[Arm, list[int]] = {}
        for index in range(count):
            arms.setdefault(split.assign(route, caller.ids[index]), []).append(index)
        parts = [Part(arm, serving.model(arm), arms[arm]) for arm in (STABLE, *serving.arms) if arm in arms]
        if len(parts) == 1:
            parts[0].indices = None
        return parts

    def _done(self, part: Part, predictions: list[Any] | None, error: Exception | None) -> None:
        part.predictions = predictions or []
        part.error = error
        if self._queued or part.began:
            part.ended = time.perf_counter()
        self._pending -= 1
        if not self._pending and not self._finished:
            self._finish()

    def _expire(self) -> None:
        if not self._finished:
            for part in self._parts:
                part.error = part.error or (None if part.predictions else TimeoutError())
            self._finish()

    def _finish(self) -> None:
        self._finished = True
        if self._timer is not None:
            self._timer.cancel()
        seconds = time.perf_counter() - self.started
        failed = next((part for part in self._parts if part.error is not None), None)
        if failed is None:
            merged = self._merged()
            try:
                body = self._write(merged, self._parts[0].model)
            except (TypeError, ValueError, OverflowError) as error:  # the model answered what JSON cannot say
                self._parts[0].error, failed = error, self._parts[0]
            else:
                self._reply(200, body, self._headers())
        if failed is not None and failed.error is not None:
            answers.refuse(self._reply, self._public(failed.error), self._headers())
        self._account(seconds, failed)
        if self._queued:
            self._mirror(self._parts[0])

    def _mirror(self, part: Part) -> None:
        """Let the candidate answer too, for the record, when stable alone has answered."""
        candidate, caller = self.serving.candidate, self._caller
        if candidate is None or len(self._parts) != 1 or part.arm != STABLE or not part.ended:
            return
        route, status = self.serving.route, answers.status_of_failure(part.error)
        milliseconds = (part.ended - self._queued) * 1000
        probabilities, answered = bool(self._probabilities), self._predicted(part)
        if not caller.per_row:
            original = Original(caller.ids[0], caller.unit, self._rows, probabilities, status, answered, milliseconds)
            self._context.mirror.copy(original, route, candidate)
            return
        for index, identifier in enumerate(caller.ids):
            predictions = answered[index : index + 1]
            original = Original(
                identifier, identifier, [self._rows[index]], probabilities, status, predictions, milliseconds
            )
            self._context.mirror.copy(original, route, candidate)

    def _predicted(self, part: Part) -> list[Any]:
        """Return what the log keeps of an arm's answers and a copy is compared with: of several outputs, the first."""
        return part.predictions if self._probabilities is not None else [row[0] for row in part.predictions]

    def _merged(self) -> list[Any]:
        if len(self._parts) == 1:
            return self._parts[0].predictions
        merged: list[Any] = [None] * len(self._rows)
        for part in self._parts:
            for index, prediction in zip(part.indices or (), part.predictions, strict=True):
                merged[index] = prediction
        return merged

    def _public(self, error: Exception) -> errors.OndolError:
        """Return the error as the client may see it."""
        if isinstance(error, errors.OndolError):
            return error
        if isinstance(error, TimeoutError):
            return errors.StateError(
                f"no answer within {self._seconds:g} s", way_out="Send fewer rows.", code="STA-020"
            )
        log.error("%s: the model failed: %s: %s", self.serving.route.service, type(error).__name__, error)
        return errors.ComponentError(
            f"the model failed: {type(error).__name__}: {error}", where=self.serving.route.service, code="RUN-020"
        )

    def _headers(self) -> Headers:
        parts, generation = self._parts, self.serving.route.generation
        traced = tracing.response(self._span) if self._span is not None else ()
        return [
            answers.JSON,
            *traced,
            (b"x-request-id", b"per-row" if self._caller.per_row else _header(self._caller.ids[0])),
            *_who(tuple([part.model.digest for part in parts]), tuple([part.arm for part in parts]), generation),
        ]

    def _account(self, seconds: float, failed: Part | None) -> None:
        context, route = self._context, self.serving.route
        context.metrics.in_flight[route.service] -= 1
        for part in self._parts:
            status = answers.status_of_failure(part.error)
            context.metrics.record(route.service, part.model.version, self._protocol, status, seconds)
            if status == 429 or (status < 500 and failed is not None and part is failed):
                continue
            own = part.ended - part.began if part.began and part.ended else seconds
            self._observe(part, status, own * 1000)
        if self._span is not None:
            releases, arms = ",".join(part.model.digest for part in self._parts), ",".join(p.arm for p in self._parts)
            status = 200 if failed is None else answers.status_of_failure(failed.error)
            error = str(failed.error) or type(failed.error).__name__ if failed is not None else ""
            tracing.end(self._span, route.service, releases, arms, self._protocol, status, error)

    def _observe(self, part: Part, status: int, milliseconds: float) -> None:
        context, caller, route, now = self._context, self._caller, self.serving.route, time.time()
        if not (
            route.candidate
            or status >= 500
            or (context.samples() and (caller.explicit or context.keeps(route.service, now, len(self._rows))))
        ):
            return
        # Who names a version chooses the arm: that request says nothing about units that were assigned to it.
        rollout = route.rollout if caller.pinned is None else ""
        trace = self._span.trace if self._span is not None else ""

        def append(identifier: str, unit: str, features: str, prediction: str, row: int = 0) -> None:
            context.request_log.append(
                Observation(
                    identifier, now, route.service, part.model.digest, part.arm, unit, status, milliseconds, rollout,
                    features, prediction, weight=route.weight, trace=trace, row=row,
                )
            )  # fmt: skip

        if not caller.per_row:
            features = self._features if context.features and len(self._features) <= row_text.MAX_FEATURES_CHARS else ""
            prediction = _encode(self._predicted(part)).decode() if status == 200 else ""
            append(caller.ids[0], caller.unit, features, prediction)
            return
        indices: Sequence[int] = part.indices if part.indices is not None else range(len(self._rows))
        answered = self._predicted(part)
        for place, index in enumerate(indices):
            prediction = _encode([answered[place]]).decode() if status == 200 else ""
            features = _encode([self._rows[index]]).decode() if context.features else ""
            append(caller.ids[index], caller.ids[index], features, prediction, index)


def timed_apart(route: Route) -> bool:
    """Say whether rows of one request that several arms answer have their arm's time and not the request's.

    Only while no variant gets more rows than stable: a larger part takes longer, and that is nothing a candidate has
    done. The request's own time, beyond that, is the same for all and speaks against nobody.
    """
    largest = max((one.share for one in route.variants), default=0.0) * route.weight
    return 0 < largest <= 100 - route.weight + 1  # equal shares may be rounded


@lru_cache(maxsize=1024)
def _who(releases: tuple[str, ...], arms: tuple[Arm, ...], generation: int) -> Headers:
    """Return the headers that say who answered; the same for very many requests, and never changed."""
    return [
        (b"x-ondol-release", ",".join(releases).encode()),
        (b"x-ondol-arm", ",".join(arms).encode()),
        (b"x-ondol-route", b"%d" % generation),
    ]


def _header(text: str) -> bytes:
    """Return text as a header's value: an id out of a body must not end the line."""
    safe = text if text.isascii() and text.isprintable() else "".join(c if " " <= c <= "~" else "?" for c in text)
    return safe.encode("ascii")

"""Chat completions of applications: the right release for the caller, its answer, and what is remembered of it.

Must not decide who is right: it observes; `rollout` judges.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import replace
from typing import Any

import msgspec

from ondol.api.openai import gateway, online_scores, replies, requests
from ondol.api.openai.wiring import Services
from ondol.base import errors, telemetry
from ondol.base.telemetry import ActiveSpan
from ondol.records import codec
from ondol.records.chat import Answered, ChatAnswer
from ondol.records.project import MonitoringSpec
from ondol.records.rollout import STABLE, Arm, Observation, Route
from ondol.rollout import split
from ondol.serving.application_host import ApplicationHost
from ondol.serving.applications import Application
from ondol.serving.request_log import RequestLog

Json = dict[str, Any]
_OPENING_SECONDS = 20.0  # how long a question waits for its application to be opened


class ApplicationChat:
    """Answers chat requests whose `model` is an application."""

    def __init__(self, services: Services, host: ApplicationHost, request_log: RequestLog) -> None:
        self._services, self._host, self._log = services, host, request_log

    async def answer(
        self,
        body: Json,
        route: Route,
        unit: str,
        headers: dict[str, str],
        send: replies.Send,
        receive: replies.Receive,
        traceparent: str = "",
    ) -> int:
        """Answer one request and return the status sent.

        :raises OndolError: before anything was sent.
        """
        started = time.time()
        user = body.get("user")
        unit = unit or (user if isinstance(user, str) and user else headers["x-request-id"])
        route = self._served(route)
        application, arm = await self._choose(route, unit)
        headers |= {
            "x-ondol-release": application.parts.release,
            "x-ondol-arm": arm,
            "x-ondol-route": str(route.generation),
        }
        call = requests.read(body, unit, application.parts.model is None)
        if call.ignored:
            headers["x-ondol-ignored"] = ",".join(call.ignored)
        span = telemetry.start(
            self._services.spans,
            f"ask {route.service}",
            {
                "ondol.root": True,
                "ondol.application": route.service,
                "ondol.release": application.parts.release,
                "ondol.arm": arm,
                "ondol.unit": unit,
                "ondol.request": headers["x-request-id"],
            },
            traceparent,
        )
        headers["x-ondol-trace"] = span.trace
        seen = _Seen(
            self._log, route, application.parts.release, arm, unit, headers["x-request-id"], started,
            call.ask.question, self._services.project.monitoring,
        )  # fmt: skip
        try:
            if call.stream:
                return await self._stream(application, call, span, headers, send, receive, seen)
            answered = await application.answer(call.ask, span)
            seen.done(200, answered)
            span.finish()  # before it is answered: who has the trace's name may look for it
            await replies.send_json(
                send, 200, _body(headers["x-request-id"], call.model, answered), _costs(headers, answered)
            )
            return 200
        except errors.OndolError as error:
            span.error = error.message
            seen.done(replies.status_of(error), None)
            raise
        except BaseException as error:
            span.error = str(error) or type(error).__name__
            seen.done(500, None)
            raise
        finally:
            span.finish()

    def _served(self, route: Route) -> Route:
        """Return the route as it can be served: without variants that are not all open yet (the judge must know)."""
        if all(self._host.get(one.release) is not None for one in route.variants):
            return route
        return route.with_variants((), 0.0)

    async def _choose(self, route: Route, unit: str) -> tuple[Application, Arm]:
        arm = split.assign(route, unit)
        variant = next((one for one in route.variants if one.name == arm), None)
        if variant is not None and (open_one := self._host.get(variant.release)) is not None:
            return open_one, arm
        application = self._host.get(route.stable) or await self._host.wait_for(route.stable, _OPENING_SECONDS)
        if application is None:
            why = self._host.why_not(route.stable) or "it is still being opened"
            raise errors.UpstreamError(
                f"application {route.service!r} does not serve: {why}",
                way_out="`ondol status` shows releases and why they fail.",
                code="UPS-162",
            )
        return application, STABLE

    async def _stream(
        self, application: Application, call: requests.ChatCall, span: ActiveSpan, headers: dict[str, str],
        send: replies.Send, receive: replies.Receive, seen: _Seen,
    ) -> int:  # fmt: skip
        out = replies.EventStream(send, receive, headers)
        identifier = headers["x-request-id"]
        parts = application.stream(call.ask, span)
        answered: Answered | None = None
        try:
            async for part in parts:
                if not out.started:
                    await out.start()
                    await out.event(_chunk(identifier, call.model, {"role": "assistant", "content": ""}))
                if isinstance(part, Answered):
                    answered = part
                else:
                    await out.event(_chunk(identifier, call.model, {"content": part}))
            assert answered is not None  # a stream ends with it
            seen.done(200, answered)
            span.finish()
            last = _chunk(identifier, call.model, {}, answered.finish)
            await out.event({**last, "ondol": described(answered)})
            if call.include_usage:
                usage = {
                    **_chunk(identifier, call.model, {}),
                    "choices": [],
                    "usage": gateway.usage_body(answered.usage),
                }
                await out.event(usage)
            await out.end()
        except replies.GoneAway:
            span.error = "the caller hung up"
            seen.done(499, None)
        except errors.OndolError as error:
            if not out.started:
                raise
            span.error = error.message
            seen.done(replies.status_of(error), None)
            span.finish()
            await out.event(replies.error_body(error))
            await out.end(done=False)
            return replies.status_of(error)
        finally:
            await parts.aclose()  # type: ignore[attr-defined]  # books what was written
            await out.close()
        return 200


class _Seen:
    """Writes the one observation of a request."""

    def __init__(
        self, log: RequestLog, route: Route, release: str, arm: Arm, unit: str, identifier: str, started: float,
        question: str, monitoring: MonitoringSpec,
    ) -> None:  # fmt: skip
        self._log, self._route, self._release, self._arm = log, route, release, arm
        self._unit, self._identifier, self._started, self._written = unit, identifier, started, False
        self._question, self._monitoring = question, monitoring

    def done(self, status: int, answered: Answered | None) -> None:
        """Append it, once; the caller's own mistakes say nothing about a release."""
        if self._written or status in (400, 401, 413, 422):
            return
        self._written = True
        now = time.time()
        one = Observation(
            id=self._identifier,
            at=now,
            service=self._route.service,
            release=self._release,
            arm=self._arm,
            unit=self._unit,
            status=200 if status == 499 else status,
            latency_ms=(now - self._started) * 1000,
            rollout=self._route.rollout,
            features=codec.encode({"question": self._question[:2000]}) if self._monitoring.features else "",
            weight=self._route.weight,
            prediction=codec.encode({"answer": answered.text[:2000], "documents": _documents(answered)})
            if answered
            else "",
            signals=_signals(answered) if answered else {"aborted": 1.0} if status == 499 else {},
        )
        if answered is not None and not answered.blocked_by and random.random() < self._monitoring.scores:
            asyncio.get_running_loop().run_in_executor(None, self._append_scored, one, answered)
        else:
            self._log.append(one)

    def _append_scored(self, one: Observation, answered: Answered) -> None:
        """Score the answer beside the requests, then log it: nobody waits for it."""
        try:
            one = replace(one, signals={**one.signals, **online_scores.of(self._question, answered)})
        finally:
            self._log.append(one)


def _documents(answered: Answered) -> list[str]:
    return list(dict.fromkeys(one.document for one in answered.citations))


def _signals(answered: Answered) -> Json:
    signals: Json = {
        "input_tokens": answered.usage.input,
        "output_tokens": answered.usage.output,
        "guardrail_block": float(bool(answered.blocked_by)),
        "abstained": float(not answered.found and not answered.blocked_by),
        "degraded": float(bool(answered.degraded)),
    }
    if answered.cost is not None:
        signals["cost"] = answered.cost
    if answered.quality is not None and not answered.blocked_by:
        # Its own opinion of itself: shown and watched, and no ground truth a canary may be decided by.
        signals["self_estimate"] = answered.quality
    return signals


def described(answered: Answered) -> Json:
    """Return what a caller may want to know beside the text; in the body's `ondol`."""
    return {
        "answerer": answered.answerer,
        "found": answered.found,
        "citations": codec.plain(answered.citations),
        "value": msgspec.to_builtins(answered.value.model_dump()) if answered.value is not None else None,
        "blocked_by": answered.blocked_by or None,
        "degraded": answered.degraded or None,
        "quality": answered.quality,
        "cost_usd": answered.cost,
        "cost_status": answered.cost_status,
        "trace": answered.trace,
        "release": answered.release,
    }


def _costs(headers: dict[str, str], answered: Answered) -> dict[str, str]:
    headers["x-ondol-cost-status"] = answered.cost_status
    if answered.cost is not None:
        headers["x-ondol-cost-usd"] = f"{answered.cost:.8f}"
    return headers


def _body(identifier: str, model: str, answered: Answered) -> Json:
    whole = ChatAnswer(answered.text, answered.finish, answered.usage)
    body = gateway.completion(identifier, model, whole, int(time.time()))
    return {**body, "ondol": described(answered)}


def _chunk(identifier: str, model: str, delta: Json, finish: str | None = None) -> Json:
    return {
        "id": f"chatcmpl-{identifier}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}],
    }

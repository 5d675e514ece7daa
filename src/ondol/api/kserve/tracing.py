"""W3C trace context: a request that brings a `traceparent` becomes a span of its caller's trace.

Nothing is traced without one, so that a request pays for one look-up. The answer's `traceresponse` names the span; a
process behind us gets it as its parent, and `tracestate` as it came. Must not decide what is kept: the sink does.
"""

from __future__ import annotations

import time

from ondol.api.kserve.answers import Headers
from ondol.base import telemetry
from ondol.base.telemetry import ActiveSpan, SpanSink


def begin(sink: SpanSink, traceparent: bytes, name: str, started: float) -> ActiveSpan | None:
    """Return a span of the caller's trace, or None when the header is none of W3C's.

    :param started: when the request was there, on the performance counter.
    """
    span = telemetry.adopt(sink, name, traceparent.decode("latin-1"))
    if span is not None:
        span.started -= time.perf_counter() - started
        span.put("ondol.root", True)  # of what we see of the trace
    return span


def end(span: ActiveSpan, service: str, release: str, arm: str, protocol: str, status: int, error: str = "") -> None:
    """Say what became of the request, and close its span."""
    span.attributes |= {
        "ondol.service": service,
        "ondol.release": release,
        "ondol.arm": arm,
        "ondol.protocol": protocol,
        "http.response.status_code": status,
    }
    span.finish(error if status >= 400 else "")


def response(span: ActiveSpan) -> Headers:
    """Return the header that names a request's span to its caller."""
    return [(b"traceresponse", telemetry.traceparent(span).encode())]

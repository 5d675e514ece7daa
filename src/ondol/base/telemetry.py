"""Spans as a port: every room may say what it did and how long it took; `monitoring` keeps what they say.

A trace is a tree of spans. `start` opens one, `span` adds to the one that is open in this context and does nothing when
there is none, so that library code may always call it. Names of attributes follow OpenTelemetry's GenAI conventions
where there is one (`gen_ai.usage.input_tokens` …), else `ondol.*`.

Must not store, export or print; must not import anything heavy.
"""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(slots=True)
class ActiveSpan:
    """One piece of work while it happens. Ids are W3C trace context's: 32 and 16 hex digits."""

    trace: str
    id: str
    parent: str
    """Id of the span this one is part of; empty for the root."""

    name: str
    started: float
    """Seconds since the epoch."""

    sink: SpanSink
    attributes: dict[str, Any] = field(default_factory=dict)
    ended: float = 0.0
    error: str = ""
    """One sentence when the work failed."""

    def set(self, **attributes: Any) -> None:
        """Add attributes; `a__b` is written `a.b`."""
        for name, value in attributes.items():
            self.attributes[name.replace("__", ".")] = value

    def put(self, name: str, value: Any) -> None:
        """Add one attribute under its exact name."""
        self.attributes[name] = value

    def begin(self, name: str, attributes: dict[str, Any] | None = None) -> ActiveSpan:
        """Open a part of this span; the caller must `finish` it."""
        return ActiveSpan(self.trace, _hex(64), self.id, name, time.time(), self.sink, attributes or {})

    def finish(self, error: str = "") -> None:
        """Close the span and hand it to the sink; a second call does nothing."""
        if self.ended:
            return
        self.ended = time.time()
        self.error = error or self.error
        self.sink.add(self)

    @contextlib.contextmanager
    def part(self, name: str, attributes: dict[str, Any] | None = None) -> Iterator[ActiveSpan]:
        """Open a part of this span for the length of a `with` block; an exception is its error."""
        one = self.begin(name, attributes)
        token = _current.set(one)
        try:
            yield one
        except BaseException as error:
            one.error = one.error or str(error) or type(error).__name__
            raise
        finally:
            with contextlib.suppress(ValueError):  # an async generator may be closed in another context
                _current.reset(token)
            one.finish()


class SpanSink(Protocol):
    """Who takes finished spans. `add` must not block and must not raise."""

    def add(self, span: ActiveSpan) -> None: ...


class Nowhere:
    """A sink for work that nobody traces."""

    def add(self, span: ActiveSpan) -> None:
        pass


NOWHERE = Nowhere()
_TRACEPARENT = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<parent>[0-9a-f]{16})-[0-9a-f]{2}(?P<more>-.*)?"
)
_current: ContextVar[ActiveSpan | None] = ContextVar("ondol_span", default=None)


def start(sink: SpanSink, name: str, attributes: dict[str, Any] | None = None, traceparent: str = "") -> ActiveSpan:
    """Open the root of a trace, or go on with a caller's (`traceparent` as in W3C trace context)."""
    trace, parent = _caller(traceparent)
    return ActiveSpan(trace or _hex(128), _hex(64), parent, name, time.time(), sink, attributes or {})


def _hex(bits: int) -> str:
    """Return a random id. Not from the kernel: that call hands the interpreter to another thread each time."""
    return f"{random.getrandbits(bits):0{bits // 4}x}"


def adopt(sink: SpanSink, name: str, traceparent: str) -> ActiveSpan | None:
    """Open a span in a caller's trace, or return None when `traceparent` is not W3C trace context's.

    What the caller does not sample has a span, so that its trace can be named, but the sink does not get it.
    """
    trace, parent = _caller(traceparent)
    if not trace:
        return None
    sampled = int(traceparent.strip()[53:55], 16) & 1
    return ActiveSpan(trace, _hex(64), parent, name, time.time(), sink if sampled else NOWHERE)


def traceparent(span: ActiveSpan) -> str:
    """Return a span as the `traceparent` of whoever works for it."""
    return f"00-{span.trace}-{span.id}-{'00' if span.sink is NOWHERE else '01'}"


def _caller(traceparent: str) -> tuple[str, str]:
    """Return trace and parent of a `traceparent`; empty when it is none, and then the caller's trace is not known."""
    found = _TRACEPARENT.fullmatch(traceparent.strip().lower())
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return "", ""
    trace, parent = found["trace"], found["parent"]
    return (trace, parent) if set(trace) != {"0"} and set(parent) != {"0"} else ("", "")


@contextlib.contextmanager
def span(name: str, attributes: dict[str, Any] | None = None) -> Iterator[ActiveSpan]:
    """Open a part of whatever span is open in this context; without one the work is not traced."""
    parent = _current.get()
    if parent is None:
        yield ActiveSpan("", "", "", name, time.time(), NOWHERE, attributes or {})
        return
    with parent.part(name, attributes) as one:
        yield one


def current() -> ActiveSpan | None:
    """Return the span that is open in this context, if any."""
    return _current.get()

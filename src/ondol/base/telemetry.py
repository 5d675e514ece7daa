"""Spans as a port: every room may say what it did and how long it took; `monitoring` keeps what they say.

A trace is a tree of spans. `start` opens one, `span` adds to the one that is open in this context and does nothing when
there is none, so that library code may always call it. Names of attributes follow OpenTelemetry's GenAI conventions
where there is one (`gen_ai.usage.input_tokens` …), else `ondol.*`.

Must not store, export or print; must not import anything heavy.
"""

from __future__ import annotations

import contextlib
import random
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
_current: ContextVar[ActiveSpan | None] = ContextVar("ondol_span", default=None)


def start(sink: SpanSink, name: str, attributes: dict[str, Any] | None = None, traceparent: str = "") -> ActiveSpan:
    """Open the root of a trace, or go on with a caller's (`traceparent` as in W3C trace context)."""
    trace, parent = _caller(traceparent)
    return ActiveSpan(trace or _hex(128), _hex(64), parent, name, time.time(), sink, attributes or {})


def _hex(bits: int) -> str:
    """Return a random id. Not from the kernel: that call hands the interpreter to another thread each time."""
    return f"{random.getrandbits(bits):0{bits // 4}x}"


def _caller(traceparent: str) -> tuple[str, str]:
    parts = traceparent.strip().lower().split("-")
    if len(parts) == 4 and len(parts[1]) == 32 and len(parts[2]) == 16 and set(parts[1]) != {"0"}:
        with contextlib.suppress(ValueError):
            int(parts[1] + parts[2], 16)
            return parts[1], parts[2]
    return "", ""


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

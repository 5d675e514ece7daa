"""Spans as they are kept: a trace is a tree of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """One finished piece of work."""

    trace: str
    id: str
    parent: str
    """Id of the span this one is part of; empty for the root."""

    name: str
    started: float
    ended: float
    """Seconds since the epoch."""

    error: str = ""
    attributes: Json = field(default_factory=dict)

    @property
    def milliseconds(self) -> float:
        return (self.ended - self.started) * 1000


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """One line per trace."""

    trace: str
    at: float
    name: str
    application: str
    question: str
    milliseconds: float
    spans: int
    input_tokens: int
    output_tokens: int
    cost: float | None
    error: str

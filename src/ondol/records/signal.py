"""What asks for a retraining, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

SignalKind = Literal["drift", "quality", "schedule", "data", "change", "hand"]
RetrainingState = Literal["started", "done", "given up"]
Json = dict[str, Any]

TRIGGERS = ("drift", "quality", "data", "change")
"""Words that `retrain.on` takes beside cron expressions. `hand` is always heard."""


@dataclass(frozen=True, slots=True)
class Signal:
    """One reason to go round the loop again. A reason of one key is heard once, and answered once."""

    id: str
    at: float
    subject: str
    """The model or application."""

    kind: SignalKind
    key: str
    """What makes two signals the same one: `drift/<release>`, `schedule/<expression>/<tick>`, `data/<fingerprint>`."""

    reason: str
    """One sentence for people."""

    evidence: Json = field(default_factory=dict)
    retraining: str = ""
    """The retraining that answers it; empty while nobody does."""


@dataclass(frozen=True, slots=True)
class Retraining:
    """One answer to one or several signals: a walk round the loop, tried again when it fails before its gate."""

    id: str
    at: float
    subject: str
    signals: tuple[str, ...]
    reason: str
    state: RetrainingState = "started"
    attempts: int = 0
    """How often a walk was begun."""

    next_at: float = 0.0
    """Not begun again before this time, seconds since the epoch."""

    ended_at: float = 0.0
    verdict: str = ""
    """The gate's, once there is one."""

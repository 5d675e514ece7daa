"""What a person should know, who is told, and what somebody has said about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["info", "warning", "critical"]
DeliveryState = Literal["waiting", "sent", "silenced", "acknowledged", "given_up"]
Json = dict[str, Any]

KINDS = (
    "rollback", "inconclusive", "gate", "retrain", "drift", "quality", "load", "budget", "worker", "conductor", "test",
)  # fmt: skip
"""What an alert may be about."""


@dataclass(frozen=True, slots=True)
class Alert:
    """Something a person should know."""

    id: str
    at: float
    kind: str
    """One of `KINDS`."""

    subject: str
    """The service, budget or process it is about."""

    message: str
    evidence: Json = field(default_factory=dict)
    delivered: bool = False
    """Whether nobody is left to be told."""

    key: str = ""
    """What makes two alerts the same one: a second of the same key is not raised. Empty: the id."""

    severity: Severity = "warning"
    acknowledged_by: str = ""
    """Who said that they know; then it is not sent any more."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One alert on its way to one target."""

    alert: str
    target: str
    """Kind and a digest of where it goes: an address may hold a secret."""

    state: DeliveryState = "waiting"
    attempts: int = 0
    next_at: float = 0.0
    """When the next attempt is due, seconds since the epoch."""

    error: str = ""
    """Why the last attempt failed, without the address."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Until when nobody is told about something. Alerts are still raised and kept."""

    id: str
    kind: str
    """Empty: every kind."""

    subject: str
    """Empty: every subject."""

    until: float
    reason: str
    made_at: float = 0.0


@dataclass(frozen=True, slots=True)
class SmtpSpec:
    """A mail server. Texts may hold `${VARIABLE}`."""

    host: str
    sender: str
    to: tuple[str, ...]
    port: int = 587
    user: str = ""
    password: str = ""
    tls: Literal["starttls", "tls", "none"] = "starttls"


@dataclass(frozen=True, slots=True)
class AlertSpec:
    """Where alerts go: exactly one of `webhook`, `slack`, `smtp`, `command`."""

    webhook: str = ""
    """URL that gets the whole alert as JSON; may hold `${VARIABLE}`."""

    slack: str = ""
    """URL of a Slack-compatible incoming webhook."""

    smtp: SmtpSpec | None = None
    command: tuple[str, ...] = ()
    """Program and arguments; it gets the alert as JSON on its standard input."""

    only: tuple[str, ...] = ()
    """Kinds of alert that go there; empty: all."""

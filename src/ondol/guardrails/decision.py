"""What a rail says, and what all rails together decide. Must not check anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Action = Literal["pass", "block", "mask", "flag"]


@dataclass(frozen=True, slots=True)
class Span:
    """A found piece of the text: `text[start:end]`."""

    start: int
    end: int
    kind: str
    """What it is: `EMAIL_ADDRESS`, `injection`, `unsupported`."""

    score: float = 1.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one check found."""

    action: Action
    reason: str = ""
    """For people, in the language of the text."""

    score: float = 0.0
    """0 to 1; what it means is the rail's own: a probability, a coverage."""

    spans: tuple[Span, ...] = ()
    text: str | None = None
    """The changed text, for `mask`."""


PASS = Verdict("pass")


@dataclass(frozen=True, slots=True)
class Check:
    """One rail's part in a decision."""

    rail: str
    action: Action
    reason: str
    score: float
    took_ms: float
    method: str
    """`classifier`, `rules`, `patterns`, `coverage`, `llm`, `nemo`: what decided."""

    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class RailDecision:
    """What all rails of a channel decided together."""

    allowed: bool
    text: str
    """The text to go on with: as it was, masked, or the refusal to show when not allowed."""

    rail: str
    """The rail that decided: the one that blocked, else the last one that changed or flagged; empty when none did."""

    reason: str
    score: float
    took_ms: float
    spans: tuple[Span, ...] = ()
    checks: tuple[Check, ...] = ()
    """Every rail that ran, in order."""


def is_korean(text: str) -> bool:
    """Whether people who wrote this read Korean: any Hangul syllable."""
    return any("가" <= char <= "힣" for char in text)

"""Tokens and money: prices, bookings, budgets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

CostStatus = Literal["priced", "estimated", "unpriced", "free"]
Outcome = Literal["pending", "ok", "error", "aborted", "crashed"]
Period = Literal["hour", "day", "week", "month", "total"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in US dollars per million tokens."""

    input: float
    output: float
    cached: float | None = None
    """For input tokens read from the provider's cache; None: as `input`."""

    since: str = ""
    """The day the price was read, YYYY-MM-DD."""

    source: str = ""
    """`table`, `ondol.yaml`, `local`."""

    def cost(self, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
        """Return US dollars; `cached_tokens` are part of `input_tokens`."""
        cached = min(cached_tokens, input_tokens)
        cached_price = self.input if self.cached is None else self.cached
        return ((input_tokens - cached) * self.input + cached * cached_price + output_tokens * self.output) / 1e6


FREE = Price(0.0, 0.0, 0.0, source="local")


@dataclass(frozen=True, slots=True)
class UsageIntent:
    """A call that is about to be made."""

    provider: str
    model: str
    application: str = ""
    release: str = ""
    prompt: str = ""
    """Prompt name and commit, `qa_prompt@<digest>`."""

    unit: str = ""
    """The user or customer who asked."""

    trace: str = ""
    input_tokens: int = 0
    """An estimate on the safe side."""

    max_output: int | None = None
    """The most tokens the caller lets the model write; None: not said."""

    price: Price | None = None
    """None: unknown. Then the call is unpriced, and refused where a budget applies."""

    can_clamp: bool = True
    """Whether the endpoint honours a limit on output tokens."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """Permission for one call: booked durably before the call is made."""

    id: str
    intent: UsageIntent
    max_output: int | None
    """The most tokens the model may write; smaller than asked for when a budget is nearly used up."""

    held: float
    """US dollars held against budgets until the call is settled."""

    windows: tuple[tuple[str, str], ...] = ()
    """The budgets that apply, each with the start of its period."""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One booked call."""

    id: str
    at: float
    application: str
    release: str
    prompt: str
    provider: str
    model: str
    unit: str
    trace: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: float | None
    """US dollars; None when unpriced."""

    status: CostStatus
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """Usage added up over one key."""

    key: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost: float
    priced: int
    estimated: int
    unpriced: int
    free: int
    failed: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on spending in a scope and period (UTC)."""

    scope: str
    """`all`, `application/NAME`, `model/PROVIDER/NAME`, `user/NAME`."""

    limit: float
    """US dollars."""

    per: Period = "day"
    alert_at: tuple[float, ...] = (0.5, 0.8, 1.0)
    """Shares of the limit at which an alert is raised, once each per period."""

    source: str = "cli"
    """`ondol.yaml` or `cli`."""

    @property
    def name(self) -> str:
        return f"{self.scope}/{self.per}"


@dataclass(frozen=True, slots=True)
class BudgetState:
    """A budget and where it stands now."""

    budget: Budget
    window: str
    """Start of the current period, RFC 3339."""

    spent: float
    held: float
    """Reserved by calls that are under way."""

    @property
    def left(self) -> float:
        return max(0.0, self.budget.limit - self.spent - self.held)

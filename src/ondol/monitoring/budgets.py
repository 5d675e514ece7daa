"""Whether a call may be made: pure decisions over budgets and where they stand.

A call holds what it may cost at most, so that calls under way together can not spend more than is left. Near the limit
an answer is made shorter (`max_output`) rather than refused, and a call waits for others to finish rather than being
refused while money is only held, not spent.

Must not touch the store or the clock.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from ondol.base import errors
from ondol.records.usage import Budget, BudgetState, Period, UsageIntent

DEFAULT_OUTPUT = 4096
"""Tokens an answer may have under a budget when the caller sets no limit."""

MIN_OUTPUT = 16
"""Tokens below which an answer is not worth starting."""

_MONEY = re.compile(r"^\s*\$?\s*(\d+(?:\.\d+)?)\s*(?:USD|usd|\$)?\s*$")
_SCOPE = re.compile(r"^(all|application/[^/\s]+|user/\S+|model/\S+)$")


@dataclass(frozen=True, slots=True)
class Grant:
    """The call may be made."""

    max_output: int | None
    held: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now: calls under way hold what is left, and will give some of it back."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """The call must not be made."""

    reason: str
    way_out: str
    budget: str = ""
    code: str = "REF-160"


def applies(budget: Budget, intent: UsageIntent) -> bool:
    """Whether a call falls into a budget's scope."""
    kind, _, name = budget.scope.partition("/")
    return (
        kind == "all"
        or (kind == "application" and name == intent.application)
        or (kind == "user" and name == intent.unit)
        or (kind == "model" and name in (f"{intent.provider}/{intent.model}", intent.model))
    )


def window_start(per: Period, now: float) -> float:
    """Return when the current period began, in seconds since the epoch; periods are UTC, weeks begin on Monday."""
    moment = datetime.fromtimestamp(now, UTC).replace(minute=0, second=0, microsecond=0)
    if per == "total":
        return 0.0
    if per != "hour":
        moment = moment.replace(hour=0)
    if per == "week":
        moment -= timedelta(days=moment.weekday())
    if per == "month":
        moment = moment.replace(day=1)
    return moment.timestamp()


def admit(intent: UsageIntent, states: Sequence[BudgetState], typical: int, patient: bool) -> Grant | Wait | Refuse:
    """Decide about one call.

    :param states: the budgets that apply and where they stand.
    :param typical: tokens that 95 % of such answers stay below; used near the limit when the caller set none.
    :param patient: whether the call can still wait for others to finish.
    """
    price = intent.price
    if not states or (price is not None and price.input == price.output == 0.0):
        guess = min(intent.max_output or typical, typical)
        return Grant(intent.max_output, price.cost(intent.input_tokens, guess) if price else 0.0)
    if price is None:
        return Refuse(
            f"{intent.provider}/{intent.model} has no known price and the budget {states[0].budget.name!r} applies",
            f"Add `prices: {{{intent.provider}/{intent.model}: {{input: …, output: …}}}}` to ondol.yaml.",
            states[0].budget.name,
            "REF-161",
        )
    tightest = min(states, key=lambda state: state.left)
    wanted = intent.max_output or DEFAULT_OUTPUT
    full = price.cost(intent.input_tokens, wanted)
    if full <= tightest.left:
        return Grant(wanted, full)
    affordable = _affordable(intent, tightest.left)
    if intent.max_output is None and intent.can_clamp and affordable >= max(typical, MIN_OUTPUT):
        return Grant(max(typical, MIN_OUTPUT), price.cost(intent.input_tokens, max(typical, MIN_OUTPUT)))
    held = any(state.held > 0 for state in states)
    if held and patient:
        return Wait()
    if intent.can_clamp and affordable >= MIN_OUTPUT:
        clamped = min(affordable, wanted)
        return Grant(clamped, price.cost(intent.input_tokens, clamped))
    if not intent.can_clamp and not held and tightest.left > 0:
        return Grant(intent.max_output, tightest.left)  # the last call; its overshoot is one call's
    return _exhausted(tightest, held)


def _affordable(intent: UsageIntent, left: float) -> int:
    """Return how many output tokens `left` US dollars buy after the input is paid."""
    assert intent.price is not None  # unpriced calls were refused before
    rest = left - intent.price.cost(intent.input_tokens, 0)
    if rest < 0:
        return 0
    if intent.price.output == 0:
        return DEFAULT_OUTPUT
    return math.floor(rest * 1e6 / intent.price.output)


def _exhausted(state: BudgetState, held: bool) -> Refuse:
    budget = state.budget
    raised = f"`ondol budget set {budget.scope} AMOUNT --per {budget.per}`"
    ever = budget.per == "total"
    spent = f"${state.spent:.4g} of ${budget.limit:.4g} {'in total' if ever else f'per {budget.per}'} spent"
    return Refuse(
        f"the budget {budget.name!r} is used up: {spent}" + (f", ${state.held:.4g} held" if held else ""),
        f"Allow more with {raised}." if ever else f"Wait for the next {budget.per}, or {raised}.",
        budget.name,
    )


def read_budget(value: Any, where: str = "ondol.yaml: budgets") -> Budget:
    """Read `{scope: application/support, limit: 20 USD, per: day, alert_at: [0.5, 1.0]}`.

    :raises InputError: naming the field that is wrong.
    """
    if not isinstance(value, dict):
        raise _bad(f"{value!r} is no budget", where)
    if unknown := sorted(set(value) - {"scope", "limit", "per", "alert_at"}):
        raise errors.UnsupportedError(f"a budget has {unknown[0]!r}", where=where)
    scope = str(value.get("scope", "all"))
    if not _SCOPE.match(scope):
        raise _bad(f"the scope {scope!r} is none of all, application/NAME, model/NAME, user/NAME", where)
    per = value.get("per", "day")
    if per not in get_args(Period):
        raise _bad(f"per {per!r} is none of {', '.join(get_args(Period))}", where)
    shares = value.get("alert_at", [0.5, 0.8, 1.0])
    if not isinstance(shares, list) or any(not isinstance(one, int | float) or not 0 < one <= 1 for one in shares):
        raise _bad(f"alert_at {shares!r} is no list of shares between 0 and 1", where)
    return Budget(scope, read_money(value.get("limit"), where), per, tuple(sorted(float(one) for one in shares)))


def read_money(value: Any, where: str = "") -> float:
    """Read `20`, `20 USD`, `$0.5`.

    :raises InputError: for anything else, and other currencies: prices are in US dollars.
    """
    found = _MONEY.match(str(value)) if not isinstance(value, bool) else None
    if not found:
        raise _bad(f"the limit {value!r} is no amount of US dollars", where)
    return float(found.group(1))


def _bad(message: str, where: str) -> errors.InputError:
    return errors.InputError(
        message,
        where=where,
        way_out="Write {scope: all, limit: 20 USD, per: day, alert_at: [0.8, 1.0]}.",
        code="INP-171",
    )


def with_source(budget: Budget, source: str) -> Budget:
    """Return the budget with where it was set."""
    return replace(budget, source=source)

"""The ledger's arithmetic inside one transaction: reserve, settle, recover, and the budgets they move.

Must not commit, wait or answer anybody: that is `ledger`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from ondol.base import clock, errors, ids
from ondol.monitoring import budgets
from ondol.records.alert import Alert
from ondol.records.chat import TokenUsage
from ondol.records.usage import BudgetState, CostStatus, Outcome, Reservation, UsageIntent, UsageRow
from ondol.store import alerts as alert_rows
from ondol.store import budgets as budget_rows
from ondol.store import usage as usage_rows
from ondol.store.connection import Tx

_LONGEST_CALL = 3600.0  # seconds after which a booking of an unreachable host is given up


def settled(reservation: Reservation, usage: TokenUsage, outcome: str, now: float) -> UsageRow:
    """Return what a finished call is booked as."""
    intent = reservation.intent
    price = intent.price
    cost = None if price is None else price.cost(usage.input, usage.output, usage.cached)
    return UsageRow(
        reservation.id,
        now,
        intent.application,
        intent.release,
        intent.prompt,
        intent.provider,
        intent.model,
        intent.unit,
        intent.trace,
        usage.input,
        usage.output,
        usage.cached,
        cost,
        _status(intent, usage),
        cast(Outcome, outcome),
    )


def _status(intent: UsageIntent, usage: TokenUsage) -> CostStatus:
    if intent.price is None:
        return "unpriced"
    if intent.price.source == "local":
        return "free"
    return "estimated" if usage.estimated else "priced"


class Books:
    """Budgets and bookings as one transaction sees and changes them. `flush` writes what was collected."""

    def __init__(self, tx: Tx, now: float) -> None:
        self._tx, self._now = tx, now
        self._budgets = budget_rows.every_in(tx)
        self._standing: dict[tuple[str, str], list[float]] = {}
        self._new: list[usage_rows.Pending] = []
        self._refused: set[tuple[str, str]] = set()
        self._touched: set[tuple[str, str]] = set()

    def _state(self, budget: Any) -> BudgetState:
        began = budgets.window_start(budget.per, self._now)
        window = clock.iso(began)
        key = (budget.name, window)
        if key not in self._standing:
            found = budget_rows.standing(self._tx, *key)
            if found is None:  # a new period, or a budget set in the middle of one: what was spent counts
                spent = usage_rows.spent(self._tx, budget.scope, began)
                budget_rows.move(self._tx, *key, spent, 0.0)
                found = (spent, 0.0, 0.0)
            self._standing[key] = list(found)
        spent, held, _ = self._standing[key]
        return BudgetState(budget, window, max(0.0, spent), max(0.0, held))

    def _move(self, key: tuple[str, str], spent: float, held: float) -> None:
        budget_rows.move(self._tx, *key, spent, held)
        if key in self._standing:
            self._standing[key][0] += spent
            self._standing[key][1] += held
        self._touched.add(key)

    def reserve(
        self, identifier: str, intent: UsageIntent, typical: int, patient: bool, owner: str
    ) -> Reservation | None:
        """Book a call; None when it should wait.

        :raises RefusedError: when no budget allows it.
        """
        states = [self._state(one) for one in self._budgets if budgets.applies(one, intent)]
        verdict = budgets.admit(intent, states, typical, patient)
        if isinstance(verdict, budgets.Wait):
            return None
        if isinstance(verdict, budgets.Refuse):
            self._refused.update((one.budget.name, one.window) for one in states if one.budget.name == verdict.budget)
            raise errors.RefusedError(verdict.reason, way_out=verdict.way_out, code=verdict.code)
        windows = tuple((state.budget.name, state.window) for state in states)
        for key in windows:
            self._move(key, 0.0, verdict.held)
        guess = min(verdict.max_output or typical, typical)
        self._new.append(
            usage_rows.Pending(
                identifier,
                self._now,
                intent,
                guess,
                intent.price.cost(intent.input_tokens, guess) if intent.price else None,
                owner,
                self._now + _LONGEST_CALL,
                verdict.held,
                windows,
            )
        )
        return Reservation(identifier, intent, verdict.max_output, verdict.held, windows)

    def settle(self, row: UsageRow, reservation: Reservation) -> None:
        """Book a finished call and give back what it held."""
        before = usage_rows.settle(self._tx, row)
        if before is None:
            return
        change = (row.cost or 0.0) - (before.cost if before.settled else 0.0)
        for key in reservation.windows:
            self._move(key, change, 0.0 if before.settled else -reservation.held)

    def recover(self, is_dead: Callable[[str], bool]) -> int:
        """Settle the calls of dead processes as estimated; returns how many."""
        count = 0
        for one in usage_rows.pending(self._tx):
            if one.expires_at > self._now and not is_dead(one.owner):
                continue
            usage_rows.give_up(self._tx, one.id)
            for key in one.windows:
                self._move(key, one.cost or 0.0, -one.held)
            count += 1
        return count

    def flush(self) -> bool:
        """Write the new bookings and the alerts that are due; True when there were alerts."""
        usage_rows.insert_pending(self._tx, self._new)
        by_name = {one.name: one for one in self._budgets}
        alerted = False
        for key in self._touched | self._refused:
            if (budget := by_name.get(key[0])) is not None:
                alerted = self._alert(budget, key) or alerted
        return alerted

    def _alert(self, budget: Any, key: tuple[str, str]) -> bool:
        found = budget_rows.standing(self._tx, *key)
        if found is None:
            return False
        spent, _, before = found
        share = spent / budget.limit if budget.limit else 1.0
        reached = [one for one in budget.alert_at if before < one <= share + 1e-9]
        if key in self._refused and before < 1.0:
            reached.append(1.0)
        if not reached:
            return False
        highest = max(reached)
        what = "is used up: calls are refused" if key in self._refused else f"reached {highest:.0%}"
        when = "in total" if budget.per == "total" else f"since {key[1]}"
        message = f"budget {budget.name} {what}: ${spent:.4g} of ${budget.limit:.4g} {when}"
        evidence = {"spent": spent, "limit": budget.limit, "share": share, "since": key[1], "threshold": highest}
        alert_rows.put_in(self._tx, Alert(ids.new_id("alr"), self._now, "budget", budget.name, message, evidence))
        budget_rows.mark_alerted(self._tx, *key, highest)
        return True

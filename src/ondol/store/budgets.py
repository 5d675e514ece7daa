"""Budgets, and where they stand in each period. Decisions are made in `monitoring`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ondol.base import errors
from ondol.records import codec
from ondol.records.usage import Budget
from ondol.store.connection import Store, Tx


def put_in(tx: Tx, budget: Budget) -> None:
    """Set a budget; one per scope and period."""
    tx.execute(
        "INSERT INTO budgets (name, scope, source, body) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (name) DO UPDATE SET source = excluded.source, body = excluded.body",
        (budget.name, budget.scope, budget.source, codec.encode(budget)),
    )


def put(store: Store, budget: Budget) -> None:
    """Set a budget because somebody says so: its alerts are due afresh; a new one counts what was spent without it."""
    with store.write() as tx:
        if tx.row("SELECT name FROM budgets WHERE name = ?", (budget.name,)) is None:
            # Where calls are still under way the row stays: what they hold is in it.
            tx.execute("DELETE FROM budget_windows WHERE budget = ? AND held < 1e-12", (budget.name,))
        tx.execute("UPDATE budget_windows SET alerted = 0 WHERE budget = ?", (budget.name,))
        put_in(tx, budget)


def replace_source(store: Store, source: str, budgets: Sequence[Budget]) -> None:
    """Make the budgets of one source exactly these; a budget of the same name set elsewhere is kept as it is."""
    with store.write() as tx:
        tx.execute("DELETE FROM budgets WHERE source = ?", (source,))
        taken = {row["name"] for row in tx.rows("SELECT name FROM budgets")}
        for budget in budgets:
            if budget.name not in taken:
                put_in(tx, replace(budget, source=source))


def remove(store: Store, name: str) -> None:
    """Remove a budget.

    :raises NotFoundError: when there is none of that name.
    """
    with store.write() as tx:
        if tx.execute("DELETE FROM budgets WHERE name = ?", (name,)) == 0:
            raise errors.NotFoundError(f"no budget {name!r}", way_out="`ondol budget list` shows them.", code="NOF-161")


def every_in(tx: Tx) -> list[Budget]:
    """Return all budgets, by name."""
    return [codec.decode(row["body"], Budget) for row in tx.rows("SELECT body FROM budgets ORDER BY name")]


def every(store: Store) -> list[Budget]:
    """`every_in` in a view of its own."""
    with store.read() as tx:
        return every_in(tx)


def standing(tx: Tx, budget: str, started: str) -> tuple[float, float, float] | None:
    """Return US dollars spent and held in a period, and the highest share an alert was raised at; None: not begun."""
    row = tx.row("SELECT spent, held, alerted FROM budget_windows WHERE budget = ? AND started = ?", (budget, started))
    return (row["spent"], row["held"], row["alerted"]) if row else None


def move(tx: Tx, budget: str, started: str, spent: float, held: float) -> None:
    """Add to what is spent and held in a period; negative amounts release."""
    tx.execute(
        "INSERT INTO budget_windows (budget, started, spent, held, alerted) VALUES (?, ?, ?, ?, 0) "
        "ON CONFLICT (budget, started) DO UPDATE SET spent = budget_windows.spent + excluded.spent, "
        "held = budget_windows.held + excluded.held",
        (budget, started, spent, held),
    )


def mark_alerted(tx: Tx, budget: str, started: str, share: float) -> None:
    """Remember that the alert at this share of the limit was raised."""
    tx.execute("UPDATE budget_windows SET alerted = ? WHERE budget = ? AND started = ?", (share, budget, started))

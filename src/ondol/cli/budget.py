"""`ondol budget`: limits on spending, and where they stand."""

from __future__ import annotations

import time

import click

from ondol.cli import context, output


@click.group()
def group() -> None:
    """Budgets (list, set, remove). A used-up budget refuses calls; it is never overdrawn on purpose."""


@group.command(
    "list",
    epilog="""\b
Examples:
  ondol budget list
  ondol budget list --json""",
)
@output.json_option
def list_(as_json: bool) -> None:
    """Show budgets with what is spent, held by calls under way, and left in the current period (UTC)."""
    from ondol.base import clock
    from ondol.monitoring import budgets
    from ondol.records.usage import BudgetState
    from ondol.store import alerts as alert_rows
    from ondol.store import budgets as rows
    from ondol.store import usage

    states = []
    with context.open_store() as store:
        alerts = alert_rows.every(store, "budget", limit=5)
        with store.read() as tx:
            for budget in rows.every_in(tx):
                began = budgets.window_start(budget.per, time.time())
                window = clock.iso(began)
                found = rows.standing(tx, budget.name, window) or (usage.spent(tx, budget.scope, began), 0.0, 0.0)
                states.append(BudgetState(budget, window, max(0.0, found[0]), max(0.0, found[1])))

    def show() -> None:
        columns = ["scope", "per", "limit", "spent", "held", "left", "set in"]
        table = [
            [
                one.budget.scope,
                one.budget.per,
                f"${one.budget.limit:g}",
                f"${one.spent:.6f}",
                f"${one.held:.6f}",
                f"${one.left:.6f}",
                one.budget.source,
            ]
            for one in states
        ]
        output.table(columns, table, empty="No budgets. `ondol budget set all '20 USD' --per day` sets one.")
        for alert in alerts:
            print(f"alert {clock.iso(alert.at)}  {alert.message}")

    value = [{"budget": one.budget, "since": one.window, "spent": one.spent, "held": one.held, "left": one.left}
             for one in states]  # fmt: skip
    output.emit({"budgets": value, "alerts": alerts}, as_json, show)


@group.command(
    "set",
    epilog="""\b
Examples:
  ondol budget set all "20 USD" --per day
  ondol budget set application/assistant 0.50 --per hour --alert-at 0.5 --alert-at 1
  ondol budget set user/mina 1""",
)
@click.argument("scope")
@click.argument("limit")
@click.option("--per", default="day", show_default=True, help="hour, day, week, month or total.")
@click.option("--alert-at", type=float, multiple=True, help="Share of the limit that raises an alert; repeatable.")
@output.json_option
def set_(scope: str, limit: str, per: str, alert_at: tuple[float, ...], as_json: bool) -> None:
    """Limit the spending of SCOPE: all, application/NAME, model/NAME or user/NAME. Takes effect at once."""
    from ondol.monitoring import budgets
    from ondol.store import budgets as rows

    value: dict[str, object] = {"scope": scope, "limit": limit, "per": per}
    if alert_at:
        value["alert_at"] = list(alert_at)
    budget = budgets.read_budget(value, "ondol budget set")
    with context.open_store() as store:
        rows.put(store, budget)
    output.emit(budget, as_json, lambda: print(f"budget {budget.name}: ${budget.limit:g} per {budget.per}"))


@group.command(
    "remove",
    epilog="""\b
Examples:
  ondol budget remove all/day
  ondol budget remove application/assistant/hour""",
)
@click.argument("name")
@output.json_option
def remove(name: str, as_json: bool) -> None:
    """Remove a budget: SCOPE/PERIOD, as in `ondol budget list`. One from ondol.yaml comes back at the next start."""
    from ondol.store import budgets as rows

    with context.open_store() as store:
        rows.remove(store, name)
    output.emit({"removed": name}, as_json, lambda: print(f"budget {name} removed"))

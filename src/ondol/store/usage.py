"""The usage ledger's rows: pending calls, settled calls, sums. What may be booked is decided in `monitoring.ledger`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from ondol.base import errors
from ondol.records import codec
from ondol.records.usage import Price, UsageIntent, UsageRow, UsageTotal
from ondol.store.connection import Row, Store, Tx

Key = Literal["application", "prompt", "user", "model", "release"]
_KEYS: dict[str, str] = {
    "application": "application",
    "prompt": "prompt",
    "user": "unit",
    "model": "provider || '/' || model",
    "release": "release_digest",
}


@dataclass(frozen=True, slots=True)
class Pending:
    """A call that is under way, or whose process died."""

    id: str
    at: float
    intent: UsageIntent
    output_guess: int
    cost: float | None
    """What it is thought to cost; stays when the call is never settled."""

    owner: str
    """The process that makes the call."""

    expires_at: float
    held: float
    """US dollars held in each of `windows`."""

    windows: tuple[tuple[str, str], ...]
    """Budget name and start of the period, for each budget that applies."""


def _plain_price(price: Price | None) -> str:
    return codec.encode(price) if price is not None else ""


def insert_pending(tx: Tx, rows: Sequence[Pending]) -> None:
    """Book calls that are about to be made."""
    tx.execute_many(
        "INSERT INTO usage_ledger (id, at, outcome, status, application, release_digest, prompt, provider, model, "
        "unit, trace, input_tokens, output_tokens, cached_tokens, cost, price, owner, expires_at, held, windows) "
        "VALUES (?, ?, 'pending', 'estimated', ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?)",
        [
            (
                one.id,
                one.at,
                one.intent.application,
                one.intent.release,
                one.intent.prompt,
                one.intent.provider,
                one.intent.model,
                one.intent.unit,
                one.intent.trace,
                one.intent.input_tokens,
                one.output_guess,
                one.cost,
                _plain_price(one.intent.price),
                one.owner,
                one.expires_at,
                one.held,
                msgspec.json.encode(one.windows).decode(),
            )
            for one in rows
        ],
    )


@dataclass(frozen=True, slots=True)
class Before:
    """What a call was booked as until it was settled."""

    cost: float
    settled: bool
    """True when a recovery had given it up already."""


def settle(tx: Tx, row: UsageRow) -> Before | None:
    """Replace a booking by what the call really took, and return what it was; None when there is none."""
    touched = tx.execute(
        "UPDATE usage_ledger SET outcome = ?, status = ?, input_tokens = ?, output_tokens = ?, cached_tokens = ?, "
        "cost = ?, held = 0 WHERE id = ? AND outcome = 'pending'",
        (row.outcome, row.status, row.input_tokens, row.output_tokens, row.cached_tokens, row.cost, row.id),
    )
    if touched:
        return Before(0.0, False)
    found = tx.row("SELECT cost FROM usage_ledger WHERE id = ? AND outcome = 'crashed'", (row.id,))
    if found is None:
        return None
    tx.execute(
        "UPDATE usage_ledger SET outcome = ?, status = ?, input_tokens = ?, output_tokens = ?, cached_tokens = ?, "
        "cost = ? WHERE id = ?",
        (row.outcome, row.status, row.input_tokens, row.output_tokens, row.cached_tokens, row.cost, row.id),
    )
    return Before(found["cost"] or 0.0, True)


def give_up(tx: Tx, identifier: str) -> None:
    """Settle a call whose process died: its estimate stays, and is called one."""
    tx.execute(
        "UPDATE usage_ledger SET outcome = 'crashed', held = 0, "
        "status = CASE WHEN cost IS NULL THEN 'unpriced' ELSE 'estimated' END WHERE id = ?",
        (identifier,),
    )


def spent(tx: Tx, scope: str, since: float) -> float:
    """Return US dollars of settled calls in a budget's scope."""
    kind, _, name = scope.partition("/")
    where, parameters = {
        "application": ("AND application = ?", [name]),
        "user": ("AND unit = ?", [name]),
        "model": ("AND (model = ? OR provider || '/' || model = ?)", [name, name]),
    }.get(kind, ("", []))
    row = tx.row(
        f"SELECT COALESCE(SUM(cost), 0) AS total FROM usage_ledger WHERE at >= ? AND outcome <> 'pending' {where}",
        [since, *parameters],
    )
    return float(row["total"]) if row else 0.0


def pending(tx: Tx) -> list[Pending]:
    """Return the calls that are not settled, oldest first."""
    rows = tx.rows("SELECT * FROM usage_ledger WHERE outcome = 'pending' ORDER BY at")
    return [
        Pending(
            row["id"],
            row["at"],
            UsageIntent(
                provider=row["provider"],
                model=row["model"],
                application=row["application"],
                release=row["release_digest"],
                prompt=row["prompt"],
                unit=row["unit"],
                trace=row["trace"],
                input_tokens=row["input_tokens"],
                price=codec.decode(row["price"], Price) if row["price"] else None,
            ),
            row["output_tokens"],
            row["cost"],
            row["owner"],
            row["expires_at"],
            row["held"],
            msgspec.json.decode(row["windows"], type=tuple[tuple[str, str], ...]),
        )
        for row in rows
    ]


def _row(row: Row) -> UsageRow:
    return UsageRow(
        id=row["id"],
        at=row["at"],
        application=row["application"],
        release=row["release_digest"],
        prompt=row["prompt"],
        provider=row["provider"],
        model=row["model"],
        unit=row["unit"],
        trace=row["trace"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cached_tokens=row["cached_tokens"],
        cost=row["cost"],
        status=row["status"],
        outcome=row["outcome"],
    )


def rows(store: Store, since: float = 0.0, application: str = "", trace: str = "", limit: int = 1000) -> list[UsageRow]:
    """Return booked calls, newest first."""
    with store.read() as tx:
        found = tx.rows(
            "SELECT * FROM usage_ledger WHERE at >= ? AND (? = '' OR application = ?) AND (? = '' OR trace = ?) "
            "ORDER BY at DESC, id DESC LIMIT ?",
            (since, application, application, trace, trace, limit),
        )
    return [_row(row) for row in found]


def get(store: Store, identifier: str) -> UsageRow:
    """Return one booked call.

    :raises NotFoundError: when there is none.
    """
    with store.read() as tx:
        row = tx.row("SELECT * FROM usage_ledger WHERE id = ?", (identifier,))
    if row is None:
        raise errors.NotFoundError(f"no booked call {identifier!r}", code="NOF-160")
    return _row(row)


def totals(store: Store, by: Key = "application", since: float = 0.0, until: float = 1e18) -> list[UsageTotal]:
    """Return usage added up by one key, dearest first. Unpriced calls count as calls, and add nothing to the cost."""
    key = _KEYS[by]
    with store.read() as tx:
        found = tx.rows(
            f"SELECT {key} AS name, COUNT(*) AS calls, SUM(input_tokens) AS given, SUM(output_tokens) AS written, "
            "SUM(COALESCE(cost, 0)) AS cost, SUM(CASE WHEN status = 'priced' THEN 1 ELSE 0 END) AS priced, "
            "SUM(CASE WHEN status = 'estimated' THEN 1 ELSE 0 END) AS estimated, "
            "SUM(CASE WHEN status = 'unpriced' THEN 1 ELSE 0 END) AS unpriced, "
            "SUM(CASE WHEN status = 'free' THEN 1 ELSE 0 END) AS free, "
            "SUM(CASE WHEN outcome = 'ok' OR outcome = 'pending' THEN 0 ELSE 1 END) AS failed "
            f"FROM usage_ledger WHERE at >= ? AND at < ? GROUP BY {key} ORDER BY 5 DESC, 2 DESC",
            (since, until),
        )
    return [
        UsageTotal(
            row["name"],
            int(row["calls"]),
            int(row["given"]),
            int(row["written"]),
            float(row["cost"]),
            int(row["priced"]),
            int(row["estimated"]),
            int(row["unpriced"]),
            int(row["free"]),
            int(row["failed"]),
        )
        for row in found
    ]

"""Alerts, the outbox that brings each of them to each target, silences and acknowledgements.

A delivery is leased while it is being made, so that several processes may deliver and none does it twice; where a
process is killed meanwhile the lease runs out, and the alert is sent again: at least once, with the same id.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from ondol.base import errors, ids
from ondol.records import codec
from ondol.records.alert import Alert, Delivery, DeliveryState, Severity, Silence
from ondol.store.connection import Row, Store, Tx


def put_in(tx: Tx, alert: Alert) -> bool:
    """Append an alert, to be delivered; False when one of the same key was raised before."""
    return bool(
        tx.execute(
            "INSERT INTO alerts (id, at, kind, subject, delivered, body, dedupe) VALUES (?, ?, ?, ?, 0, ?, ?) "
            "ON CONFLICT (dedupe) DO NOTHING",
            (alert.id, alert.at, alert.kind, alert.subject, codec.encode(alert), alert.key or alert.id),
        )
    )


def put(store: Store, alert: Alert) -> bool:
    """`put_in` in a transaction of its own; costs a read only when the alert is known."""
    if alert.key:
        with store.read() as tx:
            if tx.row("SELECT id FROM alerts WHERE dedupe = ?", (alert.key,)) is not None:
                return False
    with store.write() as tx:
        return put_in(tx, alert)


def make(
    kind: str, subject: str, message: str, *, key: str = "", severity: Severity = "warning", evidence: object = None
) -> Alert:
    """Return a new alert; it is not raised yet."""
    found = evidence if isinstance(evidence, dict) else {}
    return Alert(ids.new_id("alr"), time.time(), kind, subject, message, found, key=key, severity=severity)


def _alert(row: Row) -> Alert:
    found = codec.decode(row["body"], Alert)
    return replace(found, delivered=bool(row["delivered"]), acknowledged_by=row["acknowledged_by"])


def every(store: Store, kind: str = "", undelivered: bool = False, subject: str = "", limit: int = 100) -> list[Alert]:
    """Return alerts, newest first."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT body, delivered, acknowledged_by FROM alerts WHERE (? = '' OR kind = ?) "
            "AND (? = 0 OR delivered = 0) AND (? = '' OR subject = ?) ORDER BY at DESC, id DESC LIMIT ?",
            (kind, kind, int(undelivered), subject, subject, limit),
        )
    return [_alert(row) for row in rows]


def get(store: Store, identifier: str) -> Alert:
    """Return one alert.

    :raises NotFoundError: when there is none.
    """
    with store.read() as tx:
        row = tx.row("SELECT body, delivered, acknowledged_by FROM alerts WHERE id = ?", (identifier,))
    if row is None:
        raise errors.NotFoundError(f"no alert {identifier!r}", way_out="`ondol alert list` shows them.", code="NOF-450")
    return _alert(row)


def acknowledge(store: Store, identifier: str, by: str) -> Alert:
    """Remember that somebody knows: the alert is not sent any more.

    :raises NotFoundError: when there is no such alert.
    """
    found = get(store, identifier)
    with store.write() as tx:
        tx.execute("UPDATE alerts SET acknowledged_by = ?, delivered = 1 WHERE id = ?", (by, identifier))
        tx.execute(
            "UPDATE alert_deliveries SET state = 'acknowledged' WHERE alert = ? AND state = 'waiting'", (identifier,)
        )
    return replace(found, acknowledged_by=by, delivered=True)


def mark_delivered(store: Store, identifier: str) -> None:
    """Remember that nobody is left to be told."""
    with store.write() as tx:
        tx.execute("UPDATE alerts SET delivered = 1 WHERE id = ?", (identifier,))


def deliveries(store: Store, alert: str) -> list[Delivery]:
    """Return where an alert is on its way to, or was sent."""
    with store.read() as tx:
        rows = tx.rows(
            "SELECT alert, target, state, attempts, next_at, error FROM alert_deliveries WHERE alert = ? "
            "ORDER BY target",
            (alert,),
        )
    return [Delivery(**row) for row in rows]


def lease(store: Store, alert: str, targets: Sequence[str], now: float, seconds: float) -> list[Delivery]:
    """Take what is due of an alert for this long; what others have taken, or is not due yet, is left to them."""
    with store.write() as tx:
        if tx.row("SELECT id FROM alerts WHERE id = ? AND delivered = 0", (alert,)) is None:
            return []
        for target in targets:
            tx.execute(
                "INSERT INTO alert_deliveries (alert, target, state, attempts, next_at, leased_until, error) "
                "VALUES (?, ?, 'waiting', 0, 0, 0, '') ON CONFLICT (alert, target) DO NOTHING",
                (alert, target),
            )
        rows = tx.rows(
            "UPDATE alert_deliveries SET leased_until = ?, attempts = attempts + 1 WHERE alert = ? "
            "AND state = 'waiting' AND next_at <= ? AND leased_until <= ? "
            "RETURNING alert, target, state, attempts, next_at, error",
            (now + seconds, alert, now, now),
        )
    return [Delivery(**row) for row in rows]


def settle(store: Store, delivery: Delivery, state: DeliveryState, next_at: float = 0.0, error: str = "") -> None:
    """Write what came of a leased delivery."""
    with store.write() as tx:
        tx.execute(
            "UPDATE alert_deliveries SET state = ?, next_at = ?, leased_until = 0, error = ? "
            "WHERE alert = ? AND target = ? AND state = 'waiting'",
            (state, next_at, error, delivery.alert, delivery.target),
        )


def silence(store: Store, kind: str, subject: str, until: float, reason: str) -> Silence:
    """Tell nobody about alerts of a kind and subject (empty: any) until a time."""
    made = Silence(ids.new_id("sil"), kind, subject, until, reason, time.time())
    with store.write() as tx:
        tx.execute(
            "INSERT INTO alert_silences (id, kind, subject, until_at, reason, made_at) VALUES (?, ?, ?, ?, ?, ?)",
            (made.id, kind, subject, until, reason, made.made_at),
        )
    return made


def unsilence(store: Store, identifier: str) -> None:
    """End a silence.

    :raises NotFoundError: when there is none.
    """
    with store.write() as tx:
        if not tx.execute("DELETE FROM alert_silences WHERE id = ?", (identifier,)):
            raise errors.NotFoundError(
                f"no silence {identifier!r}", way_out="`ondol alert list` shows them.", code="NOF-450"
            )


def silences(store: Store, now: float) -> list[Silence]:
    """Return the silences that are in force."""
    with store.read() as tx:
        rows = tx.rows(
            'SELECT id, kind, subject, until_at AS "until", reason, made_at FROM alert_silences '
            "WHERE until_at > ? ORDER BY until_at",
            (now,),
        )
    return [Silence(**row) for row in rows]

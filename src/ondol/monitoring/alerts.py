"""Telling people: alerts are rows first, then delivered to webhooks; what could not be delivered is tried again.

A target is `{webhook: "${ALERT_WEBHOOK}"}`; the variable is read when the alert is sent, and its value is never kept.
Must not decide what is worth an alert.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Sequence
from typing import Any

import msgspec

from ondol.base import clock, errors, ids
from ondol.records.usage import Alert
from ondol.store import budgets as rows
from ondol.store.connection import Store

log = logging.getLogger("ondol.alerts")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_RETRY_SECONDS = 15.0


def read_targets(values: Any) -> list[str]:
    """Read `alerts:` of ondol.yaml: a list of `{webhook: URL}`; `${NAME}` stays as it is until it is used.

    :raises InputError: for anything else.
    """
    if values is None:
        return []
    if not isinstance(values, list):
        raise errors.InputError("alerts is no list", where="ondol.yaml: alerts", code="INP-172")
    for one in values:
        if not isinstance(one, dict) or set(one) != {"webhook"} or not isinstance(one["webhook"], str):
            raise errors.UnsupportedError(
                f"an alert target is {one!r}", where="ondol.yaml: alerts", way_out="Write {webhook: URL}."
            )
    return [one["webhook"] for one in values]


def raise_alert(store: Store, kind: str, subject: str, message: str, evidence: dict[str, Any] | None = None) -> Alert:
    """Write an alert, to be delivered by whoever runs `Delivery`."""
    alert = Alert(ids.new_id("alr"), clock.SYSTEM.now(), kind, subject, message, evidence or {})
    with store.write() as tx:
        rows.put_alert(tx, alert)
    return alert


class Delivery:
    """A thread that sends alerts to webhooks as JSON (`text` is what Slack and its kin show).

    Without a target alerts are only logged and kept.
    """

    def __init__(self, store: Store, targets: Sequence[str]) -> None:
        self._store, self._targets = store, list(targets)
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> Delivery:
        """Begin; alerts that are undelivered from before are sent first."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ondol-alerts", daemon=True)
            self._wake.set()
            self._thread.start()
        return self

    def stop(self) -> None:
        """End; what is undelivered stays so."""
        if self._thread is not None:
            self._stop.set()
            self._wake.set()
            self._thread.join(timeout=10)
            self._thread = None

    def wake(self) -> None:
        """Say that there is something to deliver; returns at once."""
        self._wake.set()

    def _run(self) -> None:
        failed = False
        while not self._stop.is_set():
            self._wake.wait(_RETRY_SECONDS if failed else None)
            self._wake.clear()
            if not self._stop.is_set():
                failed = not self.deliver()

    def deliver(self) -> bool:
        """Send what is undelivered; True when nothing is left."""
        delivered: list[str] = []
        waiting = rows.alerts(self._store, undelivered=True)
        for alert in reversed(waiting):
            log.warning("alert: %s", alert.message)
            if all(_send(target, alert) for target in self._targets):
                delivered.append(alert.id)
        if delivered:
            rows.mark_delivered(self._store, delivered)
        return len(delivered) == len(waiting)


def _send(target: str, alert: Alert) -> bool:
    import httpx

    url = _VARIABLE.sub(lambda found: os.environ.get(found.group(1), ""), target)
    if not url:
        log.warning("the alert target %s is not set in the environment", target)
        return True  # nobody to tell
    body = {
        "text": alert.message,
        "id": alert.id,
        "kind": alert.kind,
        "subject": alert.subject,
        "at": clock.iso(alert.at),
        "evidence": alert.evidence,
    }
    try:
        response = httpx.post(
            url, content=msgspec.json.encode(body), headers={"content-type": "application/json"}, timeout=5.0
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        log.warning("alert %s was not delivered to %s: %s", alert.id, target, type(error).__name__)
        return False
    if response.status_code >= 300:
        log.warning("alert %s was not delivered: %s answered %d", alert.id, target, response.status_code)
        return False
    return True

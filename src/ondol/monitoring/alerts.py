"""Telling people: alerts are rows first, then delivered to each target; what could not be delivered is tried again.

Delivered at least once: a process that is killed between sending and writing that down sends again, with the same id.
Must not decide what is worth an alert.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from ondol.base import clock
from ondol.monitoring import alert_targets
from ondol.monitoring.alert_targets import NotSentError, Target
from ondol.records.alert import Alert, Delivery, Silence
from ondol.store import alerts as rows
from ondol.store.connection import Store

log = logging.getLogger("ondol.alerts")
LOOK_SECONDS = 2.0
"""How often the outbox is looked at: other processes write alerts, too."""

FIRST_RETRY, LONGEST_RETRY = 5.0, 600.0
"""Seconds until the second attempt, doubled with each further one up to the longest."""

GIVE_UP_SECONDS = 86_400.0
"""An alert that could not be delivered for a day is news to nobody."""


class Outbox:
    """Delivers what is due, to everybody it is for.

    Without a target alerts are only logged and kept.
    """

    def __init__(self, store: Store, targets: Sequence[Target], time_source: clock.Clock = clock.SYSTEM) -> None:
        self._store, self._targets, self._clock = store, list(targets), time_source

    def deliver(self) -> bool:
        """Send what is due; True when nothing is left to send."""
        waiting = rows.every(self._store, undelivered=True, limit=1000)
        if not waiting:
            return True
        silences = rows.silences(self._store, self._clock.now())
        done = [self._deliver(alert, silences) for alert in reversed(waiting)]  # one that fails stops no other
        return all(done)

    def _deliver(self, alert: Alert, silences: Sequence[Silence]) -> bool:
        names = {one.name: one for one in self._targets if one.wants(alert)}
        now = self._clock.now()
        for delivery in rows.lease(self._store, alert.id, list(names), now, alert_targets.LEASE_SECONDS):
            target = names.get(delivery.target)
            if target is None:  # the project names it no more
                rows.settle(self._store, delivery, "given_up", error="the target is not in ondol.yaml any more")
            elif any(is_silenced(alert, one) for one in silences):
                rows.settle(self._store, delivery, "silenced")
            else:
                self._attempt(alert, delivery, target)
        if any(one.state == "waiting" for one in rows.deliveries(self._store, alert.id)):
            return False
        log.warning("alert %s: %s", alert.kind, alert.message)
        rows.mark_delivered(self._store, alert.id)
        return True

    def _attempt(self, alert: Alert, delivery: Delivery, target: Target) -> None:
        try:
            alert_targets.send(target, alert)
        except NotSentError as error:
            now = self._clock.now()
            log.warning("alert %s was not delivered to %s: %s", alert.id, target.name, error)
            pause = min(FIRST_RETRY * 2 ** (delivery.attempts - 1), LONGEST_RETRY)
            late = now + pause > alert.at + GIVE_UP_SECONDS
            rows.settle(self._store, delivery, "given_up" if late else "waiting", now + pause, str(error))
        else:
            rows.settle(self._store, delivery, "sent")


def is_silenced(alert: Alert, silence: Silence) -> bool:
    """Whether a silence covers an alert."""
    return silence.kind in ("", alert.kind) and silence.subject in ("", alert.subject)


class Delivering:
    """A thread that looks at the outbox, and does what else must be looked at even when the conductor is stuck.

    :param outbox: makes the outbox with what the project says now; called only when something is to be sent.
    :param look: called before each look at the outbox.
    """

    def __init__(self, store: Store, outbox: Callable[[], Outbox], look: Callable[[], object]) -> None:
        self._store, self._outbox, self._look = store, outbox, look
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; alerts that are undelivered from before are sent first."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ondol-alerts", daemon=True)
            self._thread.start()

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
        while not self._stop.is_set():
            try:
                self._look()
                if rows.every(self._store, undelivered=True, limit=1):
                    self._outbox().deliver()
            except Exception as error:  # noqa: BLE001 - a database that is away must not silence alerts for ever
                log.warning("the outbox could not be looked at: %s", error)
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()

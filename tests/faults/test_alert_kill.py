"""kill -9 of whoever delivers alerts: every alert arrives, and at most the one that was on its way arrives twice."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from ondol.base.settings import Settings
from ondol.monitoring import alert_targets
from ondol.monitoring.alerts import Outbox
from ondol.records.alert import AlertSpec
from ondol.store import alerts
from ondol.store.connection import Store
from ondol.testing.fake_inbox import FakeInbox

WORKER = """
import sys
from ondol.monitoring import alert_targets
from ondol.monitoring.alerts import Outbox
from ondol.records.alert import AlertSpec
from ondol.store.connection import Store

Outbox(Store(sys.argv[1]), alert_targets.read([AlertSpec(webhook=sys.argv[2])])).deliver()
"""


class Later:
    """A clock that is two minutes ahead: leases of the dead have run out."""

    def now(self) -> float:
        return time.time() + 120

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


def test_every_alert_arrives_whoever_is_killed(home: Settings, store: Store) -> None:
    raised = [alerts.make("drift", "m", f"window {number}") for number in range(60)]
    for one in raised:
        alerts.put(store, one)
    with FakeInbox() as inbox:
        for enough in (5, 20):
            worker = subprocess.Popen(
                [sys.executable, "-c", WORKER, home.database, inbox.url], cwd=Path(__file__).parents[2]
            )
            inbox.wait(enough, 60)
            worker.kill()
            worker.wait()
        outbox = Outbox(store, alert_targets.read([AlertSpec(webhook=inbox.url)]), Later())
        assert outbox.deliver()
        times = Counter(post["id"] for post in inbox.posts)
    assert set(times) == {one.id for one in raised}
    assert sum(times.values()) - len(times) <= 2  # two were killed, each with one on its way at most
    assert alerts.every(store, undelivered=True) == []

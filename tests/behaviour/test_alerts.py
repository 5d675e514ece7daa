"""Alerts: raised once, sent to everybody they are for, again until they arrive, or kept quiet."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.behaviour import loop_tools as tools
from tests.behaviour.loop_tools import MODEL

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.loop import alarms
from ondol.monitoring import alert_targets, pulse
from ondol.monitoring import alerts as delivering
from ondol.monitoring.alerts import Outbox
from ondol.records.alert import Alert, AlertSpec, SmtpSpec
from ondol.store import alerts, counters, loads
from ondol.store.connection import Store
from ondol.testing.fake_inbox import FakeInbox


class Hours:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.time = time.time()

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def raised(store: Store, kind: str = "drift", subject: str = MODEL, key: str = "") -> Alert:
    alert = alerts.make(kind, subject, f"{kind} of <{subject}>", key=key, evidence={"release": "r1"})
    assert alerts.put(store, alert)
    return alert


def test_an_alert_of_one_key_is_raised_once(store: Store) -> None:
    raised(store, key="drift/m/r1")
    assert not alerts.put(store, alerts.make("drift", MODEL, "again", key="drift/m/r1"))
    raised(store, key="drift/m/r2")
    assert len(alerts.every(store)) == 2


def test_every_kind_of_target_is_told_what_it_wants(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = tmp_path / "heard"
    with FakeInbox() as inbox:
        monkeypatch.setenv("HOOK", inbox.url)
        monkeypatch.setenv("MINA", "mina@example.test")
        mail = SmtpSpec("127.0.0.1", "ondol@example.test", ("${MINA}",), port=inbox.smtp_port, tls="none")
        write = (sys.executable, "-c", f"import sys; open({str(heard)!r}, 'wb').write(sys.stdin.buffer.read())")
        targets = alert_targets.read(
            [
                AlertSpec(webhook="${HOOK}"),
                AlertSpec(slack="${HOOK}"),
                AlertSpec(smtp=mail),
                AlertSpec(command=write),
                AlertSpec(webhook="${HOOK}", only=("budget",)),
            ]
        )
        alert = raised(store)
        assert Outbox(store, targets).deliver()
    plain, slack = inbox.posts
    assert (plain["id"], plain["kind"], plain["evidence"]) == (alert.id, "drift", {"release": "r1"})
    assert slack["text"] == "drift of &lt;m&gt;"
    assert [one["type"] for one in slack["blocks"]] == ["section", "context"]
    assert "To: mina@example.test" in inbox.mails[0]
    assert "[ondol] warning: drift m" in inbox.mails[0]
    assert json.loads(heard.read_text())["id"] == alert.id
    assert {one.state for one in alerts.deliveries(store, alert.id)} == {"sent"}
    assert alerts.every(store)[0].delivered


def test_what_does_not_arrive_is_tried_again_ever_more_slowly_and_given_up_after_a_day(store: Store) -> None:
    hours = Hours()
    with FakeInbox() as inbox:
        inbox.status = 503
        outbox = Outbox(store, alert_targets.read([AlertSpec(webhook=inbox.url)]), hours)
        alert = raised(store)
        for _ in range(20):
            assert not outbox.deliver()
            hours.time += 1
        assert [len(inbox.posts), alerts.deliveries(store, alert.id)[0].error] == [3, "the target answered 503"]
        inbox.status = 200
        hours.time += delivering.LONGEST_RETRY
        assert outbox.deliver()
        assert outbox.deliver()
        assert len(inbox.posts) == 4
        late = raised(store)
        inbox.status = 500
        while not outbox.deliver():
            hours.time += delivering.LONGEST_RETRY
        assert hours.time > late.at + delivering.GIVE_UP_SECONDS - delivering.LONGEST_RETRY
        assert [one.state for one in alerts.deliveries(store, late.id)] == ["given_up"]


def test_one_dead_target_keeps_no_other_from_being_told_once(store: Store) -> None:
    with FakeInbox() as inbox:
        specs = [AlertSpec(webhook="http://127.0.0.1:9/nobody"), AlertSpec(webhook=inbox.url)]
        outbox = Outbox(store, alert_targets.read(specs))
        raised(store)
        assert not outbox.deliver()
        assert not outbox.deliver()
        assert len(inbox.posts) == 1


def test_secrets_are_in_no_row_and_no_log(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOOK", "http://127.0.0.1:9/T0KEN-IN-PATH")
    monkeypatch.delenv("MISSING", raising=False)
    targets = alert_targets.read([AlertSpec(webhook="${HOOK}"), AlertSpec(webhook="http://x.test/${MISSING}")])
    alert = raised(store)
    with caplog.at_level(logging.DEBUG, "ondol"):
        assert not Outbox(store, targets).deliver()
    kept = str(alerts.deliveries(store, alert.id)) + caplog.text
    assert "T0KEN" not in kept
    assert "the variable MISSING is not set" in kept


def test_silenced_and_acknowledged_alerts_are_kept_and_not_sent(store: Store) -> None:
    with FakeInbox() as inbox:
        outbox = Outbox(store, alert_targets.read([AlertSpec(webhook=inbox.url)]))
        quiet = alerts.silence(store, "drift", MODEL, time.time() + 3600, "holidays")
        silenced = raised(store)
        raised(store, "drift", "other")
        known = raised(store, "quality")
        alerts.acknowledge(store, known.id, "mina")
        assert outbox.deliver()
        assert [one["subject"] for one in inbox.posts] == ["other"]
        assert [one.state for one in alerts.deliveries(store, silenced.id)] == ["silenced"]
        assert alerts.get(store, known.id).acknowledged_by == "mina"
        alerts.unsilence(store, quiet.id)
        raised(store)
        assert outbox.deliver()
        assert len(inbox.posts) == 2


@pytest.mark.parametrize(
    "spec",
    [AlertSpec(), AlertSpec(webhook="http://a", slack="http://b"), AlertSpec(webhook="http://a", only=("weather",))],
)
def test_a_target_that_says_nothing_or_too_much_is_refused(spec: AlertSpec) -> None:
    with pytest.raises(errors.InputError) as caught:
        alert_targets.read([spec])
    assert caught.value.code == "INP-450"


def told(store: Store) -> list[tuple[str, str]]:
    return sorted((one.kind, one.subject) for one in alerts.every(store))


def test_what_is_decided_becomes_alerts_once_however_often_one_looks(store: Store) -> None:
    stable = tools.serving(store)
    tools.decided(store, "roll_back", "rolled_back", candidate="r2")
    tools.decided(store, "gate", "pass", retraining="ret-1")
    tools.decided(store, "gate", "fail")  # somebody asked for it, and was answered
    tools.decided(store, "gate", "fail", retraining="ret-1")
    for _ in range(3):  # three windows of one release
        tools.decided(store, "drift", "drift", release=stable)
        tools.decided(store, "quality", "degraded", release=stable)
    tools.decided(store, "drift", "stable", release=stable)
    loads.put(store, MODEL, stable, "FailedToLoad", "no such file")
    loads.put(store, MODEL, "unwanted", "FailedToLoad", "no such file")
    assert alarms.look(store) == 5
    assert alarms.look(store) == 0
    assert told(store) == [(kind, MODEL) for kind in ("drift", "gate", "load", "quality", "rollback")]
    counters.put_fact(store, "alarms/position", 0.0)  # as if it had been killed before it wrote where it is
    assert alarms.look(store) == 0


def test_a_process_that_died_is_worth_one_alert_and_one_that_ended_none(store: Store) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = pulse.Pulse(store, "data")
    mine.begin()
    assert not pulse.alert_if_dead(store, "data")
    fact = pulse.of(store, "data")
    counters.put_fact(store, "pulse/data", {**fact, "pid": dead.pid})
    assert pulse.alert_if_dead(store, "data")
    pulse.Pulse(store, "data").begin()  # started again
    (alert,) = alerts.every(store, "worker")
    assert str(dead.pid) in alert.message
    mine.end()
    counters.put_fact(store, "pulse/data", {**pulse.of(store, "data"), "pid": dead.pid})
    assert not pulse.alert_if_dead(store, "data")


def test_a_conductor_that_is_stuck_is_worth_an_alert(store: Store) -> None:
    pulse.Pulse(store, "conductor").begin()
    now = time.time()
    assert not pulse.alert_if_stuck(store, now + 1)
    assert pulse.alert_if_stuck(store, now + 61)
    assert pulse.alert_if_stuck(store, now + 90)
    assert told(store) == [("conductor", "conductor")]
    pulse.Pulse(store, "conductor").end()
    assert not pulse.alert_if_stuck(store, now + 3600)


def test_the_commands(home: Settings, store: Store, ondol: Callable[..., str]) -> None:
    alert = raised(store)
    assert "acknowledged by mina" in ondol("alert", "ack", alert.id, "--by", "mina")
    ondol("alert", "silence", "--kind", "drift", "--for", "8h", "--reason", "holidays")
    found = json.loads(ondol("alert", "list", "--json"))
    assert [found["alerts"][0]["acknowledged_by"], found["silences"][0]["reason"]] == ["mina", "holidays"]
    assert "silence " in ondol("alert", "list")
    ondol("alert", "silence", "--end", found["silences"][0]["id"])
    ondol("alert", "silence", "--for", "8 hours", "--reason", "x", code=2)
    ondol("alert", "ack", "alr-none", code=1)
    with FakeInbox() as inbox:
        tools.project(home, tools.PROJECT + f"alerts: [{{webhook: '{inbox.url}'}}, {{command: ['false']}}]\n")
        results = json.loads(ondol("alert", "test", "--json", code=1))
        assert [one["sent"] for one in results] == [True, False]
        assert inbox.posts[0]["kind"] == "test"
    tools.project(home, tools.PROJECT + "alerts: [{webhok: x}]\n")
    ondol("alert", "test", code=2)


def test_a_lease_is_taken_by_one_and_runs_out(store: Store) -> None:
    alert = raised(store)
    now = time.time()
    (mine,) = alerts.lease(store, alert.id, ["a"], now, 60)
    assert alerts.lease(store, alert.id, ["a"], now + 59, 60) == []
    (theirs,) = alerts.lease(store, alert.id, ["a"], now + 61, 60)  # the first one was killed
    assert replace(theirs, attempts=1) == mine

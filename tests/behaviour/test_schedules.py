"""When recurring runs are due, and that each is asked for once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.base import errors
from ondol.pipelines import schedules
from ondol.records.kfp import RecurringRun, RunRequest, Trigger
from ondol.store import kfp
from ondol.store.connection import Store

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()


def every(seconds: int, **more: object) -> RecurringRun:
    trigger = Trigger(interval_seconds=seconds, start=NOON)
    return RecurringRun("rec", "exp", "often", trigger, created_at=NOON - 60, **more)  # type: ignore[arg-type]


@given(st.integers(1, 500), st.floats(0, 5_000), st.integers(1, 10), st.booleans())
def test_what_is_due_is_after_the_cursor_not_in_the_future_and_no_more_than_free(
    seconds: int, passed: float, free: int, no_catchup: bool
) -> None:
    recurring = every(seconds, no_catchup=no_catchup)
    now = NOON + passed  # a little more or less has passed then: a number of this size has seven digits after its point
    times = schedules.due(recurring, now, free)
    whole = [NOON + seconds * number for number in range(1, int((now - NOON) // seconds) + 1)]
    assert times == (whole[-1:] if no_catchup else whole[:free])


@given(st.lists(st.floats(0.1, 400), min_size=1, max_size=30), st.integers(1, 4))
def test_looking_often_or_seldom_asks_for_the_same_runs(looks: list[float], free: int) -> None:
    recurring, now, asked = every(60), NOON, []
    for pause in looks:
        now += pause
        while times := schedules.due(recurring, now, free):
            asked += times
            recurring = every(60, cursor=times[-1])
    assert asked == [NOON + 60 * number for number in range(1, int((now - NOON) // 60) + 1)]


def test_cron_has_seconds_first_and_a_zone_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def after(text: str) -> str:
        found = schedules.cron_of(text).next(NOON)
        assert found is not None
        return datetime.fromtimestamp(found, UTC).isoformat()[:19]

    assert after("30 0 9 * * *") == "2026-03-02T09:00:30"
    assert after("*/20 * * * * *") == "2026-03-01T12:00:20"
    assert after("0 0 9 ? * MON") == "2026-03-02T09:00:00"
    assert after("CRON_TZ=Asia/Seoul 0 0 9 * * *") == "2026-03-02T00:00:00"
    monkeypatch.setenv(schedules.ZONE_VARIABLE, "Asia/Seoul")
    assert after("0 0 9 * * *") == "2026-03-02T00:00:00"


@pytest.mark.parametrize(
    "trigger",
    [
        Trigger(),
        Trigger(cron="0 0 9 * * *", interval_seconds=5),
        Trigger(interval_seconds=-1),
        Trigger(cron="* * *"),
        Trigger(cron="0 61 * * * *"),
        Trigger(cron="0 0 0 30 2 *"),
        Trigger(interval_seconds=5, start=NOON, end=NOON - 1),
    ],
)
def test_a_trigger_that_never_fires_is_refused(trigger: Trigger) -> None:
    with pytest.raises(errors.InputError):
        schedules.check(trigger)


def test_a_run_is_asked_for_once_however_many_ask(store: Store) -> None:
    kfp.add(store, every(10, max_concurrency=10))
    with ThreadPoolExecutor(6) as pool:
        rounds = [pool.submit(schedules.ask, store, NOON + 45, lambda _: 0) for _ in range(12)]
        made = [request.scheduled_at for one in rounds for request in one.result()]
    assert sorted(made) == [NOON + 10, NOON + 20, NOON + 30, NOON + 40]
    assert sorted(one.scheduled_at for one in kfp.every(store, RunRequest)) == sorted(made)


def test_no_more_are_under_way_than_wanted_and_the_rest_is_caught_up(store: Store) -> None:
    kfp.add(store, every(10, max_concurrency=2))
    assert [one.scheduled_at for one in schedules.ask(store, NOON + 45, lambda _: 1)] == [NOON + 10]
    assert schedules.ask(store, NOON + 45, lambda _: 2) == []
    assert [one.scheduled_at for one in schedules.ask(store, NOON + 45, lambda _: 0)] == [NOON + 20, NOON + 30]

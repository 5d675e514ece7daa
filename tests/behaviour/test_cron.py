"""Cron expressions: crontab's rules, time zones with changing clocks, and what is missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.base import duration, errors
from ondol.formats import cron


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "zone", "after", "due"),
    [
        ("0 3 * * *", "UTC", "2026-11-27T03:00", "2026-11-28T03:00"),
        ("*/15 * * * *", "UTC", "2026-11-27T03:01", "2026-11-27T03:15"),
        ("0 9 * * mon-fri", "Asia/Seoul", "2026-11-27T00:00", "2026-11-30T00:00"),
        ("30 4 1,15 * 5", "UTC", "2026-11-27T05:00", "2026-12-01T04:30"),  # either day is enough
        ("0 0 29 feb *", "UTC", "2026-01-01T00:00", "2028-02-29T00:00"),
        ("@weekly", "UTC", "2026-11-27T00:00", "2026-11-29T00:00"),
        ("0 0 * * 7", "UTC", "2026-11-27T00:00", "2026-11-29T00:00"),
        ("30 2 * * *", "America/New_York", "2026-03-07T08:00", "2026-03-09T06:30"),  # 8 March has no 02:30
        ("30 1 * * *", "America/New_York", "2026-11-01T05:30", "2026-11-02T06:30"),  # 1 November has two
    ],
)
def test_when_it_is_due_next(text: str, zone: str, after: str, due: str) -> None:
    found = cron.parse(text, zone).next(at(after))
    assert found == at(due)
    assert cron.parse(text, zone).latest(at(after), at(due)) == at(due)
    assert cron.parse(text, zone).latest(at(after), at(due) - 1) is None


def test_of_what_was_missed_the_latest_is_due() -> None:
    daily = cron.parse("0 3 * * *")
    assert daily.latest(at("2026-11-01T00:00"), at("2026-11-27T02:59")) == at("2026-11-26T03:00")
    assert cron.parse("0 0 31 2 *").next(at("2026-11-01T00:00")) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 8",
        "*/0 * * * *",
        "5-1 * * * *",
        "a * * * *",
        "1,,2 * * * *",
        "٣ * * * *",
    ],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(errors.InputError) as caught:
        cron.parse(text)
    assert caught.value.code == "INP-452"
    with pytest.raises(errors.InputError):
        cron.parse("* * * * *", "Mars/Olympus")


fields = st.tuples(
    st.sampled_from(["*", "0", "*/7", "10-20", "59"]),
    st.sampled_from(["*", "3", "*/6", "22-23"]),
    st.sampled_from(["*", "1", "31", "*/10"]),
    st.sampled_from(["*", "2", "jan-mar"]),
    st.sampled_from(["*", "0", "sun,wed", "1-5"]),
)


@settings(max_examples=40, deadline=None)
@given(fields, st.integers(0, 60 * 24 * 400), st.sampled_from(["UTC", "Asia/Seoul", "Europe/Berlin"]))
def test_next_and_latest_agree(parts: tuple[str, ...], minutes: int, zone: str) -> None:
    expression = cron.parse(" ".join(parts), zone)
    start = at("2026-01-01T00:00") + 60 * minutes
    due = expression.next(start)
    if due is None:
        return
    assert expression.latest(start, due) == due
    assert expression.latest(start, due - 60) is None
    local = datetime.fromtimestamp(due, UTC).astimezone(expression.zone)
    assert (local.minute in expression.minutes, local.month in expression.months) == (True, True)
    assert datetime.fromtimestamp(due, UTC) - datetime.fromtimestamp(start, UTC) > timedelta(0)


def test_spans_of_time() -> None:
    assert [duration.seconds(one) for one in ("30s", "15m", "8h", "30d", "1.5h")] == [30, 900, 28800, 2592000, 5400]
    for wrong in ("", "5", "5w", "-1h", "h"):
        with pytest.raises(errors.InputError):
            duration.seconds(wrong)

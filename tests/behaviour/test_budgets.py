"""Budgets: what 64 callers at once can spend, what is refused, shortened, alerted; and the decision itself."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.base import errors
from ondol.monitoring import budgets
from ondol.monitoring.ledger import Ledger
from ondol.records.chat import TokenUsage
from ondol.records.usage import Budget, BudgetState, Period, Price, UsageIntent
from ondol.store import alerts, usage
from ondol.store import budgets as rows
from ondol.store.connection import Store
from ondol.testing.fake_inbox import FakeInbox
from ondol.testing.fake_llm import FakeLLM
from ondol.testing.llm_home import LLMHome

PRICE = Price(0.15, 0.6, source="table")
PER: Period = "total"  # what is asked at midnight falls into two days
ASK = [{"role": "user", "content": "How are you today?"}]


def _burst(home: LLMHome, calls: int, at_once: int, **options: Any) -> list[int]:
    client = home.client()

    def one(_: int) -> int:
        try:
            client.chat.completions.create(model="openai/gpt-4o-mini", messages=ASK, **options)
        except openai.APIStatusError as error:
            return error.status_code
        return 200

    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(one, range(calls)))


@pytest.mark.parametrize("options", [{}, {"max_tokens": 400}])
def test_64_at_once_do_not_overshoot_and_use_most_of_it(tmp_path: Path, options: dict[str, int]) -> None:
    limit = 0.0006  # dollars: ten such calls
    with (
        FakeLLM(["word " * 99 + "word"], latency=0.05) as fake,
        LLMHome(tmp_path, {"OPENAI_BASE_URL": fake.url}) as home,
    ):
        rows.put(home.store, Budget("all", limit, PER))
        statuses = _burst(home, 200, 64, **options)
        spent = usage.totals(home.store, "model")[0].cost
        assert spent <= limit + 1e-12
        assert spent >= 0.8 * limit
        assert set(statuses) == {200, 429}
        with home.store.read() as tx:
            window = budgets.window_start(PER, datetime.now(UTC).timestamp())
            assert usage.spent(tx, "all", window) == pytest.approx(spent)


def test_a_used_up_budget_refuses_with_the_way_out(tmp_path: Path) -> None:
    with FakeLLM() as fake, LLMHome(tmp_path, {"OPENAI_BASE_URL": fake.url}) as home:
        rows.put(home.store, Budget("model/openai/gpt-4o-mini", 0.0))
        with pytest.raises(openai.RateLimitError, match="used up") as caught:
            home.client().chat.completions.create(model="openai/gpt-4o-mini", messages=ASK)
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert caught.value.type == "insufficient_quota"
        assert not fake.requests


def test_unpriced_models_are_refused_under_a_budget(tmp_path: Path) -> None:
    with FakeLLM() as fake, LLMHome(tmp_path, {"OPENAI_BASE_URL": fake.url}) as home:
        rows.put(home.store, Budget("all", 100.0))
        with pytest.raises(openai.PermissionDeniedError, match="no known price"):
            home.client().chat.completions.create(model="openai/my-finetune", messages=ASK)
        assert not fake.requests
        home.client().chat.completions.create(model="openai/gpt-4o-mini", messages=ASK)


def test_the_last_answer_is_shortened_not_refused(tmp_path: Path) -> None:
    with FakeLLM(["word " * 500]) as fake, LLMHome(tmp_path, {"OPENAI_BASE_URL": fake.url}) as home:
        rows.put(home.store, Budget("all", 0.0001))
        answer = home.client().chat.completions.with_raw_response.create(
            model="openai/gpt-4o-mini", messages=ASK, max_tokens=1000
        )
        allowed = fake.requests[0].body["max_tokens"]
        assert 16 <= allowed < 1000
        assert answer.headers["x-ondol-max-tokens"] == str(allowed)
        assert answer.parse().choices[0].finish_reason == "length"


def test_a_budget_of_one_user_leaves_the_others_alone(tmp_path: Path) -> None:
    with FakeLLM() as fake, LLMHome(tmp_path, {"OPENAI_BASE_URL": fake.url}) as home:
        rows.put(home.store, Budget("user/mina", 0.0))
        client = home.client()
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="openai/gpt-4o-mini", messages=ASK, user="mina")
        client.chat.completions.create(model="openai/gpt-4o-mini", messages=ASK, user="jun")


def test_what_was_spent_before_a_budget_was_set_counts(tmp_path: Path) -> None:
    with FakeLLM(["word " * 200]) as fake, LLMHome(tmp_path, {"OPENAI_BASE_URL": fake.url}) as home:
        client = home.client()
        client.chat.completions.create(model="openai/gpt-4o-mini", messages=ASK)
        rows.put(home.store, Budget("all", 0.00005, PER))
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(model="openai/gpt-4o-mini", messages=ASK)


def test_alerts_are_raised_once_per_threshold_and_reach_the_webhook(tmp_path: Path) -> None:
    (tmp_path / "ondol.yaml").write_text(
        "name: t\nbudgets: [{scope: all, limit: 0.0006 USD, per: total, alert_at: [0.5, 1.0]}]\n"
        'alerts: [{webhook: "${HOOK_URL}"}]\n'
    )
    with FakeInbox() as inbox, FakeLLM(["word " * 99 + "word"]) as fake:
        environ = {"HOOK_URL": inbox.url, "OPENAI_BASE_URL": fake.url}
        with LLMHome(tmp_path, environ) as home:
            _burst(home, 30, 4, max_tokens=100)
            assert inbox.wait(2)
            found = alerts.every(home.store, "budget")
        assert [one.evidence["threshold"] for one in found] == [1.0, 0.5]
        assert all(environ["HOOK_URL"] not in one.message for one in found)
        said = {one["id"]: one["text"] for one in inbox.posts}  # an alert that has to be sent again may come second
        assert ["used up" in said[found[0].id], "50%" in said[found[1].id]] == [True, True]


@pytest.mark.parametrize(
    "value",
    [
        {"scope": "everything", "limit": 1},
        {"scope": "all", "limit": "20 EUR"},
        {"scope": "all", "limit": -1},
        {"scope": "all", "limit": 1, "per": "fortnight"},
        {"scope": "all", "limit": 1, "alert_at": [2]},
        {"scope": "all"},
        {"scope": "all", "limit": 1, "hard": True},
        "all",
    ],
)
def test_wrong_budgets_are_refused(value: object) -> None:
    with pytest.raises(errors.InputError):
        budgets.read_budget(value)


def test_periods_begin_where_people_expect() -> None:
    now = datetime(2026, 11, 25, 13, 45, tzinfo=UTC).timestamp()  # a Wednesday
    starts = {
        "hour": datetime(2026, 11, 25, 13, tzinfo=UTC),
        "day": datetime(2026, 11, 25, tzinfo=UTC),
        "week": datetime(2026, 11, 23, tzinfo=UTC),
        "month": datetime(2026, 11, 1, tzinfo=UTC),
    }
    for per, start in starts.items():
        assert budgets.window_start(per, now) == start.timestamp()  # type: ignore[arg-type]


@given(
    st.integers(0, 5000),
    st.one_of(st.none(), st.integers(1, 8000)),
    st.floats(0, 0.01),
    st.floats(0, 0.01),
    st.floats(0, 0.01),
    st.booleans(),
    st.integers(1, 5000),
)
def test_a_grant_never_holds_more_than_is_left(
    given_tokens: int, wanted: int | None, limit: float, spent: float, held: float, patient: bool, typical: int
) -> None:
    intent = UsageIntent("p", "m", input_tokens=given_tokens, max_output=wanted, price=PRICE)
    state = BudgetState(Budget("all", limit), "w", spent, held)
    verdict = budgets.admit(intent, [state], typical, patient)
    if isinstance(verdict, budgets.Grant):
        assert verdict.max_output is not None
        assert verdict.held <= state.left + 1e-12
        assert PRICE.cost(given_tokens, verdict.max_output) <= verdict.held + 1e-12  # the answer cannot cost more
        assert wanted is None or verdict.max_output <= wanted
    if isinstance(verdict, budgets.Wait):
        assert held > 0
        assert patient


def test_two_ledgers_on_one_database_share_the_budget(tmp_path: Path) -> None:
    with Store(tmp_path / "o.db") as store:
        rows.put(store, Budget("all", 0.001, PER))
        ledgers = [Ledger(store, wait_seconds=0.1).start() for _ in range(2)]
        intent = UsageIntent("p", "m", input_tokens=0, max_output=100, price=Price(0, 1.0, source="table"))

        async def one(number: int) -> int:
            ledger = ledgers[number % 2]
            try:
                reservation = await ledger.reserve(intent)
            except errors.RefusedError:
                return 0
            await ledger.settle(reservation, TokenUsage(0, reservation.max_output or 0))
            return 1

        async def work() -> list[int]:
            return await asyncio.gather(*(one(number) for number in range(40)))

        assert sum(asyncio.run(work())) == 10
        assert 0.00099 < usage.totals(store)[0].cost <= 0.001 + 1e-12
        for ledger in ledgers:
            ledger.stop()

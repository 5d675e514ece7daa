"""The ledger: what is booked, what survives, what is recovered; and the prices behind it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.base import errors
from ondol.llm import tokens
from ondol.monitoring import pricing
from ondol.monitoring.ledger import Ledger
from ondol.records.chat import TokenUsage
from ondol.records.usage import FREE, Price, UsageIntent
from ondol.store import usage
from ondol.store.connection import Store

PRICE = Price(1.0, 2.0, source="table")
INTENT = UsageIntent("openai", "m", application="a", prompt="p@1", unit="u", input_tokens=100, price=PRICE)


def test_a_call_is_pending_then_settled(tmp_path: Path) -> None:
    with Store(tmp_path / "o.db") as store:
        ledger = Ledger(store).start()

        async def work() -> None:
            reservation = await ledger.reserve(INTENT)
            assert usage.get(store, reservation.id).outcome == "pending"  # durable before the call is made
            row = await ledger.settle(reservation, TokenUsage(80, 20))
            assert row.cost == pytest.approx(120e-6)

        asyncio.run(work())
        ledger.stop()
        row = usage.rows(store)[0]
        assert (row.outcome, row.status, row.input_tokens, row.output_tokens) == ("ok", "priced", 80, 20)
        total = usage.totals(store, "prompt")[0]
        assert (total.key, total.calls, total.priced) == ("p@1", 1, 1)


def test_sums_are_exact_over_many_concurrent_calls(tmp_path: Path) -> None:
    with Store(tmp_path / "o.db") as store:
        ledger = Ledger(store).start()

        async def one(number: int) -> None:
            reservation = await ledger.reserve(INTENT)
            await ledger.settle(reservation, TokenUsage(number, 1))

        async def work() -> None:
            await asyncio.gather(*(one(number) for number in range(500)))

        asyncio.run(work())
        ledger.stop()
        total = usage.totals(store)[0]
        assert (total.calls, total.input_tokens, total.output_tokens) == (500, sum(range(500)), 500)
        assert total.cost == pytest.approx((sum(range(500)) + 1000) / 1e6)


@pytest.mark.parametrize(
    ("price", "counted", "status", "cost"),
    [
        (PRICE, TokenUsage(10, 10), "priced", 30e-6),
        (PRICE, TokenUsage(10, 10, estimated=True), "estimated", 30e-6),
        (None, TokenUsage(10, 10), "unpriced", None),
        (FREE, TokenUsage(10, 10), "free", 0.0),
    ],
)
def test_every_booking_says_how_sure_its_cost_is(
    tmp_path: Path, price: Price | None, counted: TokenUsage, status: str, cost: float | None
) -> None:
    with Store(tmp_path / "o.db") as store:
        ledger = Ledger(store).start()

        async def work() -> None:
            intent = UsageIntent("openai", "m", input_tokens=1, price=price)
            row = await ledger.settle(await ledger.reserve(intent), counted)
            assert row.status == status
            assert row.cost == (cost if cost is None else pytest.approx(cost))

        asyncio.run(work())
        ledger.stop()


_KILLED = """
    import asyncio, sys
    from ondol.monitoring.ledger import Ledger
    from ondol.records.usage import Price, UsageIntent
    from ondol.store.connection import Store

    async def work():
        ledger = Ledger(Store(sys.argv[1])).start()
        intent = UsageIntent("openai", "m", input_tokens=100, max_output=50, price=Price(1.0, 2.0, source="table"))
        for _ in range(3):
            await ledger.reserve(intent)
        print("reserved", flush=True)
        await asyncio.sleep(600)

    asyncio.run(work())
"""


def test_calls_of_a_killed_process_are_booked_as_estimated(tmp_path: Path) -> None:
    database = tmp_path / "o.db"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_KILLED), str(database)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "reserved\n"
    with Store(database) as store:
        alive = Ledger(store).start()  # while it lives, its calls are its own
        assert [row.outcome for row in usage.rows(store)] == ["pending"] * 3
        alive.stop()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        Ledger(store).start().stop()
        rows = usage.rows(store)
        assert [(row.outcome, row.status) for row in rows] == [("crashed", "estimated")] * 3
        assert all(row.cost == pytest.approx(200e-6) for row in rows)


def test_a_call_that_ends_after_all_replaces_its_estimate(tmp_path: Path) -> None:
    with Store(tmp_path / "o.db") as store:
        ledger = Ledger(store).start()

        async def work() -> None:
            reservation = await ledger.reserve(INTENT)
            with store.write() as tx:  # another process believed us dead
                usage.give_up(tx, reservation.id)
            await ledger.settle(reservation, TokenUsage(7, 3))

        asyncio.run(work())
        ledger.stop()
        row = usage.rows(store)[0]
        assert (row.outcome, row.input_tokens) == ("ok", 7)
        assert row.cost == pytest.approx(13e-6)


def test_prices_agree_with_mlflows_catalogue() -> None:
    import mlflow

    folder = Path(mlflow.__file__).parent / "utils" / "model_catalog"
    if not folder.is_dir():
        pytest.skip("this MLflow has no price catalogue")
    checked = 0
    for name, price in pricing.table().items():
        provider, _, model = name.partition("/")
        found = json.loads((folder / f"{provider}.json").read_text())["models"].get(model, {}).get("pricing")
        if found:
            checked += 1
            assert price.input == pytest.approx(found["input_per_million_tokens"]), name
            assert price.output == pytest.approx(found["output_per_million_tokens"]), name
            if "cache_read_per_million_tokens" in found:
                assert price.cached == pytest.approx(found["cache_read_per_million_tokens"]), name
    assert checked >= 25


def test_own_prices_come_first_and_dated_names_are_found() -> None:
    prices = pricing.Prices({"openai/gpt-4o-mini": {"input": 9, "output": 9}, "local": "free"})
    found = prices.of("openai", "gpt-4o-mini-2024-07-18")
    assert found is not None
    assert (found.input, found.source) == (9.0, "ondol.yaml")
    assert prices.of("openai", "gpt-4o-2024-08-06") == prices.of("openai", "gpt-4o")
    assert prices.of("custom", "local") == FREE
    assert prices.of("openai", "gpt-99") is None
    assert prices.of("ollama", "llama", local=True) == FREE


@pytest.mark.parametrize("value", ["cheap", {"input": 1}, {"input": -1, "output": 1}, {"input": True, "output": 1}, 3])
def test_a_wrong_price_is_named(value: object) -> None:
    with pytest.raises(errors.InputError, match="'m'"):
        pricing.Prices({"m": value})


@given(st.text())
def test_token_estimates_are_sane(text: str) -> None:
    count = tokens.estimate(text)
    assert (count == 0) == (text == "")
    assert count <= len(text.encode("utf-8", "surrogatepass")) + 1
    assert tokens.at_most(count) > count

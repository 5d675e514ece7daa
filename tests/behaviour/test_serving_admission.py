"""Who may wait: the queue refuses what could not be answered in time, and learns how fast the model is."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.base import errors
from ondol.serving.batching import Batcher, Job
from ondol.serving.engines.compiled import Choice
from ondol.serving.inputs import InputSpec
from ondol.serving.service_time import ServiceTime

SPEC = InputSpec(1)


class Gated:
    """A model that answers when it is let go."""

    name = "gated"
    exact = True

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[int] = []

    def predict(self, rows: Any) -> Any:
        self.batches.append(len(rows))
        assert self.gate.wait(120)
        return np.zeros(len(rows))

    predict_proba = predict


def choice(engine: Gated, one_row_us: float, per_row_us: float) -> Choice:
    return Choice(engine, "test", one_row_us=one_row_us, per_row_us=per_row_us)


def submit(batcher: Batcher, rows: int, seconds: float) -> tuple[Job, asyncio.Future[Any]]:
    """Ask for rows with a deadline; the future has the answer or the error."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(predictions: Any, error: Exception | None) -> None:
        future.set_result(error or predictions)

    job = Job([[0.0]] * rows, False, time.monotonic() + seconds, done)
    batcher.submit(job)
    return job, future


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    """The model is said to take minutes: however long this test is stopped, no deadline here comes near."""

    async def story() -> None:
        model = Gated()
        batcher = Batcher(choice(model, one_row_us=1_200e6, per_row_us=6e6), SPEC)
        _, first = submit(batcher, 1, 600.0)  # nobody before it: tried, whatever the estimate says
        with pytest.raises(errors.RefusedError) as caught:
            submit(batcher, 1, 600.0)
        assert caught.value.code == "REF-020"
        assert 1_200 < caught.value.retry_after < 6_000
        _, second = submit(batcher, 5, 360_000.0)  # waits with the next: one batch, not six
        _, third = submit(batcher, 1, 360_000.0)
        model.gate.set()
        assert [len(await one) for one in (first, second, third)] == [1, 5, 1]
        assert model.batches == [1, 6]
        batcher.close()

    asyncio.run(story())


def test_a_bounded_queue_and_a_late_job() -> None:
    async def story() -> None:
        model = Gated()
        batcher = Batcher(choice(model, one_row_us=200.0, per_row_us=1.0), SPEC, most_waiting_rows=10)
        _, first = submit(batcher, 6, 600.0)
        with pytest.raises(errors.RefusedError):
            submit(batcher, 5, 600.0)
        job, late = submit(batcher, 4, 600.0)
        job.deadline = time.monotonic() - 1.0  # its time passes while it waits
        model.gate.set()
        assert len(await first) == 6
        assert isinstance(await late, TimeoutError)  # nobody waits for it any more, so it is not computed
        assert model.batches == [6]
        assert batcher.waiting_rows == 0
        batcher.close()

    asyncio.run(story())


@settings(max_examples=200)
@given(
    one=st.floats(1, 1e5),
    per=st.floats(0, 1e4),
    speed=st.floats(0.1, 20),
    rows=st.lists(st.integers(1, 4096), min_size=40),
)
def test_the_estimate_comes_to_what_is_measured(one: float, per: float, speed: float, rows: list[int]) -> None:
    learned = ServiceTime(choice(Gated(), one, per))
    true = ServiceTime(choice(Gated(), one, per))
    for count in rows:
        learned.learn(count, true.of(count) * speed)
    assert learned.of(64) == pytest.approx(true.of(64) * speed, rel=0.05)
    assert learned.of(64, batches=8) >= learned.of(64)

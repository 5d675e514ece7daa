"""The requests of a drill: held-out rows of the champion, drawn again and again, and a truth that it has promised.

The truth of a row is drawn from the champion's own probability (or is its own answer, with one in ten wrong), so the
champion is exactly as good as it says, and what a mutant loses against it is known. Must not judge.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from ondol.app.demo.replay import Replayer
from ondol.app.rehearsal.stage import Stage
from ondol.base import errors, ids
from ondol.loop.reference import PREDICTION

BATCH = 200


@dataclass(slots=True)
class Traffic:
    """Rows with their truth, and a way to send them."""

    stage: Stage
    columns: list[str]
    rows: list[list[Any]]
    answers: list[float | None]
    """What the champion says of each row: its probability of the last class, or its number."""

    random: np.random.Generator

    def draw(self, count: int) -> tuple[list[list[Any]], list[Any]]:
        """Return rows drawn at random, with their truth."""
        places = self.random.integers(0, len(self.rows), count)
        return [self.rows[place] for place in places], [self._truth(self.answers[place]) for place in places]

    def _truth(self, answer: float | None) -> Any:
        if answer is None:
            return None
        if 0 < answer < 1 and not float(answer).is_integer():
            return int(self.random.random() < answer)
        return answer if self.random.random() < 0.9 else 1 - answer

    def send(
        self,
        count: int,
        stop: Callable[[], bool] = lambda: False,
        change: Callable[[list[Any]], list[Any]] | None = None,
        late: bool = False,
        pause: float = 0.05,
        batch: int = BATCH,
    ) -> int:
        """Send rows in batches, one id per row, each batch's labels right after it; return how many were sent.

        :param change: what becomes of a row before it is sent.
        :param late: post all labels at the end.
        :param pause: seconds after as many rows as a usual batch has.
        :param batch: rows in a request. How long a request takes is one measurement, however many rows it has.
        """
        client, sent, withheld = Replayer(self.stage.settings.data, self.stage.model), 0, dict[str, Any]()
        try:
            while sent < count and not stop():
                rows, truths = self.draw(batch)
                names = [ids.new_id("drill") for _ in rows]
                client.send(names, [change(row) for row in rows] if change else rows)
                labels = {name: truth for name, truth in zip(names, truths, strict=True) if truth is not None}
                if late:
                    withheld |= labels
                elif labels:
                    client.label(labels)
                sent += len(rows)
                time.sleep(pause * len(rows) / BATCH)
            for start in range(0, len(withheld), 1000):
                client.label(dict(list(withheld.items())[start : start + 1000]))
        finally:
            client.close()
        return sent

    def steady(self) -> Steady:
        """Return somebody who asks one row after the other, until told to stop."""
        return Steady(f"{self.stage.settings.data.url}/v1/models/{self.stage.model}:predict", self.rows[0])


class Steady:
    """One user who asks on and on, and remembers what failed and for how long."""

    def __init__(self, url: str, row: list[Any]) -> None:
        self._url, self._row = url, row
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.asked = self.failed = 0
        self.down_seconds = 0.0
        """The longest time without an answer."""

    def __enter__(self) -> Steady:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        last = time.monotonic()
        with httpx.Client(timeout=5, trust_env=False) as client:
            while not self._stop.wait(0.01):
                self.asked += 1
                try:
                    good = client.post(self._url, json={"instances": [self._row]}).status_code == 200
                except httpx.HTTPError:
                    good = False
                now = time.monotonic()
                if good:
                    self.down_seconds, last = max(self.down_seconds, now - last), now
                else:
                    self.failed += 1


def make(stage: Stage, frame: Any) -> Traffic:
    """Return the traffic of a champion's reference.

    :raises StateError: STA-452 when the reference has no predictions.
    """
    if PREDICTION not in frame.columns:
        raise errors.StateError(
            "the champion's reference has no predictions, so there is no truth to rehearse with", code="STA-452"
        )
    columns = [str(name) for name in frame.columns if name != PREDICTION]
    return Traffic(
        stage, columns, list(_rows(frame[columns])), list(_numbers(frame[PREDICTION])), np.random.default_rng(7)
    )


def _rows(frame: Any) -> Iterator[list[Any]]:
    import pandas as pd

    for row in frame.itertuples(index=False):
        yield [None if pd.isna(value) else value.item() if hasattr(value, "item") else value for value in row]


def _numbers(values: Any) -> Iterator[float | None]:
    for value in values:
        yield None if value is None or value != value else float(value)

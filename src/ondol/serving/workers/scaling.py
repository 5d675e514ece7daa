"""How many processes a worker needs: Knative's rules on the load that is measured.

The average of the metric over the window, divided by the target, is how many there should be. When the last tenth of
the window alone asks for twice what there is, that decides at once, and for one window nothing is taken away (panic).
With `least` 0 the last process goes when nobody asked for a whole window and the retention time. Algorithm: the
Knative pod autoscaler's, as its documentation describes it.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque

from ondol.records.worker import Scaling

DEFAULT_CONCURRENCY = 100.0
DEFAULT_RPS = 200.0
UTILIZATION = 0.7
PANIC_THRESHOLD = 2.0


def target_of(scaling: Scaling) -> float:
    """Return the load one process should bear."""
    if scaling.target:
        return (
            min(scaling.target, scaling.limit) if scaling.limit and scaling.metric == "concurrency" else scaling.target
        )
    if scaling.metric == "rps":
        return DEFAULT_RPS * UTILIZATION
    return max(1.0, (scaling.limit or DEFAULT_CONCURRENCY) * UTILIZATION)


def most_of(scaling: Scaling) -> int:
    """Return how many processes there may be at most."""
    return max(1, scaling.least, scaling.most or os.cpu_count() or 1)


class LoadMeter:
    """Counts requests as they come and go, and how many there were on average."""

    def __init__(self) -> None:
        self.active = 0
        self._guard = threading.Lock()
        self._busy = 0.0
        self._came = 0
        self._counted = self._since = time.monotonic()

    def change(self, by: int) -> None:
        """One request more (1) or less (-1)."""
        with self._guard:
            self._advance(time.monotonic())
            self.active += by
            self._came += by > 0

    def take(self, now: float) -> tuple[float, float, int]:
        """Return seconds since the last call, mean number of requests over them, and how many came."""
        with self._guard:
            self._advance(now)
            seconds = max(now - self._since, 1e-6)
            found = seconds, self._busy / seconds, self._came
            self._since, self._busy, self._came = now, 0.0, 0
        return found

    def _advance(self, now: float) -> None:
        self._busy += self.active * (now - self._counted)
        self._counted = now


class Autoscaler:
    """Remembers the load of the last window and says how many processes it needs."""

    def __init__(self, scaling: Scaling) -> None:
        self.scaling = scaling
        self._samples: deque[tuple[float, float, float]] = deque()  # end, seconds, sum of the metric over them
        self._panic_until = 0.0
        self._last_load: float | None = None

    def record(self, now: float, seconds: float, concurrency: float, requests: float) -> None:
        """Add what was measured since the last call: mean concurrency, and how many requests came."""
        total = concurrency * seconds if self.scaling.metric == "concurrency" else requests
        self._samples.append((now, seconds, total))
        if self._last_load is None or concurrency > 0 or requests > 0:
            self._last_load = now
        while self._samples and self._samples[0][0] <= now - self.scaling.window_seconds:
            self._samples.popleft()

    def _mean(self, now: float, window: float) -> float:
        """Return the metric's average over the last part of the window; a young worker is judged by what there is."""
        recent = [(seconds, total) for end, seconds, total in self._samples if end > now - window]
        spent = sum(seconds for seconds, _ in recent)
        return sum(total for _, total in recent) / max(spent, 1e-9) if recent else 0.0

    def wanted(self, now: float, have: int) -> int:
        """Return how many processes there should be, given how many there are."""
        scaling, target = self.scaling, target_of(self.scaling)
        stable = math.ceil(round(self._mean(now, scaling.window_seconds) / target, 6))
        sudden = math.ceil(round(self._mean(now, scaling.window_seconds * scaling.panic_share) / target, 6))
        if sudden >= PANIC_THRESHOLD * max(have, 1):
            self._panic_until = now + scaling.window_seconds
        wanted = max(stable, sudden, have) if now < self._panic_until else stable
        if wanted == 0 and (scaling.least > 0 or not self._idle(now)):
            wanted = 1
        return max(scaling.least, min(wanted, most_of(scaling)))

    def _idle(self, now: float) -> bool:
        quiet = self.scaling.window_seconds + self.scaling.retention_seconds
        return self._last_load is not None and now - self._last_load >= quiet

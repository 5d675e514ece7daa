"""Rate, errors and duration per service, release and status, for Prometheus.

Plain dictionaries and lists, written by the event loop's thread only: a request costs a microsecond. Must not import
a metrics library.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable

Labels = tuple[tuple[str, str], ...]
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histogram, seconds."""


class Metrics:
    """Counters and histograms of answered requests, and gauges that are asked when read."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, str, int], int] = {}
        self._latency: dict[tuple[str, str, str], list[float]] = {}
        self._gauges: list[tuple[str, str, Callable[[], Iterable[tuple[Labels, float]]]]] = []
        self.in_flight: dict[str, int] = {}

    def record(self, service: str, release: str, protocol: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        key = (service, release, protocol, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        cell = self._latency.get((service, release, protocol))
        if cell is None:
            cell = self._latency[(service, release, protocol)] = [0.0] * (len(BUCKETS) + 2)
        cell[bisect_left(BUCKETS, seconds)] += 1
        cell[-1] += seconds

    def gauge(self, name: str, help_text: str, read: Callable[[], Iterable[tuple[Labels, float]]]) -> None:
        """Add numbers that are read when Prometheus asks."""
        self._gauges.append((name, help_text, read))

    def render(self) -> str:
        """Return everything in Prometheus' text format."""
        lines = ["# HELP ondol_requests_total Answered requests.", "# TYPE ondol_requests_total counter"]
        for (service, release, protocol, status), count in sorted(self._requests.items()):
            labels = (("service", service), ("release", release), ("protocol", protocol), ("status", str(status)))
            lines.append(f"ondol_requests_total{_labels(labels)} {count}")
        lines += self._histogram()
        gauges = [*self._gauges, ("ondol_requests_in_flight", "Requests being answered.", self._flying)]
        for name, help_text, read in gauges:
            kind = "counter" if name.endswith("_total") else "gauge"
            lines += [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]
            lines += [f"{name}{_labels(labels)} {value:g}" for labels, value in read()]
        return "\n".join(lines) + "\n"

    def _flying(self) -> Iterable[tuple[Labels, float]]:
        return [((("service", service),), count) for service, count in sorted(self.in_flight.items())]

    def _histogram(self) -> list[str]:
        name = "ondol_request_seconds"
        lines = [f"# HELP {name} Time from the whole request read to its answer.", f"# TYPE {name} histogram"]
        for (service, release, protocol), cell in sorted(self._latency.items()):
            labels, total = (("service", service), ("release", release), ("protocol", protocol)), 0.0
            for bound, count in zip((*BUCKETS, "+Inf"), cell[:-1], strict=True):
                total += count
                lines.append(f"{name}_bucket{_labels((*labels, ('le', str(bound))))} {total:g}")
            lines += [f"{name}_sum{_labels(labels)} {cell[-1]:.6f}", f"{name}_count{_labels(labels)} {total:g}"]
        return lines


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

"""A soak: the data plane at 80 % of its load for ten minutes; memory must stay flat and nothing may fail.

`make bench-soak`, or `python bench/soak.py [--seconds 600] [--share 0.8] [--plot FILE.svg]`. Requests of every kind are
mixed: V1 and V2, JSON and raw tensors, one row and many, ones with a trace, ones that are wrong and must be refused.
First the most it can answer is measured, then requests come at a share of it, whether the earlier ones were answered or
not. Memory is the process' own (PSS); it is drawn over time, too.
The last line is one JSON object; the exit code is 1 when a request got another status than it should, or memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from bench.peers import plot  # noqa: E402
from tests.behaviour import serving_tools  # noqa: E402
from tests.conftest import new_settings  # noqa: E402

from ondol.base.settings import Address  # noqa: E402
from ondol.store.connection import Store  # noqa: E402

PLOT = ROOT / "bench" / "results" / "soak.svg"
CONNECTIONS = 32
COLUMNS = 30
SATURATE_SECONDS = 5.0
WARM_UP_SHARE = 0.25
"""Part of the soak after which memory must have settled."""

MOST_GROWTH = 0.03
"""Growth of memory between the second and the last quarter that counts as flat."""


@dataclass(frozen=True)
class Ask:
    """One request as bytes, and the status it must get."""

    data: bytes
    status: int


@dataclass
class Seen:
    """What came of the requests."""

    wrong: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    milliseconds: list[float] = field(default_factory=list)


def http(path: str, body: bytes, *headers: str) -> bytes:
    """Return a request."""
    lines = [f"POST {path} HTTP/1.1", "host: soak", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def requests(seed: int = 0) -> list[Ask]:
    """Return the mix, one row each unless it says otherwise."""
    rows = np.random.default_rng(seed).normal(size=(400, COLUMNS))
    kind = "content-type: application/json"
    trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    found = []
    for number, row in enumerate(rows):
        v1 = json.dumps({"instances": [row.tolist()]}).encode()
        tensor: dict[str, Any] = {"name": "x", "shape": [1, COLUMNS], "datatype": "FP64"}
        v2 = json.dumps({"inputs": [{**tensor, "data": row.tolist()}]}).encode()
        head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": row.nbytes}}]}).encode()
        found += [Ask(http("/v1/models/linear:predict", v1, kind), 200)] * 2
        found.append(Ask(http("/v1/models/forest:predict", v1, kind, f"x-request-id: soak-{number}"), 200))
        found.append(Ask(http("/v2/models/linear/infer", v2, kind), 200))
        length = f"inference-header-content-length: {len(head)}"
        found.append(Ask(http("/v2/models/forest/infer", head + row.tobytes(), length), 200))
        if number % 10 == 0:
            found.append(Ask(http("/v1/models/linear:predict", v1, kind, trace), 200))
            found.append(Ask(http("/v1/models/linear:predict", v1[:-3], kind), 400))
            many = json.dumps({"instances": rows[: 64 + number % 7].tolist()}).encode()
            found.append(Ask(http("/v1/models/forest:predict", many, kind), 200))
    return found


class Client:
    """One connection that is used again and again."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, ask: Ask, seen: Seen, due: float) -> None:
        """Send one request and count its answer; its time runs from when it was due."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._address.host, self._address.port)
            reader, writer = self._streams
            writer.write(ask.data)
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            length = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            status = int(head[9:12])
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self._streams, status = None, 0
            seen.wrong[type(error).__name__] += 1
        if status and status != ask.status:
            seen.wrong[f"{status} instead of {ask.status}"] += 1
        seen.answered += 1
        seen.milliseconds.append((time.perf_counter() - due) * 1000)

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()


async def saturate(clients: list[Client], mix: list[Ask]) -> float:
    """Return the requests per second when every connection asks as fast as it is answered."""
    seen, until = Seen(), time.perf_counter() + SATURATE_SECONDS

    async def one(client: Client, offset: int) -> None:
        while time.perf_counter() < until:
            offset += 1
            await client.ask(mix[offset * 7 % len(mix)], seen, time.perf_counter())

    await asyncio.gather(*(one(client, number * 31) for number, client in enumerate(clients)))
    return seen.answered / SATURATE_SECONDS


async def soak(
    clients: list[Client], mix: list[Ask], rate: float, seconds: float, pid: int
) -> tuple[Seen, list[float]]:
    """Ask at a rate for a while; return what came of it, and the memory in MB once a second."""
    seen, memory, began = Seen(), [], time.perf_counter()
    number = 0

    async def one(client: Client) -> None:
        nonlocal number
        while True:
            mine, number = number, number + 1
            due = began + mine / rate
            if due > began + seconds:
                return
            wait = due - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            await client.ask(mix[mine * 7 % len(mix)], seen, due)

    async def watch() -> None:
        while time.perf_counter() < began + seconds:
            memory.append(pss(pid))
            await asyncio.sleep(1.0)

    await asyncio.gather(watch(), *(one(client) for client in clients))
    return seen, memory


def pss(pid: int) -> float:
    """Return a process' own share of memory in MB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("\nPss:")[2].split()[0]) / 1024


def report(seen: Seen, memory: list[float], peak: float, rate: float, seconds: float) -> dict[str, Any]:
    """Return what is printed."""
    settled = memory[int(len(memory) * WARM_UP_SHARE) :]
    third = max(len(settled) // 3, 1)
    first, last = float(np.median(settled[:third])), float(np.median(settled[-third:]))
    p50, p99, worst = (float(np.percentile(seen.milliseconds, share)) for share in (50, 99, 100))
    return {
        "seconds": seconds,
        "peak_per_second": round(peak),
        "asked_per_second": round(rate),
        "answered": seen.answered,
        "wrong": dict(seen.wrong),
        "p50_ms": round(p50, 2),
        "p99_ms": round(p99, 2),
        "max_ms": round(worst, 1),
        "pss_mb_first": round(first, 1),
        "pss_mb_last": round(last, 1),
        "pss_mb_max": round(max(memory), 1),
        "flat": last <= first * (1 + MOST_GROWTH),
    }


def main() -> int:
    """Run the soak and print its report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--share", type=float, default=0.8, help="of the most it can answer (default: 0.8)")
    parser.add_argument("--plot", type=Path, default=PLOT, help="memory over time (default: bench/results/soak.svg)")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ondol-soak-"))
    home = new_settings(folder)
    features = serving_tools.matrix(500, COLUMNS)
    labels = (features[:, 0] + features[:, 1] ** 2 > 0.5).astype(int)
    models = {"linear": LogisticRegression(), "forest": RandomForestClassifier(100, random_state=0)}
    with Store(home.database) as store, serving_tools.running(home, store) as plane:
        for name, model in models.items():
            plane.serve(name, model.fit(features, labels), folder / name)

        async def run() -> dict[str, Any]:
            clients, mix = [Client(plane.settings.data) for _ in range(CONNECTIONS)], requests()
            peak = await saturate(clients, mix)
            rate = peak * chosen.share
            print(f"at most {peak:.0f} requests/s; soaking at {rate:.0f}/s for {chosen.seconds:.0f} s", flush=True)
            seen, memory = await soak(clients, mix, rate, chosen.seconds, plane.process.pid)
            for client in clients:
                client.close()
            chosen.plot.parent.mkdir(parents=True, exist_ok=True)
            title = f"Memory (PSS, MB) of the data plane, {rate:.0f} requests a second"
            plot.memory(chosen.plot, memory, chosen.seconds, title)
            return report(seen, memory, peak, rate, chosen.seconds)

        found = asyncio.run(run())
    print(json.dumps(found))
    return 0 if found["flat"] and not found["wrong"] else 1


if __name__ == "__main__":
    sys.exit(main())

"""The gateway beside the provider itself: 64 connections, an upstream of 20 ms, ledger, prices and traces on.

    python bench/gateway.py [--seconds 8] [--connections 64] [--latency 0.02]

One process plays the provider, one is the gateway, and the caller is this one; the caller is a bare socket loop, so
that what it costs is small and the same on both sides. The ratio is of requests a second through the gateway and
without it, measured in turns in one run. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

_BODY = json.dumps(
    {"model": "MODEL", "max_tokens": 200, "messages": [{"role": "user", "content": "What is an Ondol? " * 20}]}
)


class _Caller(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, request: bytes, until: float, latencies: list[float]) -> None:
        self.request, self.until, self.latencies = request, until, latencies
        self.done = asyncio.get_running_loop().create_future()
        self.data = b""
        self.failed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:

        self.transport = cast(asyncio.Transport, transport)  # uvloop has its own class
        self._ask()

    def _ask(self) -> None:
        self.started = time.perf_counter()
        self.data = b""
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, separator, body = self.data.partition(b"\r\n\r\n")
        if not separator:
            return
        place = head.lower().index(b"content-length:") + 15
        if len(body) < int(head[place:].split(b"\r\n", 1)[0]):
            return
        self.latencies.append(time.perf_counter() - self.started)
        self.failed += not head.startswith(b"HTTP/1.1 200")
        if time.perf_counter() < self.until:
            self._ask()
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def _load(url: str, model: str, connections: int, seconds: float) -> tuple[float, float, float, int]:
    """Return requests a second, p50 and p99 in milliseconds, and how many failed."""
    parts = urlsplit(url)
    body = _BODY.replace("MODEL", model).encode()
    head = f"POST {parts.path}/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
    latencies: list[float] = []
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    callers = [
        (
            await loop.create_connection(
                lambda: _Caller(request, began + seconds, latencies), parts.hostname or "", parts.port or 80
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(one.done for one in callers))
    took = time.perf_counter() - began
    cuts = statistics.quantiles(latencies, n=100)
    return len(latencies) / took, cuts[49] * 1000, cuts[98] * 1000, sum(one.failed for one in callers)


@contextlib.contextmanager
def _process(arguments: list[str], environ: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Run a server that prints its address, until its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environ},
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.stdin.close()
        process.wait(20)
        process.stdout.close()


_GATEWAY = """
import sys
from pathlib import Path
from typing import cast
import uvloop
uvloop.install()
from ondol.testing.llm_home import LLMHome
with LLMHome(Path(sys.argv[1])) as home:
    print(home.url, flush=True)
    sys.stdin.read()
"""


def main() -> None:
    """Measure in turns: direct, gateway, direct, gateway."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each of four rounds")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.02, help="of the provider, in seconds")
    options = parser.parse_args()
    import uvloop

    uvloop.install()
    rounds: dict[str, list[tuple[float, float, float, int]]] = {"direct": [], "gateway": []}
    fake = ["-c", "import uvloop; uvloop.install(); from ondol.testing import fake_llm; fake_llm.main()"]
    with (
        tempfile.TemporaryDirectory() as folder,
        _process([*fake, "--latency", str(options.latency)], {}) as (upstream, _),
        _process(
            ["-c", _GATEWAY, folder], {"OPENAI_BASE_URL": upstream, "OPENAI_API_KEY": "bench", "ONDOL_HOME": ""}
        ) as (ours, _),
    ):
        for turn in range(4):
            name, url, model = (
                ("direct", upstream, "gpt-4o-mini") if turn % 2 == 0 else ("gateway", ours, "openai/gpt-4o-mini")
            )
            measured = asyncio.run(_load(url, model, options.connections, options.seconds))
            rounds[name].append(measured)
            rate, p50, p99, failed = measured
            print(f"{name:8}  {rate:8.0f} requests/s   p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   {failed} failed")
        booked, cost = _booked(Path(folder))
    best = {name: max(one[0] for one in found) for name, found in rounds.items()}
    result = {
        "bench": "gateway",
        "connections": options.connections,
        "upstream_ms": options.latency * 1000,
        "direct_rps": round(best["direct"]),
        "gateway_rps": round(best["gateway"]),
        "ratio": round(best["gateway"] / best["direct"], 3),
        "gateway_p50_ms": round(min(one[1] for one in rounds["gateway"]), 2),
        "gateway_p99_ms": round(min(one[2] for one in rounds["gateway"]), 2),
        "failed": sum(one[3] for found in rounds.values() for one in found),
        "booked": booked,
        "booked_usd": round(cost, 6),
        "goal_ratio": 0.7,
    }
    print(json.dumps(result))


def _booked(folder: Path) -> tuple[int, float]:
    from ondol.store import usage
    from ondol.store.connection import Store

    with Store(folder / ".ondol" / "ondol.db") as store:
        totals = usage.totals(store, "model")
    return sum(one.calls for one in totals), sum(one.cost for one in totals)


if __name__ == "__main__":
    main()

"""A load generator of its own process: keep-alive connections, one request at a time each, random rows, no pipelining.

`python load.py HOST PORT PATH CONNECTIONS SECONDS BODIES` (a body a line) prints one JSON object: requests a second,
how many, p50 and p99 in milliseconds, errors. Only raw asyncio protocols, so that it is faster than any server here.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

WARM_UP_SECONDS = 0.2


class Run:
    """What all connections share."""

    def __init__(self, requests: list[bytes]) -> None:
        self.requests = requests
        self.latencies: list[float] = []
        self.errors = 0
        self.counting = False
        self.stopped = False


class Connection(asyncio.Protocol):
    """Sends the next request when the last one is answered."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._buffer = b""
        self._sent = 0.0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # uvloop's transports are not asyncio's classes
        self._send()

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(random.choice(self._run.requests))

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(self._buffer) < end + 4 + length:
            return
        if self._run.counting:
            self._run.latencies.append(time.perf_counter() - self._sent)
            self._run.errors += head[9:12] != b"200"
        self._buffer = b""
        if not self._run.stopped:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._run.stopped:
            self._run.errors += 1


async def load(host: str, port: int, requests: list[bytes], connections: int, seconds: float) -> dict[str, float]:
    """Keep the connections busy and return what was measured after the warm-up."""
    run = Run(requests)
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Connection(run), host, port) for _ in range(connections)]
    await asyncio.sleep(WARM_UP_SECONDS)
    run.counting = True
    started = time.perf_counter()
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - started
    run.counting, run.stopped = False, True
    for transport, _ in made:
        transport.close()
    times = sorted(run.latencies) or [float("nan")]
    return {
        "requests_per_second": round(len(run.latencies) / elapsed, 1),
        "requests": len(run.latencies),
        "p50_ms": round(times[len(times) // 2] * 1000, 3),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 3),
        "errors": run.errors,
    }


def main(host: str, port: str, path: str, connections: str, seconds: str, bodies: str) -> None:
    """Read the bodies, run the load, print the figures."""
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: "
    texts = Path(bodies).read_bytes().splitlines()
    requests = [head.encode() + str(len(text)).encode() + b"\r\n\r\n" + text for text in texts]
    print(json.dumps(uvloop.run(load(host, int(port), requests, int(connections), float(seconds)))))


if __name__ == "__main__":
    main(*sys.argv[1:])

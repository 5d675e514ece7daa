"""Large bodies are read beside the event loop, so that health probes and small requests do not wait for them.

Bounded by the bytes that are being read: what does not fit is refused. Must not know what is in a body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ondol.base import errors

T = TypeVar("T")

LARGE_BYTES = 128 * 1024
"""A larger body is read in a thread; a smaller one is read in a millisecond at most."""

MOST_BYTES = 256 * 1024 * 1024
"""Bytes of large bodies that may wait to be read."""


class Readers:
    """Two threads that read."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._bytes = 0

    def run(
        self, size: int, read: Callable[[], T], begin: Callable[[T], None], fail: Callable[[Exception], None]
    ) -> None:
        """Call `begin(read())`, or `fail(error)`; `read` in a thread, the others later on the event loop.

        :param size: bytes of the body.
        :raises RefusedError: REF-020 when too much is being read already.
        """
        if self._bytes + size > MOST_BYTES:
            raise errors.RefusedError(
                f"too busy: {self._bytes >> 20} MB of requests are being read", code="REF-020",
                way_out="Try again in 1 s, or send the rows in smaller requests.",
            )  # fmt: skip
        if self._pool is None:
            self._pool = ThreadPoolExecutor(2, "ondol-reader")
        self._bytes += size

        def done(future: asyncio.Future[T]) -> None:
            self._bytes -= size
            try:
                begin(future.result())
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's answer
                fail(error)

        asyncio.get_running_loop().run_in_executor(self._pool, read).add_done_callback(done)

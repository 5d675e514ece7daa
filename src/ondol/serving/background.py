"""Slow work beside the loading thread: environments that are built, servers that start.

Asked again and again by the same key until there is a result, so that the loader stays level-triggered. Must not know
what the work is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

MOST_AT_ONCE = 8


class Background:
    """Work by key.

    :param finished: called in the worker's thread whenever something is done or failed.
    """

    def __init__(self, finished: Callable[[], None]) -> None:
        self._finished = finished
        self._pool = ThreadPoolExecutor(MOST_AT_ONCE, "ondol-slow")
        self._futures: dict[Hashable, Future[Any]] = {}

    def result(self, key: Hashable, work: Callable[[], Any]) -> Any:
        """Return what the work gave, None while it is being done; the first call with a key begins it.

        Whatever the work raised is raised, until the key is forgotten.
        """
        future = self._futures.get(key)
        if future is None:
            future = self._futures[key] = self._pool.submit(work)
            future.add_done_callback(lambda _: self._finished())
        return future.result() if future.done() else None

    def begun(self) -> list[Hashable]:
        """Return the keys of everything begun and not forgotten."""
        return list(self._futures)

    def forget(self, key: Hashable) -> Any:
        """Drop a key, so that the next call begins anew; return its result, or None when there is none (yet)."""
        future = self._futures.pop(key, None)
        if future is None or future.cancel() or not future.done() or future.exception() is not None:
            return None
        return future.result()

    def stop(self) -> None:
        """Begin nothing more; what runs is left to end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

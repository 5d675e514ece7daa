"""What the routes table says should be served, kept in memory and refreshed as soon as it changes.

Polls `Store.data_version()`, which costs microseconds, and reads the routes only when somebody committed something.
Must not load models nor decide anything: it is a cache with a bell.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from ondol.base import errors
from ondol.records.rollout import Route
from ondol.store import routes
from ondol.store.connection import Store

Routes = Mapping[str, Route]
Listener = Callable[[Routes], None]

POLL_SECONDS = 0.02
"""How long a moved route may go unnoticed."""

MAX_QUIET_SECONDS = 1.0
"""Longest time between two readings, whatever the counter says: a missed change heals by itself."""


class RouteTable:
    """The routes by service, followed by one thread.

    :param store: the database with the routes.
    :param poll_seconds: how often the database is asked whether anything changed.
    """

    def __init__(self, store: Store, poll_seconds: float = POLL_SECONDS) -> None:
        self._store = store
        self._poll = poll_seconds
        self._routes: dict[str, Route] = {}
        self._listeners: list[Listener] = []
        self._commit_listeners: list[Callable[[], None]] = []
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Read the routes once, then follow them in a thread until `stop`."""
        if self._thread is not None:
            return
        self._stopping.clear()
        self.refresh()
        self._thread = threading.Thread(target=self._follow, name="ondol-routes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following; the last known routes stay readable."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def get(self, service: str) -> Route | None:
        """Return a service's route as last seen, or None."""
        return self._routes.get(service)

    def every(self) -> list[Route]:
        """Return all routes as last seen, by name."""
        return [self._routes[name] for name in sorted(self._routes)]

    def subscribe(self, callback: Listener) -> None:
        """Call `callback(routes by service)` now and after every change, in the following thread: be quick."""
        with self._guard:
            self._listeners.append(callback)
        callback(self._routes)

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call `callback()` whenever any process committed anything, at most every poll."""
        with self._guard:
            self._commit_listeners.append(callback)

    def refresh(self) -> bool:
        """Read the routes now; return whether they changed."""
        fresh = {route.service: route for route in routes.every(self._store)}
        if fresh == self._routes:
            return False
        self._routes = fresh  # one assignment: readers see the old mapping or the new one
        with self._guard:
            listeners = list(self._listeners)
        for listener in listeners:
            listener(fresh)
        return True

    def _follow(self) -> None:
        seen, quiet = -1, 0.0
        while not self._stopping.wait(self._poll):
            quiet += self._poll
            try:
                version = self._store.data_version()
                if version == seen and quiet < MAX_QUIET_SECONDS:
                    continue
                seen, quiet = version, 0.0
                self.refresh()
                with self._guard:
                    listeners = list(self._commit_listeners)
                for listener in listeners:
                    listener()
            except errors.OndolError:  # the database is away for a moment: keep serving what is known, try again
                seen = -1

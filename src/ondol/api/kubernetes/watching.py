"""Watches: what changes among the objects of a list, as it happens, from a version on.

A watch reads events from the store, so it can be resumed by anybody who knows a version, whatever was restarted in
between; a version older than the history, or newer than all of it, is an ERROR event with 410 and ends the watch.
Source: Kubernetes' API concepts, "Efficient detection of changes".
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from ondol.api.kubernetes import columns, lists, status
from ondol.api.kubernetes.kinds import Json
from ondol.api.kubernetes.requests import Call, Target
from ondol.store import resource_events
from ondol.store.connection import Store
from ondol.store.resource_events import Event

POLL_SECONDS = 0.03
"""How often the database is asked whether anybody committed, while somebody watches; it costs microseconds."""

BOOKMARK_SECONDS = 30.0
DEFAULT_SECONDS = 1800
"""How long a watch lasts that names no timeout."""

_INITIAL_END = {"k8s.io/initial-events-end": "true"}


class Watch:
    """One watch: lines of JSON, each an event. Not thread-safe; reads the store, so call it off the event loop.

    :param include: what a row carries when the client wants tables; empty: it wants objects.
    :raises StatusError: 400 for wrong parameters.
    """

    def __init__(self, store: Store, target: Target, call: Call, include: str = "") -> None:
        self._store, self._target, self._include = store, target, include
        self._matches = lists.selector(call, target)
        self._position = call.number("resourceVersion")
        self._initial = call.flag("sendInitialEvents")
        self.bookmarks = call.flag("allowWatchBookmarks")
        self.seconds = call.number("timeoutSeconds") or DEFAULT_SECONDS
        self.over = False

    def begin(self) -> list[bytes]:
        """Return the first events: everything there is, when the client named no version or asked for it."""
        with self._store.read() as tx:
            now, oldest = resource_events.current(tx), resource_events.oldest(tx)
            if self._position and not self._initial:
                if not oldest <= self._position <= now:
                    return [self._error(status.expired(oldest, self._position))]
                return []
            items = lists.snapshot(tx, self._target)
        self._position = now
        lines = [self._line("ADDED", item) for item in items if self._matches(item)]
        return [*lines, self.bookmark(_INITIAL_END)] if self._initial and self.bookmarks else lines

    def poll(self) -> list[bytes]:
        """Return what happened since the last call."""
        with self._store.read() as tx:
            oldest = resource_events.oldest(tx)
            if self._position < oldest:
                return [self._error(status.expired(oldest, self._position))]
            now = resource_events.current(tx)
            events = resource_events.after(tx, self._position, self._target.kind.kind, self._target.namespace)
        self._position = now
        return [line for event in events if (line := self._seen(event))]

    def bookmark(self, annotations: Json | None = None) -> bytes:
        """Return an event that only says how far the watch is."""
        metadata: Json = {"resourceVersion": str(self._position), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = annotations
        kind = self._target.kind
        item = {"apiVersion": kind.api_version(self._target.version), "kind": kind.kind, "metadata": metadata}
        return _encoded("BOOKMARK", columns.table(kind, [], metadata) if self._include else item)

    def _seen(self, event: Event) -> bytes:
        """Return an event as the selector shows it: what leaves the view was deleted, what enters it was added."""
        before = event.before is not None and self._matches(event.before)
        after = event.type != "DELETED" and self._matches(event.after)
        if not before and not after:
            return b""
        kind = "MODIFIED" if before and after else "ADDED" if after else "DELETED"
        return self._line(kind, lists.in_version(event.after, self._target.kind, self._target.version))

    def _line(self, event: str, item: Json) -> bytes:
        if not self._include:
            return _encoded(event, item)
        metadata = {"resourceVersion": item["metadata"]["resourceVersion"]}
        return _encoded(event, columns.table(self._target.kind, [item], metadata, self._include))

    def _error(self, error: status.StatusError) -> bytes:
        self.over = True
        return _encoded("ERROR", error.to_json())


def _encoded(event: str, item: Json) -> bytes:
    return msgspec.json.encode({"type": event, "object": item}) + b"\n"


class Bell:
    """Wakes the watches of one event loop when a resource changed, whichever process changed it.

    One thread with one connection, which asks only while somebody listens.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._guard = threading.Lock()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self.closed = False

    def close(self) -> None:
        """Wake everybody for the last time. Takes no lock: a signal handler may have interrupted whoever holds it."""
        self.closed = True
        for loop, event in tuple(self._listeners):
            loop.call_soon_threadsafe(event.set)

    @contextmanager
    def listening(self) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever a resource may have changed; the listener clears it."""
        mine = (asyncio.get_running_loop(), asyncio.Event())
        with self._guard:
            self._listeners.add(mine)
            self._wanted.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._follow, name="resource-watch", daemon=True)
                self._thread.start()
        try:
            yield mine[1]
        finally:
            with self._guard:
                self._listeners.discard(mine)
                if not self._listeners:
                    self._wanted.clear()

    def _follow(self) -> None:
        commits, version = -1, -1
        while not self.closed:
            self._wanted.wait()
            try:
                if (seen := self._store.data_version()) != commits:
                    newest = resource_events.newest(self._store)
                    if newest != version:
                        self._ring()
                    commits, version = seen, newest
            except Exception:  # noqa: BLE001 - the database is away for a moment, or was closed with the server
                commits = -1
            time.sleep(POLL_SECONDS)

    def _ring(self) -> None:
        with self._guard:
            for loop, event in self._listeners:
                loop.call_soon_threadsafe(event.set)

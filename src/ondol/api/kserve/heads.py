"""Heads of requests, remembered as bytes: what the parser said of one it would say of the next that is the same.

A client that asks again and again sends the same lines each time, perhaps with one of few lengths. Only the parser says
what a head means; this is its memory. Must not interpret anything.
"""

from __future__ import annotations

from dataclasses import dataclass

END = b"\r\n\r\n"
_MOST_HEADS = 512
_MOST_BYTES = 2048
"""Of one head. Together they stay below a megabyte or two."""


@dataclass(slots=True)
class Head:
    """What a head says, and how many bytes of body are behind it. Many requests share it: nobody may change it."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    length: int


class Heads:
    """The heads of one server's connections."""

    def __init__(self) -> None:
        self._known: dict[bytes, Head] = {}
        self.find = self._known.get

    def put(self, raw: bytes, head: Head) -> None:
        """Remember a head, with its blank line; when there are too many, the old ones are forgotten together."""
        if len(raw) > _MOST_BYTES:
            return
        if len(self._known) >= _MOST_HEADS:
            self._known.clear()
        self._known[raw] = head

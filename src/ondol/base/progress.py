"""Progress of long work as a port: stages report, the command line draws.

Must not print: a library that prints cannot be used from a notebook or a server.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Where long work says how far it is."""

    def start(self, stage: str, total: float | None = None) -> None:
        """A stage begins; `total` is the number of its steps when known."""
        ...

    def advance(self, stage: str, amount: float = 1, note: str = "") -> None:
        """`amount` more steps of the stage are done."""
        ...

    def finish(self, stage: str, summary: str = "") -> None:
        """The stage ended well; `summary` is one line for people."""
        ...


class Silent:
    """Progress that nobody watches."""

    def start(self, stage: str, total: float | None = None) -> None:
        pass

    def advance(self, stage: str, amount: float = 1, note: str = "") -> None:
        pass

    def finish(self, stage: str, summary: str = "") -> None:
        pass


SILENT = Silent()

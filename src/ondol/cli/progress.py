"""Progress as people see it: one line per stage; a moving line on a terminal, a plain one in a log.

Must not decide anything.
"""

from __future__ import annotations

import sys
import time
from typing import Any


class Lines:
    """One line per stage. On a terminal the running stage shows a spinner, how far it is and for how long."""

    def __init__(self, width: int = 12, to_stderr: bool = False) -> None:
        from rich.console import Console

        self._console = Console(file=sys.stderr if to_stderr else sys.stdout, highlight=False)
        self._width = width
        self._status: Any = None
        self._started: dict[str, float] = {}
        self._totals: dict[str, float | None] = {}
        self._done: dict[str, float] = {}

    def start(self, stage: str, total: float | None = None) -> None:
        self._started.setdefault(stage, time.monotonic())
        self._totals[stage], self._done[stage] = total, 0.0
        if self._console.is_terminal:
            self._stop_status()
            self._status = self._console.status(self._text(stage, ""), spinner="dots")
            self._status.start()

    def advance(self, stage: str, amount: float = 1, note: str = "") -> None:
        self._done[stage] = self._done.get(stage, 0.0) + amount
        if self._status is not None:
            self._status.update(self._text(stage, note))

    def finish(self, stage: str, summary: str = "") -> None:
        self._line("[green]✔[/]", stage, summary)

    def fail(self, stage: str, summary: str = "") -> None:
        """The stage ended badly."""
        self._line("[red]✘[/]", stage, summary)

    def say(self, text: str = "") -> None:
        """Print a line between stages."""
        self._stop_status()
        self._console.print(text, soft_wrap=not self._console.is_terminal)

    def close(self) -> None:
        """Stop whatever moves."""
        self._stop_status()

    def _line(self, mark: str, stage: str, summary: str) -> None:
        self._stop_status()
        seconds = time.monotonic() - self._started.pop(stage, time.monotonic())
        from rich.markup import escape

        self._console.print(
            f"{mark} {stage:<{self._width}} {escape(summary)}  [dim]{seconds:.1f} s[/]",
            soft_wrap=not self._console.is_terminal,
        )

    def _text(self, stage: str, note: str) -> str:
        total, done = self._totals.get(stage), self._done.get(stage, 0.0)
        far = f" {done:.0f}/{total:.0f}" if total else ""
        return f"{stage:<{self._width}}{far} {note}"

    def _stop_status(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

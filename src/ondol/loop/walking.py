"""One walk at a time per model or application, whoever makes it, and a record of retrainings whose walk failed.

The lock is the kernel's, which lets go when the process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ondol.base import errors, holding, ids
from ondol.loop import fingerprints
from ondol.loop.context import Context
from ondol.records.rollout import Decision
from ondol.store import rollouts, routes

ASKED_FOR = "asked for"
"""Why a walk is made that nobody but a person asked for."""


def is_walking(home: Path, name: str) -> bool:
    """Whether some process walks round this model's loop now."""
    return holding.is_held(_lock_path(home, name))


def walker(home: Path, name: str) -> int:
    """Return the process that walks round this model's loop now, or 0."""
    if not is_walking(home, name):
        return 0
    text = _lock_path(home, name).read_text(encoding="ascii")
    return int(text) if text.isdigit() else 0


@contextlib.contextmanager
def alone(context: Context, name: str, because: str) -> Iterator[None]:
    """Walk alone; what goes wrong before the gate is written down when it was a retraining.

    :raises ConflictError: CON-011 when another process walks.
    """
    path = _lock_path(context.settings.home, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if not holding.take(file):
            raise errors.ConflictError(
                f"the loop of {name!r} is being walked by another process",
                way_out="`ondol loop status` shows it; wait for it to end.",
                code="CON-011",
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            fingerprints.walked(context.store, context.root, context.project, name)
            yield
        except Exception as error:
            if because != ASKED_FOR:
                _failed(context, name, because, error)
            raise


def _failed(context: Context, name: str, because: str, error: Exception) -> None:
    route = routes.get(context.store, name)
    evidence = {
        "because": because,
        "retraining": because,
        "release": route.stable if route else "",
        "error": repr(error),
    }
    made = Decision(ids.new_id("decision"), time.time(), name, "retrain", "failed", str(error), evidence)
    rollouts.decide(context.store, made)


def _lock_path(home: Path, name: str) -> Path:
    return home / "loop" / f"{name}.lock"

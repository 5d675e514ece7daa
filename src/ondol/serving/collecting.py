"""Keeps Python's collector of reference cycles out of the way of requests.

Every few hundred requests it would walk everything that models and their libraries have put into memory, which takes
longer than thousands of predictions. What is there once models are loaded stays, so it is taken out of the walk.
"""

from __future__ import annotations

import gc
import threading

_YOUNG_OBJECTS = 20_000
"""New containers between two looks at the young ones; Python's own 700 are a few requests of many rows."""

_LATER_SECONDS = 3.0
_waiting = threading.Event()


def wait() -> None:
    """Collect rarely until models are there: importing their libraries makes little garbage and very many objects."""
    gc.freeze()
    gc.set_threshold(10 * _YOUNG_OBJECTS, 10, 10)


def settle() -> None:
    """Spare what stays from now on. To be called when models came; looks only at what is new."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)


def sweep_later() -> None:
    """Free models that went and are held by cycles. To be called when models went.

    It looks at everything that was spared, which takes a tenth of a second or more, and nobody is answered meanwhile.
    So it waits a while: answers that a bad candidate still owes must not be held up, nor those of who replaces it.
    """
    if _waiting.is_set():
        return
    _waiting.set()
    timer = threading.Timer(_LATER_SECONDS, _sweep)
    timer.daemon = True
    timer.start()


def _sweep() -> None:
    _waiting.clear()
    gc.unfreeze()
    settle()

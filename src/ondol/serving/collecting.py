"""Keeps Python's collector of reference cycles out of the way of requests.

Every few hundred requests it would walk everything that models and their libraries have put into memory, which takes
longer than thousands of predictions. What is there once models are loaded stays, so it is taken out of the walk.
"""

from __future__ import annotations

import gc

_YOUNG_OBJECTS = 20_000
"""New containers between two looks at the young ones; Python's own 700 are a few requests of many rows."""


def wait() -> None:
    """Collect rarely until models are there: importing their libraries makes little garbage and very many objects."""
    gc.freeze()
    gc.set_threshold(10 * _YOUNG_OBJECTS, 10, 10)


def settle() -> None:
    """Collect what went, and spare what stays. To be called when models came or went; takes about a tenth of a second.

    What was spared is looked at again by the next call, so that models in cycles are freed as well.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)

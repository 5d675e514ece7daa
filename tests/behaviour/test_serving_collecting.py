"""Models that went are freed, though Python's collector is kept away from what stays."""

from __future__ import annotations

import weakref

from tests.behaviour import serving_tools

from ondol.serving import collecting


class InACycle:
    """What no reference count frees."""

    def __init__(self) -> None:
        self.itself = self


def test_what_was_spared_and_went_is_freed_later() -> None:
    model = InACycle()
    seen = weakref.ref(model)
    collecting.settle()
    del model
    collecting.sweep_later()
    collecting.sweep_later()  # several that went are one sweep
    serving_tools.wait(lambda: seen() is None)

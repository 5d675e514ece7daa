"""Standing orders about one model: a hold on retraining, and the pipeline parameters that move with time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ondol.store import counters
from ondol.store.connection import Store


def hold(store: Store, model: str, reason: str) -> None:
    """Hold back automatic retraining; an empty reason lets it go on."""
    counters.put_fact(store, f"loop/hold/{model}", reason)


def held(store: Store, model: str) -> str:
    """Return why retraining is held back, or nothing."""
    return str(counters.fact(store, f"loop/hold/{model}") or "")


def set_parameters(store: Store, model: str, parameters: Mapping[str, Any]) -> None:
    """Set pipeline parameters that move with time (which months are the last ones), for every walk from now on."""
    counters.put_fact(store, f"loop/parameters/{model}", dict(parameters))


def parameters(store: Store, model: str) -> dict[str, Any]:
    """Return what `set_parameters` was given last."""
    return dict(counters.fact(store, f"loop/parameters/{model}") or {})

"""V2's repository extension: what there is, and why it cannot be loaded or unloaded from here.

What serves is said by the InferenceService and the route made of it; a client that could unload a model would disagree
with both a moment later. Loading a model that serves already is therefore answered as done, everything else is refused
with the reason. Must not move a route.
"""

from __future__ import annotations

from typing import Any

from ondol.base import errors
from ondol.serving.models import Models

Json = dict[str, Any]
_STATES = {"Loaded": "READY", "Loading": "LOADING", "FailedToLoad": "UNAVAILABLE"}


def index(models: Models, only_ready: bool = False) -> list[Json]:
    """Return one entry per service and version, with Triton's states."""
    found: list[Json] = []
    for name, state in models.states().items():
        serving = models.serving.get(name)
        known = serving.models if serving is not None else ()
        found += [{"name": name, "version": one.version, "state": "READY", "reason": ""} for one in known]
        if state != "Loaded" and not only_ready:
            found.append({"name": name, "version": "", "state": _STATES[state], "reason": "`ondol status` says why"})
    return found


def load(models: Models, name: str, parameters: Any = None) -> None:
    """Answer a wish to load a model: nothing to do when it serves.

    :param parameters: Triton's configuration or files to load with; none are taken.
    :raises OndolError: NOF-020 when there is no such model, STA-370 when it does not load, INP-370 for parameters.
    """
    state = _state(models, name)
    if parameters:
        raise errors.InputError(
            "a model is not loaded with parameters", where="parameters", code="INP-370",
            way_out="Say it in the InferenceService, and apply that.",
        )  # fmt: skip
    if state != "Loaded":
        raise errors.StateError(
            f"model {name!r} is not loaded: {state}", where="path", code="STA-370",
            way_out="`ondol status` says why; apply a manifest whose model loads.",
        )  # fmt: skip


def unload(models: Models, name: str) -> errors.StateError:
    """Return why a model is not unloaded.

    :raises NotFoundError: NOF-020 when there is no such model.
    """
    _state(models, name)
    return errors.StateError(
        f"model {name!r} is served because its InferenceService says so", where="path", code="STA-370",
        way_out=f"ondol delete isvc {name}",
    )  # fmt: skip


def _state(models: Models, name: str) -> str:
    state = models.states().get(name)
    if state is None:
        raise errors.NotFoundError(
            f"no model {name!r}", where="path", way_out="POST /v2/repository/index lists them.", code="NOF-020"
        )
    return state

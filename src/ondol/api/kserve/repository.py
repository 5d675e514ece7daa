"""V2's repository extension: what there is, and why it cannot be loaded or unloaded from here.

What serves is said by the InferenceService and the route made of it; a client that could unload a model would disagree
with both a moment later. Loading a model that serves already is therefore answered as done, everything else is refused
with the reason. Must not move a route.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ondol.base import errors
from ondol.serving import inputs
from ondol.serving.models import Models

PATH = "/v2/repository/"
Json = dict[str, Any]
_STATES = {"Loaded": "READY", "Loading": "LOADING", "FailedToLoad": "UNAVAILABLE"}


def answer(models: Models, path: str, body: bytes) -> Any:
    """Answer a path of the extension.

    :raises OndolError: when there is no such path or it is refused.
    """
    name, _, verb = path.removeprefix(PATH).removeprefix("models/").rpartition("/")
    if path == PATH + "index":
        return index(models, _only_ready(_object(body)))
    if not path.startswith(PATH + "models/") or not name or verb not in ("load", "unload"):
        raise errors.NotFoundError(
            f"nothing is served at {path!r}", code="NOF-021",
            way_out="POST /v2/repository/index, or models/NAME/load or unload below /v2/repository.",
        )  # fmt: skip
    asked = _object(body)
    if verb == "unload":
        raise unload(models, name)
    load(models, name, asked.get("parameters"))
    return {"name": name, "load": True}


def _object(body: bytes) -> Json:
    """Return a body that may be left out."""
    try:
        found = msgspec.json.decode(body or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise inputs.wrong(f"not valid JSON: {error}", "$", "INP-200") from None
    if not isinstance(found, dict):
        raise inputs.wrong("the body must be a JSON object", "$", "INP-201")
    return found


def _only_ready(asked: Json) -> bool:
    ready = asked.get("ready", False)
    if not isinstance(ready, bool):
        raise inputs.wrong(f"{ready!r} is no boolean", "ready", "INP-201")
    return ready


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

"""V2's paths that are only read: the server, its health, the models' metadata, readiness and versions.

The documents are the ones of the protocol; gRPC answers from the same functions. Must not answer inference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ondol.api.kserve import v2
from ondol.base import errors
from ondol.records.rollout import STABLE, Arm
from ondol.serving.models import Models, Serving

Json = dict[str, Any]
EXTENSIONS = ["health", "models", "binary_tensor_data", "model_repository"]


def document(path: str, find: Callable[[str], Serving], draining: bool, models: Models) -> tuple[int, Any] | None:
    """Return status and body of a path that is read with GET, or None when there is no such path."""
    if path in ("/v2", "/v2/"):
        return 200, server()
    if path == "/v2/health/live":
        return 200, {"live": True}
    if path == "/v2/health/ready":
        ready = models.settled and not draining
        return (200 if ready else 503), {"ready": ready}
    if path == "/v2/models":
        return 200, {"models": sorted(models.serving)}
    name, version, rest = split(path.removeprefix("/v2/models/")) if path.startswith("/v2/models/") else ("", "", "")
    if not name or rest not in ("", "ready"):
        return None
    serving = find(name)
    if version:
        arm_of(serving, version)
    if not rest:
        return 200, metadata(serving)
    if v2.is_mlserver(serving):
        return 200, None  # MLServer answers with an empty body
    return 200, {"name": name, "ready": True}


def split(path: str) -> tuple[str, str, str]:
    """Return model, version and the rest of `NAME[/versions/VERSION][/REST]`."""
    name, _, rest = path.partition("/")
    version = ""
    if rest.startswith("versions/"):
        version, _, rest = rest.removeprefix("versions/").partition("/")
    return name, version, rest


def arm_of(serving: Serving, version: str) -> Arm:
    """Return who serves a version of a model.

    :raises NotFoundError: NOF-371 when no arm serves it.
    """
    if version == serving.stable.version:
        return STABLE
    for arm, model in serving.arms.items():
        if version == model.version:
            return arm
    raise errors.NotFoundError(
        f"{serving.route.service!r} does not serve version {version!r}", where="version", code="NOF-371",
        way_out=f"Served now: {', '.join(versions(serving))}; without a version the route decides.",
    )  # fmt: skip


def versions(serving: Serving) -> list[str]:
    """Return the versions that are served now, the stable one first."""
    return [model.version for model in serving.models]


def server() -> Json:
    """Return what the server says of itself."""
    import ondol

    return {"name": "ondol", "version": str(getattr(ondol, "__version__", "")), "extensions": EXTENSIONS}


def metadata(serving: Serving) -> Json:
    """Return what a model takes and answers, by its MLflow signature where it has one."""
    model = serving.stable
    spec = model.spec
    names = spec.names or ("input-0",)
    width = 1 if spec.names else (spec.n_features or -1)
    inputs = [
        {
            "name": name,
            "datatype": spec.datatype(index),
            "shape": [-1, width],
            "parameters": {"nullable": spec.takes_null(index) if spec.names else spec.any_null},
        }
        for index, name in enumerate(names)
    ]
    return {
        "name": serving.route.service,
        "versions": versions(serving),
        "platform": model.platform,
        "inputs": inputs,
        "outputs": _outputs(serving),
        "parameters": {"release": model.digest, "engine": model.choice.to_json(), "notes": list(model.notes)},
    }


def _outputs(serving: Serving) -> list[Json]:
    """Return the outputs under the names and with the shapes of the dialect."""
    outputs = list(serving.stable.spec.outputs)
    if serving.stable.spec.own_names:
        return outputs
    if v2.is_mlserver(serving):
        return [{**one, "shape": [-1, 1]} if len(one["shape"]) == 1 else one for one in outputs]
    chosen = outputs[1:2] if serving.options.probabilities else outputs[:1]
    return [{**one, "name": "output-0"} for one in chosen or outputs[:1]]

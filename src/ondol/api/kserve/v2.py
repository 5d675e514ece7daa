"""V2's requests and answers in the dialect of the runtime KServe would have chosen.

`protocolVersion: v2` selects MLServer on a cluster, everything else KServe's own scikit-learn server; they differ in
the output's name and shape, in null members and in the bodies of the health paths.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from ondol.base import errors
from ondol.serving import describing, inputs, payloads_v2
from ondol.serving.models import Model, Models, Serving

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode
_EXTENSIONS = ["health", "models"]


@dataclass(slots=True)
class Request:
    """What a V2 request asks for."""

    rows: list[list[Any]]
    features: str
    id: str
    probabilities: bool
    output: str
    """Name of the one output."""


def read(body: bytes, serving: Serving) -> Request:
    """Return the rows and the output that is asked for.

    :raises InputError: naming the field that is wrong.
    """
    rows, request = payloads_v2.read(body, serving.stable.spec)
    mlserver = serving.options.protocol == "v2"
    names = [output.name for output in request.outputs or ()]
    if len(names) > 1:
        raise inputs.wrong("one output at a time is served", "outputs[1]", "INP-201")
    wanted = names[0] if names else ""
    known = ("predict", "predict_proba") if mlserver else ("output-0",)
    if wanted and wanted not in known:
        raise inputs.wrong(f"no output {wanted!r}; known: {', '.join(known)}", "outputs[0].name", "INP-203")
    if wanted == "predict_proba" and not serving.stable.probabilities:
        raise inputs.wrong("the model has no probabilities", "outputs[0].name", "INP-203")
    probabilities = wanted == "predict_proba" if mlserver else serving.options.probabilities
    features = _encode(rows).decode()
    output = wanted or ("predict" if mlserver else "output-0")
    return Request(rows, features, request.id or "", probabilities and serving.stable.probabilities, output)


def writer(service: str, serving: Serving, request: Request) -> Callable[[list[Any], Model], bytes]:
    """Return the function that writes the answer."""
    mlserver = serving.options.protocol == "v2"

    def write(predictions: list[Any], model: Model) -> bytes:
        flat, shape = _flat(predictions)
        if mlserver and len(shape) == 1:
            shape = [shape[0], 1]
        output: Json = {"name": request.output, "shape": shape, "datatype": _datatype(flat, model, request)}
        output["parameters"] = {"content_type": "np"} if mlserver else None
        output["data"] = flat
        if mlserver:
            answer: Json = {"model_name": service, "id": request.id, "parameters": {}, "outputs": [output]}
        else:
            answer = {"model_name": service, "model_version": None, "id": request.id, "parameters": None}
            answer["outputs"] = [output]
        return _encode(answer)

    return write


def _flat(predictions: list[Any]) -> tuple[list[Any], list[int]]:
    if predictions and isinstance(predictions[0], list):
        return [value for row in predictions for value in row], [len(predictions), len(predictions[0])]
    return predictions, [len(predictions)]


def _datatype(flat: list[Any], model: Model, request: Request) -> str:
    if request.probabilities:
        return "FP64"
    declared = str(model.spec.outputs[0]["datatype"]) if model.spec.outputs else ""
    if isinstance(flat[0], str):
        return "BYTES"
    if isinstance(flat[0], bool):
        return "BOOL"
    fits = declared.startswith("FP") == isinstance(flat[0], float)
    return declared if declared and fits else describing.datatype_of(flat)


def document(path: str, find: Callable[[str], Serving], draining: bool, models: Models) -> tuple[int, Any] | None:
    """Return status and body of a V2 path that is only read, or None when there is no such path."""
    if path == "/v2":
        return 200, {"name": "ondol", "version": _version(), "extensions": _EXTENSIONS}
    if path == "/v2/health/live":
        return 200, {"live": True}
    if path == "/v2/health/ready":
        ready = models.settled and not draining
        return (200 if ready else 503), {"ready": ready}
    if path == "/v2/models":
        return 200, {"models": sorted(models.serving)}
    parts = path.split("/")[3:]  # after /v2/models/
    if len(parts) == 3 and parts[1] == "versions":
        raise errors.NotFoundError(f"no version {parts[2]!r}: versions are chosen by the route", code="NOF-020")
    if len(parts) == 1 and parts[0]:
        return 200, _metadata(find(parts[0]))
    if len(parts) == 2 and parts[1] == "ready":
        serving = find(parts[0])
        if serving.options.protocol == "v2":
            return 200, None  # MLServer answers with an empty body
        return 200, {"name": parts[0], "ready": True}
    return None


def _version() -> str:
    import ondol

    return str(getattr(ondol, "__version__", ""))


def _metadata(serving: Serving) -> Json:
    model = serving.stable
    spec = model.spec
    names = spec.names or ("input-0",)
    width = 1 if spec.names else (spec.n_features or -1)
    columns = [
        {
            "name": name,
            "datatype": "BYTES" if spec.kind(index) == "text" and spec.names else "FP64",
            "shape": [-1, width],
            "parameters": {"nullable": spec.takes_null(index) if spec.names else spec.any_null},
        }
        for index, name in enumerate(names)
    ]
    return {
        "name": serving.route.service,
        "versions": [found.version for found in serving.models],
        "platform": model.platform,
        "inputs": columns,
        "outputs": list(spec.outputs),
        "parameters": {"release": model.digest, "engine": model.choice.to_json(), "notes": list(model.notes)},
    }

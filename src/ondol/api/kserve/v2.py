"""What a V2 request asks for and what answers it, in the dialect of the runtime KServe would have chosen.

`protocolVersion: v2` selects MLServer on a cluster, everything else KServe's own scikit-learn server; they differ in
the output's name and shape. The same for HTTP and gRPC: must not know how a request or an answer is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ondol.api.kserve.caller import NEVER, Question
from ondol.serving import describing, inputs, row_text
from ondol.serving.models import Model, Serving

Json = dict[str, Any]
_REFUSED = {
    "sequence_id": "sequences are not served: no model here keeps state between requests",
    "priority": "priorities are not served: requests are answered in the order in which they came",
}


@dataclass(slots=True)
class Request(Question):
    """What a V2 request asks for."""

    output: str = ""
    """Name of the one output."""

    binary: bool = False
    """Whether the output is wanted as raw bytes."""


@dataclass(slots=True)
class Output:
    """The one tensor of an answer."""

    name: str
    datatype: str
    shape: list[int]
    flat: list[Any]


def is_mlserver(serving: Serving) -> bool:
    """Return whose dialect a service speaks."""
    return serving.options.protocol == "v2"


def read(rows: list[list[Any]], request: Any, serving: Serving) -> Request:
    """Return what a request asks for, whose rows were read already.

    :param request: with `id`, `parameters` and `outputs`, as `payloads_v2` has them.
    :raises InputError: naming the field that is wrong or not served.
    """
    mlserver = is_mlserver(serving)
    parameters = request.parameters or {}
    for name in _REFUSED:
        if parameters.get(name):
            raise inputs.wrong(_REFUSED[name], f"parameters.{name}", "INP-370")
    outputs = request.outputs or ()
    if len(outputs) > 1:
        raise inputs.wrong("one output at a time is served", "outputs[1]", "INP-201")
    wanted = outputs[0].name if outputs else ""
    known = ("predict", "predict_proba") if mlserver else ("output-0",)
    if wanted and wanted not in known:
        raise inputs.wrong(f"no output {wanted!r}; known: {', '.join(known)}", "outputs[0].name", "INP-203")
    if wanted == "predict_proba" and not serving.stable.probabilities:
        raise inputs.wrong("the model has no probabilities", "outputs[0].name", "INP-203")
    probabilities = wanted == "predict_proba" if mlserver else serving.options.probabilities
    return Request(
        rows,
        row_text.text_of(rows),
        probabilities and serving.stable.probabilities,
        id=request.id or "",
        timeout=_timeout(parameters.get("timeout")),
        output=wanted or ("predict" if mlserver else "output-0"),
        binary=_wants_binary(parameters, (outputs[0].parameters or {}) if outputs else None),
    )


def _wants_binary(parameters: Json, of_output: Json | None) -> bool:
    """An output that is asked for by name says itself how it is wanted."""
    name, place = ("binary_data_output", parameters) if of_output is None else ("binary_data", of_output)
    path = "parameters" if of_output is None else "outputs[0].parameters"
    for refused in ("shared_memory_region", "classification"):
        if place.get(refused):
            raise inputs.wrong(f"{refused} is not served", f"{path}.{refused}", "INP-370")
    wanted = place.get(name, False)
    if not isinstance(wanted, bool):
        raise inputs.wrong(f"{wanted!r} is no boolean", f"{path}.{name}", "INP-201")
    return wanted


def _timeout(microseconds: Any) -> float:
    """Return a request's `timeout` parameter, which Triton's clients send in microseconds, as seconds."""
    if microseconds is None or microseconds == 0:
        return NEVER
    if isinstance(microseconds, bool) or not isinstance(microseconds, int) or microseconds < 0:
        raise inputs.wrong(f"{microseconds!r} is no time in microseconds", "parameters.timeout", "INP-373")
    return microseconds * 1e-6


def output_of(predictions: list[Any], model: Model, request: Request, mlserver: bool) -> Output:
    """Return the answer's tensor."""
    flat, shape = predictions, [len(predictions)]
    if isinstance(predictions[0], list):
        flat = [value for row in predictions for value in row]
        shape.append(len(predictions[0]))
    elif mlserver:
        shape.append(1)
    return Output(request.output, _datatype(flat, model, request), shape, flat)


def _datatype(flat: list[Any], model: Model, request: Request) -> str:
    if request.probabilities:
        return str(model.spec.outputs[1]["datatype"]) if len(model.spec.outputs) > 1 else "FP64"
    declared = str(model.spec.outputs[0]["datatype"]) if model.spec.outputs else ""
    if isinstance(flat[0], str):
        return "BYTES"
    if isinstance(flat[0], bool):
        return "BOOL"
    fits = declared.startswith("FP") == isinstance(flat[0], float)
    return declared if declared and fits else describing.datatype_of(flat)

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
from ondol.serving.rows import Rows

Json = dict[str, Any]
_REFUSED = {
    "sequence_id": "sequences are not served: no model here keeps state between requests",
    "priority": "priorities are not served: requests are answered in the order in which they came",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One output that is asked for."""

    place: int
    """Its place among the model's outputs."""

    name: str
    binary: bool = False
    """Whether it is wanted as raw bytes."""


@dataclass(slots=True)
class Request(Question):
    """What a V2 request asks for."""

    outputs: tuple[Wanted, ...] = ()


@dataclass(slots=True)
class Output:
    """One tensor of an answer."""

    name: str
    datatype: str
    shape: list[int]
    flat: list[Any]
    binary: bool


def is_mlserver(serving: Serving) -> bool:
    """Return whether a service speaks MLServer's dialect; the names of ONNX graphs are Triton's."""
    return serving.options.protocol == "v2" and not serving.stable.spec.own_names


def read(rows: Rows, request: Any, serving: Serving) -> Request:
    """Return what a request asks for, whose rows were read already.

    :param request: with `id`, `parameters` and `outputs`, as `payloads_v2` has them.
    :raises InputError: naming the field that is wrong or not served.
    """
    parameters = request.parameters or {}
    for name in _REFUSED:
        if parameters.get(name):
            raise inputs.wrong(_REFUSED[name], f"parameters.{name}", "INP-370")
    known = _known(serving)
    if request.outputs:
        asked = tuple(_wanted(one, f"outputs[{index}]", known, serving) for index, one in enumerate(request.outputs))
    else:
        binary = _wants_binary(parameters, "binary_data_output", "parameters")
        names = list(known) if serving.stable.spec.own_names else list(known)[:1]
        asked = tuple(Wanted(known[name], name, binary) for name in names)
    places = {one.place for one in asked}
    single = places == {0} or (places == {1} and serving.stable.probabilities)
    return Request(
        rows,
        row_text.text_of(rows),
        places == {1} if single else None,
        id=request.id or "",
        timeout=_timeout(parameters.get("timeout")),
        outputs=asked,
    )


def _known(serving: Serving) -> dict[str, int]:
    """Return the outputs that may be asked for, with their places among the model's."""
    if serving.stable.spec.own_names:
        return {str(one["name"]): place for place, one in enumerate(serving.stable.spec.outputs)}
    if is_mlserver(serving):
        return {"predict": 0, "predict_proba": 1}
    return {"output-0": int(serving.options.probabilities and serving.stable.probabilities)}


def _wanted(asked: Any, path: str, known: dict[str, int], serving: Serving) -> Wanted:
    """Return an output that is asked for by name, which says itself how it is wanted."""
    if asked.name not in known:
        raise inputs.wrong(f"no output {asked.name!r}; known: {', '.join(known)}", f"{path}.name", "INP-203")
    if asked.name == "predict_proba" and is_mlserver(serving) and not serving.stable.probabilities:
        raise inputs.wrong("the model has no probabilities", f"{path}.name", "INP-203")
    return Wanted(
        known[asked.name], asked.name, _wants_binary(asked.parameters or {}, "binary_data", f"{path}.parameters")
    )


def _wants_binary(place: Json, name: str, path: str) -> bool:
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


def outputs_of(predictions: list[Any], model: Model, request: Request, mlserver: bool) -> list[Output]:
    """Return the answer's tensors.

    :raises ValueError: when the release that answered has no such output.
    """
    found = []
    for one in request.outputs:
        values = predictions
        if request.probabilities is None:
            if one.place >= len(predictions[0]):
                raise ValueError(f"the model has no output {one.name!r}")
            values = [row[one.place] for row in predictions]
        declared: Json = model.spec.outputs[one.place] if one.place < len(model.spec.outputs) else {}
        flat, shape = _flattened(values)
        if len(shape) == 1 and (mlserver or (model.spec.own_names and len(declared["shape"]) == 2)):
            shape.append(1)
        datatype = _datatype(flat, str(declared.get("datatype", "FP64" if one.place else "")))
        found.append(Output(one.name, datatype, shape, flat, one.binary))
    return found


def _flattened(values: list[Any]) -> tuple[list[Any], list[int]]:
    shape = [len(values)]
    while values and isinstance(values[0], list):
        shape.append(len(values[0]))
        values = [value for row in values for value in row]
    return values, shape


def _datatype(flat: list[Any], declared: str) -> str:
    if not flat:
        return declared or "FP64"
    if isinstance(flat[0], str):
        return "BYTES"
    if isinstance(flat[0], bool):
        return "BOOL"
    fits = declared.startswith("FP") == isinstance(flat[0], float)
    return declared if declared and fits else describing.datatype_of(flat)

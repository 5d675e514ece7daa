"""V2 requests and answers as protobuf messages.

An input's elements are in the typed list of its datatype, or in `raw_input_contents`, one entry per input; the answer
is raw when the request was, as KServe and MLServer answer. Must not import gRPC itself.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from ondol.api.kserve import v2
from ondol.api.kserve.messages import CLASSES
from ondol.base import errors
from ondol.serving import inputs, payloads_raw, payloads_v1, payloads_v2, row_text
from ondol.serving.models import Model, Serving

_CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
_RAW_ONLY = ("FP16", "BF16")
_Infer, _Answer = CLASSES["ModelInferRequest"], CLASSES["ModelInferResponse"]


def parse(name: str, data: bytes) -> Any:
    """Return a message of the protocol.

    :raises InputError: INP-200 when the bytes are no such message.
    """
    from google.protobuf.message import DecodeError

    try:
        return CLASSES[name].FromString(data)
    except DecodeError as error:
        raise inputs.wrong(f"not a {name}: {error}", "$", "INP-200") from None


def read(message: Any, serving: Serving) -> v2.Request:
    """Return what a `ModelInferRequest` asks for.

    :raises InputError: naming the field that is wrong.
    """
    raws = list(message.raw_input_contents)
    if raws and len(raws) != len(message.inputs):
        text = f"{len(raws)} entries, but there are {len(message.inputs)} inputs"
        raise inputs.wrong(text, "raw_input_contents", "INP-207")
    tensors = [_tensor(one, bool(raws), f"inputs[{index}]") for index, one in enumerate(message.inputs)]
    outputs = [payloads_v2.RequestedOutput(one.name, _parameters(one.parameters)) for one in message.outputs]
    body = payloads_v2.Body(tensors, message.id, _parameters(message.parameters), outputs)
    rows = payloads_v2.rows_of(body, raws or [None] * len(tensors), serving.stable.spec)
    request = v2.read(rows, body, serving)
    request.outputs = tuple(replace(one, binary=bool(raws)) for one in request.outputs)
    return request


def _tensor(one: Any, is_raw: bool, path: str) -> payloads_v2.Tensor:
    tensor = payloads_v2.Tensor(one.name, list(one.shape), one.datatype, parameters=_parameters(one.parameters))
    if is_raw:
        if one.HasField("contents"):
            way_out = "Fill one of contents and raw_input_contents."
            raise inputs.wrong("there are raw contents as well", f"{path}.contents", "INP-207", way_out)
        return tensor
    if one.datatype in _RAW_ONLY:
        text, way_out = f"{one.datatype} has no typed contents", "Send raw_input_contents."
        raise inputs.wrong(text, f"{path}.datatype", "INP-204", way_out)
    filled = [field.name for field, _ in one.contents.ListFields()]
    wanted = _CONTENTS.get(one.datatype)
    if wanted and (extra := [name for name in filled if name != wanted]):
        text = f"filled, but {one.datatype} is in {wanted}"
        raise inputs.wrong(text, f"{path}.contents.{extra[0]}", "INP-207")
    if filled or one.HasField("contents"):
        values = list(getattr(one.contents, wanted)) if wanted else []
        tensor.data = _decoded(values, path) if one.datatype == "BYTES" else _plain(values)
    return tensor


def _plain(values: list[Any]) -> list[Any]:
    """A floating NaN is a missing value."""
    return [None if value != value else value for value in values]


def _decoded(values: list[bytes], path: str) -> list[str]:
    found = []
    for index, value in enumerate(values):
        try:
            found.append(value.decode())
        except UnicodeDecodeError:
            where = f"{path}.contents.bytes_contents[{index}]"
            raise inputs.wrong("the element is not UTF-8 text", where, "INP-204") from None
    return found


def _parameters(given: Any) -> dict[str, Any]:
    return {name: getattr(one, kind) for name, one in given.items() if (kind := one.WhichOneof("parameter_choice"))}


class Writer:
    """Writes one answer as a `ModelInferResponse`."""

    __slots__ = ("_mlserver", "_request", "_service")

    def __init__(self, serving: Serving, request: v2.Request) -> None:
        self._service, self._request = serving.route.service, request
        self._mlserver = v2.is_mlserver(serving)

    def write(self, predictions: list[Any], model: Model) -> bytes:
        """Return the message's bytes."""
        outputs = v2.outputs_of(predictions, model, self._request, self._mlserver)
        answer = _Answer(model_name=self._service, id=self._request.id)
        raw = any(found.binary or found.datatype in _RAW_ONLY for found in outputs)
        for found in outputs:
            output = answer.outputs.add(name=found.name, datatype=found.datatype, shape=found.shape)
            if self._mlserver:
                output.parameters["content_type"].string_param = "np"
            if raw:
                answer.raw_output_contents.append(payloads_raw.encode(found.flat, found.datatype))
            else:
                flat = [value.encode() for value in found.flat] if found.datatype == "BYTES" else found.flat
                getattr(output.contents, _CONTENTS[found.datatype]).extend(flat)
        data: bytes = answer.SerializeToString()
        return data


def renamed(name: str, data: bytes, model: str) -> bytes:
    """Return a request's bytes with another model's name."""
    request = parse(name, data)
    setattr(request, "name" if name == "ModelMetadataRequest" else "model_name", model)
    changed: bytes = request.SerializeToString()
    return changed


def as_json(name: str, data: bytes) -> bytes:
    """Return a request or an answer as V2's JSON, for the log; empty when it is too long or cannot be read."""
    if len(data) > row_text.MAX_FEATURES_CHARS:
        return b""
    field = "inputs" if name == "ModelInferRequest" else "outputs"
    try:
        found = parse(name, data)
        raws = list(found.raw_input_contents if field == "inputs" else found.raw_output_contents)
        tensors = [_described(one, raws[index] if raws else None) for index, one in enumerate(getattr(found, field))]
    except (errors.InputError, IndexError, KeyError):
        return b""
    return payloads_v1.encode({field: tensors})


def _described(one: Any, raw: bytes | None) -> dict[str, Any]:
    count, path = math.prod(one.shape), one.name
    if raw is not None:
        data = payloads_raw.decode(one.datatype, raw, count, path)
    else:
        values = list(getattr(one.contents, _CONTENTS[one.datatype]))
        data = _decoded(values, path) if one.datatype == "BYTES" else _plain(values)
    return {"name": one.name, "shape": list(one.shape), "datatype": one.datatype, "data": data}


def message(name: str, /, **fields: Any) -> bytes:
    """Return the bytes of a message of the protocol."""
    data: bytes = CLASSES[name](**fields).SerializeToString()
    return data

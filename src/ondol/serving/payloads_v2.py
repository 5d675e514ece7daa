"""The V2 (Open Inference Protocol) requests: named tensors in, rows out.

A tensor whose shape, datatype and data do not agree is refused with the field's path; nothing is truncated or cast
silently. A tensor's elements are JSON values or raw bytes. Must not know HTTP or gRPC, nor whose dialect is spoken.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from ondol.base import errors
from ondol.serving import inputs, large_bodies, payloads_raw, pieces
from ondol.serving.inputs import InputSpec
from ondol.serving.rows import MATRIX_ROWS, Rows

Json = dict[str, Any]

_WHOLE = {f"{sign}INT{bits}": bits for bits in (8, 16, 32, 64) for sign in ("", "U")}
_FLOATS = {"FP16": "e", "FP32": "f", "FP64": "d"}
DATATYPES = ("BOOL", "BYTES", *_WHOLE, *_FLOATS)
BINARY_SIZE = "binary_data_size"
"""Parameter of a tensor whose elements follow the JSON as raw bytes."""

_LARGE_BYTES = 128 * 1024
"""Larger bodies are read piece by piece."""

_MOST_ELEMENTS = 64 * 1024 * 1024


class Tensor(msgspec.Struct):
    """One input as it came."""

    name: str
    shape: list[int]
    datatype: str
    data: Any = msgspec.UNSET
    parameters: Json | None = None


class RequestedOutput(msgspec.Struct):
    """One output that is asked for by name."""

    name: str
    parameters: Json | None = None


class Body(msgspec.Struct):
    """An inference request."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: Json | None = None
    outputs: list[RequestedOutput] | None = None


class _Fast(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: msgspec.Raw
    parameters: Json | None = None


class _FastBody(msgspec.Struct):
    inputs: list[_Fast]
    id: str | None = None
    parameters: Json | None = None
    outputs: list[RequestedOutput] | None = None


_NUMBERS = msgspec.json.Decoder(list[float])
_FAST = msgspec.json.Decoder(_FastBody)
_SLOW = msgspec.json.Decoder(Body)


def read(body: bytes, spec: InputSpec) -> tuple[Rows, Body | _FastBody]:
    """Return the rows in column order and the rest of a request that is all JSON.

    :raises InputError: naming the field that is wrong.
    """
    if len(body) > _LARGE_BYTES and not spec.frame and not spec.kinds and (large := _largely(body, spec)) is not None:
        return large
    if not spec.frame:
        try:
            fast = _FAST.decode(body)
            rows = _quickly(fast, spec)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            rows = None
        if rows is not None:
            return rows, fast
    request = _decode(body)
    return rows_of(request, [None] * len(request.inputs), spec), request


def read_binary(body: bytes, json_bytes: int, spec: InputSpec) -> tuple[Rows, Body]:
    """Return the same of a request whose raw tensors follow its JSON, in the order of the inputs.

    :param json_bytes: length of the JSON, as the client says.
    :raises InputError: naming the field that is wrong.
    """
    request = _decode(body[:json_bytes])
    raws: list[bytes | memoryview | None] = []
    view, place = memoryview(body), json_bytes
    for index, tensor in enumerate(request.inputs):
        size = (tensor.parameters or {}).get(BINARY_SIZE)
        if size is None:
            raws.append(None)
            continue
        path = f"inputs[{index}].parameters.{BINARY_SIZE}"
        if type(size) is not int or size < 0 or place + size > len(body):
            raise inputs.wrong(f"{size!r} is not the size of what follows ({len(body) - place} bytes)", path, "INP-207")
        raws.append(view[place : place + size])
        place += size
    if place != len(body):
        raise inputs.wrong(f"{len(body) - place} bytes follow that belong to no input", "inputs", "INP-207")
    return rows_of(request, raws, spec), request


def rows_of(request: Body, raws: Sequence[bytes | memoryview | None], spec: InputSpec) -> Rows:
    """Return the rows of a request; `raws` has an input's elements when they are raw.

    :raises InputError: naming the field that is wrong.
    """
    if not request.inputs:
        raise inputs.wrong("no inputs: the list is empty", "inputs", "INP-206")
    if len(raws) == 1 and raws[0] is not None and (plain := _plainly(request.inputs[0], raws[0], spec)) is not None:
        return plain
    columns = [_values(tensor, raws[index], f"inputs[{index}]") for index, tensor in enumerate(request.inputs)]
    return _one_tensor(request, columns[0], spec) if len(columns) == 1 else _by_column(request, columns, spec)


def _largely(body: bytes, spec: InputSpec) -> tuple[Rows, _FastBody] | None:
    """Return the same of a large body with one FP64 matrix; None to read it the usual way."""
    taken = large_bodies.tensor(body, spec)
    if taken is None:
        return None
    rest, rows = taken
    try:
        fast = _FAST.decode(rest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    plain = len(fast.inputs) == 1 and bytes(fast.inputs[0].data) == b"[]" and fast.inputs[0].datatype == "FP64"
    return (rows, fast) if plain and fast.inputs[0].shape == list(rows.shape) else None


def _quickly(request: _FastBody, spec: InputSpec) -> Rows | None:
    """Return the rows of one FP64 matrix with nothing to convert, or None to read it carefully."""
    if len(request.inputs) != 1:
        return None
    tensor = request.inputs[0]
    shape, width = tensor.shape, spec.n_features
    if tensor.datatype != "FP64" or len(shape) != 2 or not width or shape[1] != width:
        return None
    data = pieces.decode(tensor.data, _NUMBERS, b",")
    if not data or shape[0] * width != len(data) or not -spec.limit <= min(data) or not max(data) <= spec.limit:
        return None
    if shape[0] == 1:
        return [data]
    return [data[start : start + width] for start in range(0, len(data), width)]


def _plainly(tensor: Tensor, raw: bytes | memoryview, spec: InputSpec) -> Rows | None:
    """Return the rows of one raw matrix of many numbers, none missing, as a matrix; None to read it carefully."""
    shape, size = tensor.shape, {"FP64": 8, "FP32": 4}.get(tensor.datatype, 0)
    if spec.frame or spec.kinds or not size or tensor.data is not msgspec.UNSET or len(shape) != 2:
        return None
    if not spec.n_features or shape[1] != spec.n_features or shape[0] < MATRIX_ROWS:
        return None
    if len(raw) != size * shape[0] * shape[1]:
        return None
    found = np.frombuffer(raw, payloads_raw.DTYPES[tensor.datatype]).astype(np.float64).reshape(shape)
    return found if bool((np.abs(found) <= spec.limit).all()) else None


def _decode(body: bytes) -> Body:
    try:
        return _SLOW.decode(body)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        field = path.rstrip("`").removeprefix("$").removeprefix(".") or "$"
        raise inputs.wrong(f"not a V2 request: {message}", field, "INP-201") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise inputs.wrong(f"not valid JSON: {error}", "$", "INP-200") from None


def _values(tensor: Tensor, raw: bytes | memoryview | None, path: str) -> list[Any]:
    """Return a tensor's elements, flat, checked against its shape and datatype."""
    if tensor.datatype not in DATATYPES and not (tensor.datatype == "BF16" and raw is not None):
        listed = ", ".join(DATATYPES)
        raise inputs.wrong(f"unknown datatype {tensor.datatype!r}; known: {listed}", f"{path}.datatype", "INP-204")
    if not tensor.shape or any(size < 0 for size in tensor.shape):
        raise inputs.wrong(f"{tensor.shape} is not a shape", f"{path}.shape", "INP-207")
    count = math.prod(tensor.shape)
    if count == 0:
        raise inputs.wrong(f"no rows: the shape {tensor.shape} is empty", f"{path}.shape", "INP-206")
    if raw is not None:
        if tensor.data is not msgspec.UNSET:
            raise inputs.wrong("both data and raw bytes are given", f"{path}.data", "INP-207", "Send one of them.")
        return payloads_raw.decode(tensor.datatype, raw, count, path)
    if tensor.data is msgspec.UNSET:
        raise _no_data(tensor, path)
    if count > _MOST_ELEMENTS or not isinstance(tensor.data, list):
        raise inputs.wrong(f"does not hold the {count} elements of shape {tensor.shape}", f"{path}.data", "INP-207")
    flat = _flatten(tensor.data, tensor.shape, f"{path}.data")
    if len(flat) != count:
        raise inputs.wrong(
            f"{len(flat)} elements, but the shape {tensor.shape} says {count}", f"{path}.data", "INP-207"
        )
    convert = _converter(tensor)
    return [convert(value, f"{path}.data[{index}]") for index, value in enumerate(flat)]


def _no_data(tensor: Tensor, path: str) -> errors.InputError:
    """Return the error for a tensor without elements."""
    parameters = tensor.parameters or {}
    if "shared_memory_region" in parameters:
        where = f"{path}.parameters.shared_memory_region"
        return inputs.wrong("shared memory is not served", where, "INP-370", "Send the tensor with the request.")
    if BINARY_SIZE in parameters:
        where = f"{path}.parameters.{BINARY_SIZE}"
        way_out = "Send the length of the JSON in the header Inference-Header-Content-Length."
        return inputs.wrong("the request says nothing of raw bytes", where, "INP-371", way_out)
    return inputs.wrong("has no data", f"{path}.data", "INP-201")


def _flatten(data: list[Any], shape: Sequence[int], path: str) -> list[Any]:
    """Return nested lists flat; they must nest exactly as the shape says."""
    if not data or not isinstance(data[0], list):
        return data
    if len(shape) < 2 or len(data) != shape[0]:
        raise inputs.wrong(f"{len(data)} entries, but the shape is {list(shape)}", path, "INP-207")
    flat: list[Any] = []
    for index, part in enumerate(data):
        here = f"{path}[{index}]"
        inner = _flatten(part, shape[1:], here) if isinstance(part, list) else None
        if inner is None or len(inner) != math.prod(shape[1:]):
            raise inputs.wrong(f"does not have the shape {list(shape[1:])}", here, "INP-207")
        flat.extend(inner)
    return flat


def _converter(tensor: Tensor) -> Any:
    datatype = tensor.datatype
    if datatype in _WHOLE:
        bits, signed = _WHOLE[datatype], not datatype.startswith("U")
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)

        def whole(value: Any, path: str) -> Any:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
                raise inputs.wrong(f"{value!r} is no {datatype}", path, "INP-204")
            if not low <= value <= high:
                raise inputs.wrong(f"{value!r} is out of {datatype}'s range", path, "INP-204")
            return int(value)

        return _or_null(whole)
    if datatype in _FLOATS:
        code = _FLOATS[datatype]

        def real(value: Any, path: str) -> Any:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise inputs.wrong(f"{value!r} is no {datatype}", path, "INP-204")
            try:
                return struct.unpack(code, struct.pack(code, value))[0]  # rounded as the wire type rounds
            except (OverflowError, struct.error):
                raise inputs.wrong(f"{value!r} is out of {datatype}'s range", path, "INP-204") from None

        return _or_null(real)

    kind, names = (bool, "boolean") if datatype == "BOOL" else (str, "string")

    def same(value: Any, path: str) -> Any:
        if not isinstance(value, kind):
            raise inputs.wrong(f"{value!r} is no {names}", path, "INP-204")
        return float(value) if kind is bool else value

    return _or_null(same)


def _or_null(convert: Any) -> Any:
    return lambda value, path: None if value is None else convert(value, path)


def _one_tensor(request: Body, flat: list[Any], spec: InputSpec) -> Rows:
    tensor = request.inputs[0]
    shape = tensor.shape
    if len(shape) == 1 and spec.n_features == 1:
        shape = [shape[0], 1]
    if len(shape) != 2:
        raise inputs.wrong(f"{shape} is not [rows, features]", "inputs[0].shape", "INP-207")
    width = shape[1]
    if spec.n_features and width != spec.n_features:
        raise inputs.wrong(f"{width} features, but the model takes {spec.n_features}", "inputs[0].shape", "INP-202")
    rows = [flat[start : start + width] for start in range(0, len(flat), width)]
    if not spec.kinds and tensor.datatype != "BYTES" and None not in flat and _in_range(flat, spec):
        return rows  # all numbers, none missing, none too large
    for number, row in enumerate(rows):
        for column, value in enumerate(row):
            inputs.check_value(spec, column, value, f"inputs[0].data[{number * width + column}]")
    return rows


def _in_range(flat: list[Any], spec: InputSpec) -> bool:
    return bool(-spec.limit <= min(flat) and max(flat) <= spec.limit)


def _by_column(request: Body, columns: list[list[Any]], spec: InputSpec) -> Rows:
    """Return rows out of one tensor per column, as a data frame is sent."""
    names = [tensor.name for tensor in request.inputs]
    if len(set(names)) != len(names):
        raise inputs.wrong("two inputs have the same name", "inputs", "INP-203")
    if not spec.names:
        raise inputs.wrong(
            "the model was trained without column names; send one input of shape [rows, features]", "inputs", "INP-203"
        )
    count = len(columns[0])
    for index, tensor in enumerate(request.inputs):
        if tensor.shape not in ([count], [count, 1]):
            raise inputs.wrong(
                f"{tensor.shape} is not [{count}, 1] as the first input's", f"inputs[{index}].shape", "INP-207"
            )
        if tensor.name not in spec.names:
            raise inputs.wrong(f"unknown feature {tensor.name!r}", f"inputs[{index}].name", "INP-203")
    rows = []
    for number in range(count):
        mapping = {name: column[number] for name, column in zip(names, columns, strict=True)}
        rows.append(inputs.row_of_mapping(spec, mapping, f"inputs[row {number}]"))
    return rows

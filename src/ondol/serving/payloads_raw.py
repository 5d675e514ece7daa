"""Tensors as raw little-endian bytes, as the binary extension of V2 over HTTP and `raw_*_contents` of gRPC carry them.

Fixed-size types are packed without padding; an element of `BYTES` is its length (4 bytes, unsigned) and its bytes. The
layout is the one of the Open Inference Protocol's binary data extension. Must not know where the bytes came from.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from ondol.serving import inputs

DTYPES = {
    "BOOL": "|u1", "INT8": "|i1", "UINT8": "|u1", "INT16": "<i2", "UINT16": "<u2", "INT32": "<i4", "UINT32": "<u4",
    "INT64": "<i8", "UINT64": "<u8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
"""numpy's type of every fixed-size datatype that has one."""

_AT_ONCE = 65_536
_LENGTH = struct.Struct("<I")


def decode(datatype: str, raw: bytes | memoryview, count: int, path: str) -> list[Any]:
    """Return `count` elements, flat; a floating NaN is a missing value and comes back as None.

    :param datatype: one of `DTYPES`, `BF16` or `BYTES`.
    :param path: the tensor's place in the request, for errors.
    :raises InputError: INP-207 when the bytes are not exactly that many elements, INP-204 when they are no such values.
    """
    if datatype == "BYTES":
        return _texts(raw, count, path)
    if datatype == "BF16":  # the upper half of a float32
        wide = _fixed(raw, "<u2", count, datatype, path).astype(np.uint32) << 16
        return _with_nulls(wide.view(np.float32))
    values = _fixed(raw, DTYPES[datatype], count, datatype, path)
    if datatype == "BOOL":
        if int(values.max()) > 1:
            place = int(np.argmax(values > 1))
            raise inputs.wrong(f"byte {int(values[place])} is no BOOL", f"{path}[{place}]", "INP-204")
        values = values.astype(np.float64)
    return _with_nulls(values) if values.dtype.kind == "f" else _listed(values)


def _fixed(raw: bytes | memoryview, dtype: str, count: int, datatype: str, path: str) -> Any:
    size = np.dtype(dtype).itemsize
    if len(raw) != count * size:
        raise inputs.wrong(f"{len(raw)} bytes, but {count} elements of {datatype} are {count * size}", path, "INP-207")
    return np.frombuffer(raw, dtype)


def _listed(values: Any) -> list[Any]:
    """Return an array as a list, piece by piece: numpy holds the interpreter while it converts."""
    found: list[Any] = []
    for start in range(0, len(values), _AT_ONCE):
        found += values[start : start + _AT_ONCE].tolist()
    return found


def _with_nulls(values: Any) -> list[Any]:
    found = _listed(values.astype(np.float64))
    return found if not np.isnan(values).any() else [None if value != value else value for value in found]


def _texts(raw: bytes | memoryview, count: int, path: str) -> list[str]:
    found: list[str] = []
    view, place = memoryview(raw), 0
    while place < len(view):
        if place + 4 > len(view) or place + 4 + (size := _LENGTH.unpack_from(view, place)[0]) > len(view):
            raise inputs.wrong("the bytes end inside an element", f"{path}[{len(found)}]", "INP-207")
        place += 4
        try:
            found.append(str(view[place : place + size], "utf-8"))
        except UnicodeDecodeError:
            raise inputs.wrong("the element is not UTF-8 text", f"{path}[{len(found)}]", "INP-204") from None
        place += size
    if len(found) != count:
        raise inputs.wrong(f"{len(found)} elements, but the shape says {count}", path, "INP-207")
    return found


def encode(values: Sequence[Any], datatype: str) -> bytes:
    """Return elements as raw bytes.

    :raises OverflowError: when a whole number does not fit the datatype.
    """
    if datatype == "BYTES":
        texts = [value.encode() for value in values]
        return b"".join(part for text in texts for part in (_LENGTH.pack(len(text)), text))
    return np.array(values, dtype=DTYPES[datatype]).tobytes()

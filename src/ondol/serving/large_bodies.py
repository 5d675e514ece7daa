"""Large JSON bodies of numbers, from bytes to one matrix, piece by piece.

No call holds the interpreter for more than some milliseconds, so that health probes and small requests are answered
meanwhile: neither the body nor its numbers are ever looked at as a whole. Must not accept what the usual way refuses:
what does not look plain is left to it.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ondol.serving import inputs, pieces
from ondol.serving import rows as rows_module
from ondol.serving.inputs import FLOAT64_MAX, InputSpec

Matrix = NDArray[np.float64]
_BLANK = b" \t\n\r"
_INSTANCES = b'{"instances":'
_DATA = b'"data"'
_ROWS = msgspec.json.Decoder(list[list[float]])
_ROWS_OR_NULL = msgspec.json.Decoder(list[list[float | None]])
_NUMBERS = msgspec.json.Decoder(list[float])
_ANYTHING = msgspec.json.Decoder()
_NO_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def instances(body: bytes, spec: InputSpec, piece_bytes: int = pieces.PIECE_BYTES) -> Matrix | None:
    """Return the rows of a V1 body that is `instances` alone, a missing value as NaN; None: read it the usual way.

    :param spec: of a model of numbers.
    :raises InputError: naming the field that is wrong.
    """
    first, last = body.find(b"["), body.rfind(b"]")
    if not spec.n_features or first < 0 or body[:first].rstrip(_BLANK) != _INSTANCES:
        return None
    if body[last + 1 :].strip(_BLANK) != b"}":
        return None
    parts: list[Matrix] = []
    count = 0
    ends = b"}" if body[first + 1 : first + 100].lstrip(_BLANK).startswith(b"{") else b"]"
    for piece in pieces.cut(body, first + 1, last, ends, piece_bytes):
        part = _rows(piece, spec, count)
        if part is None:
            return None
        parts.append(part)
        count += len(part)
    return np.concatenate(parts)


def _rows(piece: bytes, spec: InputSpec, count: int) -> Matrix | None:
    """Return some rows; None when they are not JSON by themselves.

    :param count: how many rows came before.
    :raises InputError: naming the field that is wrong.
    """
    rows: list[Any]
    try:
        rows = (_ROWS_OR_NULL if spec.any_null else _ROWS).decode(piece)
    except _NO_JSON:
        rows = []
    if rows and set(map(len, rows)) == {spec.n_features}:
        found = rows_module.matrix_of(rows)
        if _fits(found, spec):
            return found
    try:
        given = _ANYTHING.decode(piece)
    except _NO_JSON:
        return None
    return rows_module.matrix_of(inputs.rows_of(given, spec, "instances", count)) if given else None


def _fits(found: Matrix, spec: InputSpec) -> bool:
    if spec.any_null and bool((np.isnan(found).any(axis=0) & ~np.asarray(spec.nulls)).any()):
        return False
    return spec.limit >= FLOAT64_MAX or not bool((np.abs(found) > spec.limit).any())


def tensor(body: bytes, spec: InputSpec, piece_bytes: int = pieces.PIECE_BYTES) -> tuple[bytes, Matrix] | None:
    """Return a V2 body of one input with its numbers taken out (`"data":[]`), and them; None: read it the usual way."""
    key = body.find(_DATA)
    first = body.find(b"[", key)
    last = body.find(b"]", first)
    if min(key, first, last) < 0 or body[key + len(_DATA) : first].strip(_BLANK) != b":" or not spec.n_features:
        return None
    rest = body[: first + 1] + body[last:]
    if rest.count(_DATA) != 1:
        return None
    parts = []
    for piece in pieces.cut(body, first + 1, last, b",", piece_bytes):
        try:
            numbers = _NUMBERS.decode(piece)
        except _NO_JSON:
            return None
        if not numbers:
            return None
        parts.append(rows_module.matrix_of([numbers]).ravel())
    flat = np.concatenate(parts)
    if len(flat) % spec.n_features:
        return None
    found: Matrix = flat.reshape(-1, spec.n_features)
    return (rest, found) if _fits(found, spec) else None

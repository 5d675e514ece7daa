"""The V1 protocol's bodies: `{"instances": [...]}` in, `{"predictions": [...]}` out.

Bodies that are right go from bytes to lists of floats in one typed pass, many rows on to a matrix; a body that is
wrong is read a second time, slowly, to name the field. Must not know HTTP.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from ondol.serving import inputs, large_bodies, pieces, row_text
from ondol.serving import rows as rows_module
from ondol.serving.inputs import FLOAT64_MAX, InputSpec
from ondol.serving.rows import MATRIX_ROWS, Rows


class _Body(msgspec.Struct):
    instances: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_ALONE = b'{"instances":'
_AT_ONCE_BYTES = 128 * 1024
"""Larger bodies are read piece by piece."""

_BODY = msgspec.json.Decoder(_Body)
_NUMBERS = msgspec.json.Decoder(list[list[float]])
_NUMBERS_OR_NULL = msgspec.json.Decoder(list[list[float | None]])
_ANYTHING = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder()


def read(body: bytes, spec: InputSpec) -> tuple[Rows, str]:
    """Return the rows, with values in column order, and the instances as JSON text (too long: empty).

    :raises InputError: naming the field that is wrong.
    """
    plain = not spec.frame and not spec.kinds
    if plain and len(body) <= _AT_ONCE_BYTES:
        if (found := _at_once(body, spec)) is not None:
            return found
    elif plain and (matrix := large_bodies.instances(body, spec)) is not None:
        small = len(body) <= row_text.MAX_FEATURES_CHARS
        return matrix, body[body.index(b"[") : body.rindex(b"]") + 1].decode() if small else ""
    raw = _instances(body)
    if plain:
        try:
            rows = pieces.decode(raw, _NUMBERS_OR_NULL if spec.any_null else _NUMBERS, b"]")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _slowly(raw, spec), _text(raw)
        if (fitting := _fitting(rows, spec)) is not None:
            return fitting, _text(raw)
    return _slowly(raw, spec), _text(raw)


def _at_once(body: bytes, spec: InputSpec) -> tuple[Rows, str] | None:
    """Return what `read` does of a body that is `instances` alone, without looking for its end first; None: it is not.

    What is between the key and the last brace is one list of lists of numbers, or it is read in the other way.
    """
    if not body.startswith(_ALONE) or not body.endswith(b"}"):
        return None
    raw = body[len(_ALONE) : -1]
    try:
        rows = (_NUMBERS_OR_NULL if spec.any_null else _NUMBERS).decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    found = _fitting(rows, spec)
    return None if found is None else (found, raw.strip().decode())


def _fitting(rows: list[list[Any]], spec: InputSpec) -> Rows | None:
    """Return rows of numbers, and nulls where some are taken, if they are right; if not, the slow way says why not."""
    widths = set(map(len, rows))
    if len(widths) != 1 or 0 in widths or (spec.n_features and spec.n_features not in widths):
        return None
    if spec.any_null:
        if not all(spec.nulls) and any(None in row for row in rows):
            return None
        found: Rows = rows
    else:
        found = rows_module.matrix_of(rows) if len(rows) >= MATRIX_ROWS else rows
    return found if _within(found, spec.limit) else None


def _within(rows: Rows, limit: float) -> bool:
    if limit >= FLOAT64_MAX:  # JSON has no larger number
        return True
    if isinstance(rows, np.ndarray):
        return bool(-limit <= rows.min() and rows.max() <= limit)
    try:
        return bool(-limit <= min(map(min, rows)) and max(map(max, rows)) <= limit)
    except TypeError:  # there are nulls
        return not bool((np.abs(np.array(rows, dtype=np.float64)) > limit).any())


def _text(raw: msgspec.Raw) -> str:
    return bytes(raw).decode() if len(raw) <= row_text.MAX_FEATURES_CHARS else ""


def _instances(body: bytes) -> msgspec.Raw:
    try:
        found = _BODY.decode(body)
    except msgspec.ValidationError as error:
        raise inputs.wrong(f"the body must be a JSON object: {error}", "$", "INP-201") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise inputs.wrong(f"not valid JSON: {error}", "$", "INP-200") from None
    if found.instances is msgspec.UNSET and found.inputs is msgspec.UNSET:
        raise inputs.wrong("the body has no 'instances'", "instances", "INP-201", 'Send {"instances": [[...], ...]}.')
    if found.instances is not msgspec.UNSET and found.inputs is not msgspec.UNSET:
        raise inputs.wrong("the body has both 'instances' and 'inputs'", "inputs", "INP-201", "Send one of them.")
    chosen = found.instances if found.instances is not msgspec.UNSET else found.inputs
    assert not isinstance(chosen, msgspec.UnsetType)  # one of the two is set, as was checked above
    return chosen


def _slowly(raw: msgspec.Raw, spec: InputSpec) -> list[list[Any]]:
    try:
        instances = _ANYTHING.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise inputs.wrong(f"not valid JSON: {error}", "instances", "INP-200") from None
    return inputs.rows_of(instances, spec, "instances")


encode = _ENCODER.encode


def write_answer(predictions: list[Any], _: Any = None) -> bytes:
    """Return the answer's body; it says nothing of the model."""
    return _ENCODER.encode({"predictions": predictions})

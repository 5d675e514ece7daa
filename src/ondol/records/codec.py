"""Records to JSON and back, typed: `decode(encode(x), type(x)) == x`.

Must not know any particular record.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from ondol.base import errors

T = TypeVar("T")


def encode(record: Any) -> str:
    """Return the record as JSON text."""
    return msgspec.json.encode(record).decode()


def decode(text: str | bytes, kind: type[T]) -> T:
    """Read a record from JSON text.

    :raises InputError: naming the field when the text is not such a record.
    """
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.MsgspecError as error:
        raise errors.InputError(f"not a valid {kind.__name__}: {error}", code="INP-002") from error


def plain(record: Any) -> Any:
    """Return the record as dicts, lists, strings and numbers."""
    return msgspec.to_builtins(record)


def typed(value: Any, kind: type[T]) -> T:
    """Turn plain values into a record.

    :raises InputError: naming the field that does not fit.
    """
    try:
        return msgspec.convert(value, type=kind)
    except msgspec.ValidationError as error:
        raise errors.InputError(f"not a valid {kind.__name__}: {error}", code="INP-002") from error

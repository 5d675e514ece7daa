"""Ground truth that arrives later: `{"labels": {request id: value}}`, or a list of `{"id": …, "label": …}`.

A label is committed before it is acknowledged.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ondol.serving import inputs
from ondol.store import observations
from ondol.store.connection import Store

_encode = msgspec.json.Encoder().encode


def read(body: bytes) -> dict[str, str]:
    """Return labels as JSON text by request id.

    :raises InputError: naming the field that is wrong.
    """
    try:
        given: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise inputs.wrong(f"not valid JSON: {error}", "$", "INP-200") from None
    found = given.get("labels") if isinstance(given, dict) else given
    if isinstance(found, list):
        pairs = [_pair(entry, f"labels[{index}]") for index, entry in enumerate(found)]
    elif isinstance(found, dict):
        pairs = list(found.items())
    else:
        raise inputs.wrong("must be an object of request id to value, or a list", "labels", "INP-201")
    for identifier, value in pairs:
        if value is None:
            raise inputs.wrong("a label cannot be null", f"labels.{identifier}", "INP-205", "Leave it out.")
    return {str(identifier): _encode(value).decode() for identifier, value in pairs}


def _pair(entry: Any, path: str) -> tuple[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str) or "label" not in entry:
        raise inputs.wrong('must be {"id": request id, "label": value}', path, "INP-201")
    return entry["id"], entry["label"]


def store_all(store: Store, given: dict[str, str]) -> dict[str, int]:
    """Commit the labels and return how many there were, and how many of them new."""
    return {"received": len(given), "new": observations.label(store, given)}

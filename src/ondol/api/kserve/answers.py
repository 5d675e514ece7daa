"""Answers in general: how an error becomes a status and a body, and the headers every answer carries."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from ondol.base import errors

Headers = list[tuple[bytes, bytes]]
Reply = Callable[[int, bytes, Headers], None]

JSON: tuple[bytes, bytes] = (b"content-type", b"application/json")
MAX_BODY_BYTES = 64 * 1024 * 1024
"""Triton's default limit as well."""

_STATUS = {
    "INP-208": 413,
    "INP-209": 415,
    "REF-010": 401,
    "REF-020": 429,
    "STA-020": 504,
    "STA-021": 503,
    "STA-022": 503,
    "STA-300": 503,
    "STA-340": 503,
    "STA-341": 503,
    "USE-020": 405,
}
_encode = msgspec.json.Encoder().encode


def status_of(error: errors.OndolError) -> int:
    """Return the HTTP status of an error."""
    return _STATUS.get(error.code, error.http_status)


def status_of_failure(error: Exception | None) -> int:
    """Return the HTTP status of whatever a model's computation ended with."""
    if error is None:
        return 200
    if isinstance(error, TimeoutError):
        return 504
    return status_of(error) if isinstance(error, errors.OndolError) else 500


def body_of(error: errors.OndolError) -> bytes:
    """Return an error's body: KServe's `error`, and ours beside it."""
    return _encode({"error": error.message, "field": error.where, "way_out": error.way_out, "code": error.code})


def retry_after(error: errors.OndolError) -> int:
    """Return after how many whole seconds a client may try again; at least 1."""
    return max(1, math.ceil(getattr(error, "retry_after", 0.0)))


def refuse(reply: Reply, error: errors.OndolError, headers: Headers | None = None) -> int:
    """Answer with an error and return its status."""
    status = status_of(error)
    extra = [(b"retry-after", b"%d" % retry_after(error))] if status in (429, 503) else []
    reply(status, body_of(error), [JSON, *extra, *(headers or [])])
    return status


def content_type_is_json(headers: dict[bytes, bytes]) -> bool:
    """Return whether the body is declared as JSON, or not declared at all."""
    value = headers.get(b"content-type", JSON[1])
    return value == JSON[1] or value.partition(b";")[0].strip().lower() == b"application/json"


def check_body(headers: dict[bytes, bytes], body: bytes) -> None:
    """Check what can be known without reading the body.

    :raises InputError: INP-209 for a body that is not declared as JSON, INP-208 for one that is too big.
    """
    if not content_type_is_json(headers):
        found = headers[b"content-type"].decode("latin-1")
        raise errors.InputError(
            f"content type {found!r} is not served",
            where="Content-Type",
            way_out="Send JSON with Content-Type: application/json.",
            code="INP-209",
        )
    if len(body) > MAX_BODY_BYTES:
        raise too_big()


def too_big() -> errors.InputError:
    """Return the error for a body over the limit."""
    return errors.InputError(
        f"the body is larger than {MAX_BODY_BYTES // (1024 * 1024)} MB",
        where="$",
        way_out="Send the rows in several requests.",
        code="INP-208",
    )

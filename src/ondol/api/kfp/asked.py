"""What a request brings: its JSON body field by field, and KFP's words when something is wrong.

A field that means nothing on this machine is refused with its name, never ignored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ondol.base import errors

Json = dict[str, Any]
Handler = Callable[[Request], Awaitable[Response]]
MOST_BODY_BYTES = 32 * 1024 * 1024
_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 413: 8}  # HTTP -> google.rpc.Code


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, read whole."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Json = field(default_factory=dict)

    def fields(self, known: str, refused: Mapping[str, str] | None = None) -> Json:
        """Return the body's fields that are given.

        :param known: the names, separated by spaces.
        :param refused: names that are KFP's and mean nothing here -> why.
        :raises InputError: INP-535 for any other field.
        """
        allowed, found = known.split(), {}
        for name, value in self.body.items():
            if value in (None, "", {}, []):
                continue
            if name not in allowed:
                reason = (refused or {}).get(name)
                kind = errors.UnsupportedError if reason else errors.InputError
                raise kind(reason or f"no field {name!r}", where=name, code="UNS-530" if reason else "INP-535")
            found[name] = value
        return found


def text(value: object, where: str, most: int = 512) -> str:
    """Return a text of the body.

    :raises InputError: INP-535 when it is none, or too long.
    """
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise errors.InputError(f"must be a text of at most {most} characters", where=where, code="INP-535")
    return value


def number(value: object, where: str) -> int:
    """Return a whole number, which KFP's clients also send as text.

    :raises InputError: INP-535 when it is none.
    """
    try:
        return int(str(value))
    except ValueError:
        raise errors.InputError(f"{value!r} is not a whole number", where=where, code="INP-535") from None


def mapping(value: object, where: str) -> Json:
    """Return an object of the body.

    :raises InputError: INP-535 when it is none.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise errors.InputError("must be an object", where=where, code="INP-535")
    return value


def endpoint(function: Callable[[Asked], Json]) -> Handler:
    """Make an HTTP handler of a function; it runs in a thread, its errors are written as KFP's server writes them."""

    async def handler(request: Request) -> Response:
        try:
            asked = Asked(request.path_params, request.query_params, await _body(request))
            return JSONResponse(await run_in_threadpool(function, asked))
        except errors.OndolError as error:
            return failure(error)

    return handler


async def _body(request: Request) -> Json:
    content = await request.body()
    if len(content) > MOST_BODY_BYTES:
        raise errors.InputError(f"a body of more than {MOST_BODY_BYTES} bytes", where="body", code="INP-535")
    if not content.strip():
        return {}
    try:
        read = msgspec.json.decode(content)
    except msgspec.DecodeError as error:
        raise errors.InputError(f"not JSON: {error}", where="body", code="INP-535") from error
    return mapping(read, "body")


def failure(error: errors.OndolError) -> Response:
    """Write an error as KFP's server does: `error`, `code`, `message`, `details`."""
    status = 400 if isinstance(error, (errors.InputError, errors.StateError)) else error.http_status
    code = 9 if isinstance(error, errors.StateError) else _CODES.get(status, 13)
    place = f"{error.where}: " if error.where else ""
    words = f"{place}{error.message}" + (f" ({error.way_out})" if error.way_out else "")
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": error.code, "domain": "ondol"}
    return JSONResponse({"error": words, "code": code, "message": words, "details": [detail]}, status)

"""Where a request says which unit it belongs to: `header:NAME`, `cookie:NAME` or `body:FIELD`.

Must not assign anything: `split` does, with what is found here.
"""

from __future__ import annotations

from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any

import msgspec

from ondol.base import errors

_KINDS = ("header", "cookie", "body")


def check(declared: str) -> str:
    """Return the declaration if it can be followed.

    :raises InputError: INP-420 when it cannot.
    """
    kind, _, name = declared.partition(":")
    if declared and (kind not in _KINDS or not name.strip()):
        raise errors.InputError(
            f"a unit cannot be found in {declared!r}", where="unit",
            way_out="Write header:NAME, cookie:NAME or body:FIELD (body:user.id goes into an object).", code="INP-420",
        )  # fmt: skip
    return declared


def find(declared: str, header: Callable[[str], str], body: bytes) -> str:
    """Return the unit of a request; empty when it does not say.

    :param header: returns a header's value by its name in lower case, empty when there is none.
    :param body: JSON; read only when the declaration asks for it.
    """
    kind, _, name = declared.partition(":")
    if kind == "header":
        return header(name.lower())
    if kind == "cookie":
        try:
            found = SimpleCookie(header("cookie")).get(name)
        except CookieError:
            return ""
        return found.value if found else ""
    return _of_body(name, body) if kind == "body" else ""


def _of_body(path: str, body: bytes) -> str:
    try:
        value: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""  # the protocol says what is wrong with it
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""

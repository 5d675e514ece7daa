"""Who may ask the control process: anyone on this machine, or whoever has the key when we listen beyond it.

A web page that the user visits must not reach us either: writes from another origin and unknown host names (DNS
rebinding) are refused. Must not know what the paths behind it do.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ondol.base.settings import Settings

_OPEN = ("/readyz", "/livez")
_SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """An ASGI middleware.

    :param settings: the key is demanded when `settings.control` is not loopback.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._key = "" if settings.control.is_loopback else settings.api_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _OPEN:
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        if self._key and not has_key(headers, self._key):
            body = {"error": "the API key is missing or wrong", "code": "REF-010", "error_code": "UNAUTHENTICATED"}
            body |= {"message": body["error"], "way_out": "Send `Authorization: Bearer $ONDOL_API_KEY`."}
            answer = JSONResponse(body, 401, {"WWW-Authenticate": 'Basic realm="ondol", charset="UTF-8"'})
            await answer(scope, receive, send)
        elif not self._key and (reason := _foreign(scope["method"], headers)):
            body = {"error": reason, "code": "REF-011", "error_code": "PERMISSION_DENIED", "message": reason}
            await JSONResponse(body, 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def has_key(headers: dict[str, str], key: str) -> bool:
    """Say whether the request carries the key: as bearer token, as `X-API-Key`, or as password of basic credentials."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    given = headers.get("x-api-key", "")
    if scheme.lower() == "bearer":
        given = credentials
    elif scheme.lower() == "basic":
        try:
            given = base64.b64decode(credentials, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            given = ""
    return hmac.compare_digest(given.encode(), key.encode())


def _foreign(method: str, headers: dict[str, str]) -> str:
    host = headers.get("host", "")
    name = urlsplit(f"//{host}").hostname or ""
    if not _is_address(name):
        return f"host {name!r} is not this machine's address; set ONDOL_API_KEY and listen on it to use names"
    origin = headers.get("origin", "")
    if method not in _SAFE and origin and urlsplit(origin).netloc != host:
        return f"origin {origin!r} may not write here"
    return ""


def _is_address(name: str) -> bool:
    if name in ("localhost", "testserver"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

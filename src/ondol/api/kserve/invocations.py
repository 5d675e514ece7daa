"""MLflow's scoring protocol on the same models: `/invocations`, `/ping`, `/health` and `/version`.

Below `/endpoints/NAME`, where MLflow's deployments client asks, and at the root for MLflow's scoring client: there the
header `x-ondol-service` names the service, which may be left out when one is served. Must not read a table.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import msgspec

from ondol.api.kserve import answers
from ondol.api.kserve.answers import Headers, Reply
from ondol.api.kserve.call import Call, Read
from ondol.api.kserve.caller import Question, RequestHeaders
from ondol.base import errors
from ondol.serving import payloads_invocations, payloads_v1, row_text
from ondol.serving.models import Models, Serving

_ENDPOINTS = "/endpoints/"
_PATHS = ("/invocations", "/ping", "/health", "/version")
_CODES = {404: "RESOURCE_DOES_NOT_EXIST", 429: "REQUEST_LIMIT_EXCEEDED", 503: "TEMPORARILY_UNAVAILABLE"}


def match(path: str) -> tuple[str, str] | None:
    """Return the service a path names (empty: none) and one of `/invocations`, `/ping`, `/health`, `/version`."""
    if path in _PATHS:
        return "", path
    if not path.startswith(_ENDPOINTS):
        return None
    service, slash, rest = path.removeprefix(_ENDPOINTS).partition("/")
    return (service, slash + rest) if service and slash + rest in _PATHS else None


def service_of(named: str, headers: RequestHeaders, models: Models) -> str:
    """Return the service that is asked.

    :raises InputError: INP-376 when several are served and none is named.
    """
    named = named or headers.get(b"x-ondol-service", b"").decode("utf-8", "replace")
    if named:
        return named
    served = sorted(models.serving)
    if len(served) != 1:
        raise errors.InputError(
            f"{len(served)} models are served, and the request names none", where="x-ondol-service", code="INP-376",
            way_out="POST /endpoints/NAME/invocations, or send the header x-ondol-service.",
        )  # fmt: skip
    return served[0]


def read(call: Call) -> Read:
    """Return what a request asks for, and who writes and sends its answer.

    :raises InputError: naming the field that is wrong; INP-209 for a content type that is not read.
    """
    serving = call.serving
    rows = _rows(call.headers, call.body, serving)
    probabilities = serving.options.probabilities and serving.stable.probabilities
    return Question(rows, row_text.text_of(rows), probabilities), payloads_v1.write_answer, call.reply


def _rows(headers: RequestHeaders, body: bytes, serving: Serving) -> list[list[Any]]:
    kind, *parameters = headers.get(b"content-type", b"application/json").decode("latin-1").lower().split(";")
    unknown = [one for one in parameters if one.strip() not in ("charset=utf-8", 'charset="utf-8"', "")]
    if unknown or kind.strip() not in ("application/json", "text/csv"):
        raise errors.InputError(
            f"content type {headers[b'content-type'].decode('latin-1')!r} is not served", where="Content-Type",
            way_out="Send application/json or text/csv in UTF-8.", code="INP-209",
        )  # fmt: skip
    if kind.strip() == "text/csv":
        return payloads_invocations.read_csv(body, serving.stable.spec)
    return payloads_invocations.read_json(body, serving.stable.spec)


def replying(reply: Reply) -> Reply:
    """Return a reply whose errors have the members of MLflow's as well."""

    def answer(status: int, body: bytes, headers: Headers) -> None:
        found = _own_error(body) if status >= 400 else None
        if found is not None:
            where = "" if found["field"] in ("", "$", "path") else f"{found['field']}: "
            default = "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR"
            code, message = _CODES.get(status, default), f"{where}{found['error']}"
            body = msgspec.json.encode({"error_code": code, "message": message, **found})
        reply(status, body, headers)

    return answer


def _own_error(body: bytes) -> dict[str, Any] | None:
    """Return the members of an error of ours; None when a process of its own wrote the body."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) and {"error", "field", "code"} <= found.keys() else None


def probe(path: str, named: str, models: Models, reply: Reply) -> None:
    """Answer one of the paths that are only read, as MLflow's model server does."""
    if path == "/version":
        reply(200, importlib.metadata.version("mlflow").encode(), [answers.JSON])
        return
    ready = named in models.serving if named else models.settled and bool(models.serving)
    reply(200 if ready else 404, b"\n", [answers.JSON])

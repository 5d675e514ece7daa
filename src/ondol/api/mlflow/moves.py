"""Stage and alias moves, written to an audit history that MLflow does not keep, then passed on.

The history row is there before MLflow acts (so that no move is without one) and gets its outcome afterwards; a row that
stays `pending` was interrupted. Must not refuse a move: that is for gates to do.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ondol.api.mlflow import body
from ondol.store import registry_events
from ondol.store.connection import Store

_VERBS = {
    "model-versions/transition-stage": "stage",
    "registered-models/alias": "alias",
    "model-versions/delete": "delete_version",
    "registered-models/delete": "delete_model",
}
_KINDS = {f"/{root}/2.0/mlflow/{verb}": kind for root in ("api", "ajax-api") for verb, kind in _VERBS.items()}


@dataclass(frozen=True, slots=True)
class _Move:
    model: str
    kind: str
    name: str
    before: str
    after: str


def wants(path: str) -> bool:
    """Say whether a path moves something."""
    return path in _KINDS


async def recorded(store: Store, scope: Scope, receive: Receive, send: Send, application: ASGIApp) -> None:
    """Record the move, let MLflow make it, record how that ended."""
    read = await body.read(receive)
    query = {key: values[-1] for key, values in parse_qs(scope["query_string"].decode()).items()}
    request = {**query, **(read.json() or {})}
    move = await asyncio.to_thread(_describe, _KINDS[scope["path"]], scope["method"], request)
    seq = await asyncio.to_thread(
        registry_events.begin, store, move.model, move.kind, move.name, move.before, move.after, actor(scope)
    )

    async def watching(message: Message) -> None:
        if message["type"] == "http.response.start":  # the history is complete before the client knows of the move
            status = int(message["status"])
            outcome = "done" if status < 400 else f"refused: {status}"
            await asyncio.to_thread(registry_events.finish, store, seq, outcome)
        await send(message)

    await application(scope, read, watching)


def _describe(kind: str, method: str, request: body.Json) -> _Move:
    model, version = str(request.get("name", "")), str(request.get("version", ""))
    if kind == "alias":
        alias = str(request.get("alias", ""))
        return _Move(model, kind, alias, _alias_target(model, alias), "" if method == "DELETE" else version)
    if kind == "stage":
        return _Move(model, kind, version, _stage(model, version), str(request.get("stage", "")))
    return _Move(model, kind, version, _stage(model, version) if version else "", "deleted")


def _registry() -> Any:
    from mlflow.server.handlers import _get_model_registry_store

    return _get_model_registry_store()


def _alias_target(model: str, alias: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return str(_registry().get_model_version_by_alias(model, alias).version)
    except MlflowException:
        return ""


def _stage(model: str, version: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        return str(_registry().get_model_version(model, version).current_stage)
    except MlflowException:
        return ""


def actor(scope: Scope) -> str:
    """Say who asks: the user of the credentials or of a proxy, else the client's own name; and from where."""
    name = body.header(scope, b"x-forwarded-user") or _basic_user(body.header(scope, b"authorization"))
    name = name or body.header(scope, b"user-agent").partition(" ")[0]
    client = scope.get("client")
    return f"{name or 'unknown'} from {client[0] if client else 'unknown'}"


def _basic_user(authorization: str) -> str:
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""

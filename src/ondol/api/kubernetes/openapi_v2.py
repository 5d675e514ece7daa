"""The OpenAPI v2 document, for clients that know no v3: kubectl before 1.27 validates, explains and diffs by it.

They want it as a protobuf message (`openapi.v2.Document`); the few messages that they read are written here field by
field. Source: the message definitions of OpenAPI v2 in google/gnostic, and the protobuf wire format.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from ondol.api.kubernetes import openapi
from ondol.api.kubernetes.kinds import Registry

Json = dict[str, Any]
PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
"""What clients accept; an `@` is no character of a media type, so the answer is called by another name."""

ANSWERED = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_GVK = "x-kubernetes-group-version-kind"
_KEPT = ("description", "format", "required", "$ref", _GVK)


@functools.cache
def document(registry: Registry) -> Json:
    """Return the document of all kinds."""
    definitions: Json = {}
    paths: Json = {}
    for kind in registry.kinds:
        for version in kind.versions:
            schemas = openapi.schemas(kind, version, "#/definitions/")
            definitions |= {name: schema(one) for name, one in schemas.items()}
            for path, verbs in openapi.paths(kind, version).items():
                paths[path] = {verb: _operation(one) for verb, one in verbs.items()}
    return {"swagger": "2.0", "info": openapi.INFO, "paths": paths, "definitions": definitions}


def schema(whole: Json) -> Json:
    """Return a schema without what OpenAPI v2 does not have; what then is of any type says nothing of it."""
    found = {key: whole[key] for key in _KEPT if key in whole}
    if "allOf" in whole:
        return {**found, **whole["allOf"][0]}
    if whole.get("x-kubernetes-preserve-unknown-fields") or "anyOf" in whole:
        return found
    if "type" in whole:
        found["type"] = whole["type"]
    if "properties" in whole:
        found["properties"] = {name: schema(one) for name, one in whole["properties"].items()}
    for inner in ("items", "additionalProperties"):
        if inner in whole:
            found[inner] = schema(whole[inner])
    return found


def _operation(whole: Json) -> Json:
    parameters = [
        {"name": one["name"], "in": "query", "description": one["description"], "type": one["schema"]["type"]}
        for one in whole.get("parameters", ())
    ]
    return {"parameters": parameters, "responses": {"200": {"description": "OK"}}, _GVK: whole[_GVK]}


@functools.cache
def encoded(registry: Registry) -> bytes:
    """Return the document of all kinds as `openapi.v2.Document`."""
    whole = document(registry)
    info = _text(1, whole["info"]["title"]) + _text(2, whole["info"]["version"])
    paths = b"".join(_message(2, _named(name, _path(one))) for name, one in whole["paths"].items())
    definitions = _schemas(whole["definitions"])
    return _text(1, whole["swagger"]) + _message(2, info) + _message(8, paths) + _message(9, definitions)


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode()) if text else b""


def _named(name: str, value: bytes) -> bytes:
    """Return one entry of a mapping: its key and its value."""
    return _text(1, name) + _message(2, value)


def _schemas(named: Json) -> bytes:
    return b"".join(_message(1, _named(name, _schema(one))) for name, one in named.items())


def _schema(one: Json) -> bytes:
    found = _text(1, one.get("$ref", "")) + _text(2, one.get("format", "")) + _text(4, one.get("description", ""))
    found += b"".join(_text(19, name) for name in one.get("required", ()))
    if "additionalProperties" in one:
        found += _message(21, _message(1, _schema(one["additionalProperties"])))
    if "type" in one:
        found += _message(22, _text(1, one["type"]))
    if "items" in one:
        found += _message(23, _message(1, _schema(one["items"])))
    if "properties" in one:
        found += _message(25, _schemas(one["properties"]))
    return found + _extension(31, one.get(_GVK, ()))


def _extension(field: int, kinds: Json | list[Json]) -> bytes:
    """Return the one extension that clients read, as the YAML text they parse; JSON is YAML."""
    return _message(field, _named(_GVK, _text(2, json.dumps(kinds)))) if kinds else b""


def _path(verbs: Json) -> bytes:
    numbers = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}
    return b"".join(_message(numbers[verb], _operation_message(one)) for verb, one in verbs.items())


def _operation_message(one: Json) -> bytes:
    found = b""
    for parameter in one["parameters"]:
        query = _text(2, "query") + _text(3, parameter["description"]) + _text(4, parameter["name"])
        query += _text(6, parameter["type"])
        found += _message(8, _message(1, _message(2, _message(3, query))))
    return found + _extension(13, one[_GVK])

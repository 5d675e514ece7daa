"""Kubernetes' own kinds that other resources lean on: Namespace, ConfigMap, Secret.

A Secret here holds references, never values: each value is `${NAME}` or `${NAME:-default}` and is read from the
environment when it is used, so that no database, log, trace or export ever has it.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from ondol.api.kubernetes.kinds import AGE, Column, Json, Kind, Problem

REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")


@dataclass(frozen=True, slots=True)
class _Problem:
    path: str
    reason: str
    unsupported: bool = False


def open_schema(description: str = "") -> Json:
    """Return the schema of an object whose fields are checked by its own reader only."""
    return object_schema({"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}, description)


def object_schema(properties: Json, description: str = "") -> Json:
    """Return the schema of a whole object: its own properties beside those that every object has."""
    texts = {"apiVersion": "Version of the schema, with its group.", "kind": "Kind of the object."}
    found: Json = {name: {"type": "string", "description": text} for name, text in texts.items()}
    found["metadata"] = {"type": "object", "description": "Standard object's metadata."}
    return {"type": "object", "description": description, "properties": {**found, **properties}}


def _texts(description: str) -> Json:
    return {"type": "object", "description": description, "additionalProperties": {"type": "string"}}


def _fields(manifest: Json, known: dict[str, type]) -> list[Problem]:
    found: list[Problem] = []
    for key, value in manifest.items():
        if key in ("apiVersion", "kind", "metadata"):
            continue
        if key not in known:
            found.append(_Problem(key, "unknown field"))
        elif not isinstance(value, known[key]):
            found.append(_Problem(key, f"must be a {known[key].__name__}, not {value!r}"))
    return found


def _entries(manifest: Json, name: str) -> tuple[dict[str, str], list[Problem]]:
    found: list[Problem] = []
    given = manifest.get(name)
    entries = given if isinstance(given, dict) else {}
    for key, value in entries.items():
        if not _KEY.fullmatch(key):
            found.append(_Problem(f"{name}[{key}]", "a key has only letters, digits, '-', '_' and '.'"))
        elif not isinstance(value, str):
            found.append(_Problem(f"{name}[{key}]", f"must be a string, not {value!r}"))
    return {key: value for key, value in entries.items() if isinstance(value, str)}, found


def _decoded(value: str) -> str | None:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


_NO_VALUES = (
    "values of secrets are not kept on this machine; write ${{{name}}} and set {name} in the environment of `ondol up`"
)


def _secret(manifest: Json) -> list[Problem]:
    known: dict[str, type] = {"data": dict, "stringData": dict, "type": str, "immutable": bool}
    found = _fields(manifest, known)
    plain, wrong = _entries(manifest, "stringData")
    encoded, also_wrong = _entries(manifest, "data")
    found += [*wrong, *also_wrong]
    texts = {f"stringData[{key}]": (key, value) for key, value in plain.items()}
    for key, value in encoded.items():
        text = _decoded(value)
        if text is None:
            found.append(_Problem(f"data[{key}]", "is not base64 of a text"))
        else:
            texts[f"data[{key}]"] = (key, text)
    for path, (key, text) in texts.items():
        if text and not REFERENCE.fullmatch(text):
            name = re.sub(r"\W", "_", key).upper()
            found.append(_Problem(path, _NO_VALUES.format(name=name), unsupported=True))
    return found


def fold_string_data(manifest: Json) -> Json:
    """Return a Secret with `stringData` moved into `data`, as Kubernetes stores it."""
    given = manifest.get("stringData")
    if not isinstance(given, dict):
        return manifest
    data = {key: base64.b64encode(str(value).encode()).decode() for key, value in given.items()}
    rest = {key: value for key, value in manifest.items() if key != "stringData"}
    return {**rest, "data": {**(manifest.get("data") or {}), **data}, "type": manifest.get("type", "Opaque")}


def _config_map(manifest: Json) -> list[Problem]:
    found = _fields(manifest, {"data": dict, "binaryData": dict, "immutable": bool})
    return [*found, *_entries(manifest, "data")[1], *_entries(manifest, "binaryData")[1]]


def _namespace(manifest: Json) -> list[Problem]:
    return _fields(manifest, {"spec": dict, "status": dict})


def _namespace_schema() -> Json:
    finalizers = {"type": "array", "items": {"type": "string"}}
    return object_schema(
        {"spec": {"type": "object", "properties": {"finalizers": finalizers}}},
        "A name that resources live under. Applying into one makes it.",
    )


def _config_map_schema() -> Json:
    return object_schema(
        {
            "data": _texts("Texts by key."),
            "binaryData": _texts("Bytes by key, in base64."),
            "immutable": {"type": "boolean", "description": "Whether data may not be changed any more."},
        },
        "Texts for other resources to use.",
    )


def _secret_schema() -> Json:
    return object_schema(
        {
            "data": _texts("References ${NAME} by key, in base64."),
            "stringData": _texts("References ${NAME} by key, as they are."),
            "type": {"type": "string", "description": "For programs; this machine acts on none."},
            "immutable": {"type": "boolean", "description": "Whether data may not be changed any more."},
        },
        "References to secrets in the environment, for other resources to use. Values are refused.",
    )


def _core(kind: str, plural: str, schema: Any, problems: Any, short: tuple[str, ...] = (), **more: Any) -> Kind:
    return Kind("", ("v1",), kind, plural, schema, problems, short_names=short, built_in=True, **more)


NAMESPACE = _core(
    "Namespace",
    "namespaces",
    _namespace_schema,
    _namespace,
    ("ns",),
    namespaced=False,
    columns=(Column("Status", ".status.phase"), AGE),
)
CONFIG_MAP = _core(
    "ConfigMap",
    "configmaps",
    _config_map_schema,
    _config_map,
    ("cm",),
    has_status=False,
    columns=(Column("Data", ".data.count()", "integer"), AGE),
)
SECRET = _core(
    "Secret",
    "secrets",
    _secret_schema,
    _secret,
    has_status=False,
    columns=(Column("Type", ".type"), Column("Data", ".data.count()", "integer"), AGE),
)

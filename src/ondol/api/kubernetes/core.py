"""Kubernetes' own kinds that other resources lean on: Namespace, ConfigMap, Secret.

A Secret here holds references, never values: each value is `${NAME}`, a variable in the environment of `ondol up`, so
that no database, log, trace or export ever has it.
"""

from __future__ import annotations

import base64
import binascii
import re

from ondol.api.kubernetes.kinds import AGE, Json, Kind
from ondol.formats.kserve import common
from ondol.formats.resource import checking, openapi
from ondol.formats.resource.checking import Findings, Problem
from ondol.formats.resource.kind import Column
from ondol.formats.resource.states import refused
from ondol.formats.resource.types import Field, Flag, ListOf, Object, Text, texts

REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_NO_VALUES = refused(
    "values of secrets are not kept on this machine",
    "write ${{{name}}} and set {name} in the environment of `ondol up`",
)
_IMMUTABLE = Field(Flag(), about="Whether data may not be changed any more.")
_DECLARED = {
    "Namespace": Object(
        {
            "spec": Field(Object({"finalizers": Field(ListOf(Text()))})),
            "status": Field(Object({"phase": Field(Text())})),
        },
        about="A name that resources live under. Applying into one makes it.",
    ),
    "ConfigMap": Object(
        {
            "data": Field(texts(), about="Texts by key."),
            "binaryData": Field(texts(), about="Bytes by key, in base64."),
            "immutable": _IMMUTABLE,
        },
        about="Texts for other resources to use.",
    ),
    "Secret": Object(
        {
            "data": Field(texts(), about="References ${NAME} by key, in base64."),
            "stringData": Field(texts(), about="References ${NAME} by key, as they are."),
            "type": Field(Text(), about="For programs; this machine acts on none."),
            "immutable": _IMMUTABLE,
        },
        about="References to secrets in the environment, for other resources to use. Values are refused.",
    ),
}


def whole(fields: Object) -> Object:
    """Return the declaration of a whole object out of that of its own fields."""
    standard = {"apiVersion": Field(Text()), "kind": Field(Text()), "metadata": Field(common.METADATA)}
    return Object({**standard, **fields.fields}, about=fields.about)


def _check(manifest: Json) -> Findings:
    found = checking.check(manifest, whole(_DECLARED[manifest["kind"]]))
    for part in ("data", "binaryData", "stringData"):
        for key in manifest.get(part) or {}:
            if not _KEY.fullmatch(str(key)):
                reason = "a key has only letters, digits, '-', '_' and '.'"
                found.problems.append(Problem(f"{part}[{key}]", reason))
    return found


def _check_secret(manifest: Json) -> Findings:
    found = _check(manifest)
    if found.problems:
        return found
    given = {f"stringData[{key}]": (key, value) for key, value in (manifest.get("stringData") or {}).items()}
    for key, value in (manifest.get("data") or {}).items():
        decoded = _decoded(value)
        if decoded is None:
            found.problems.append(Problem(f"data[{key}]", "is not base64 of a text"))
        else:
            given[f"data[{key}]"] = (key, decoded)
    for path, (key, text) in given.items():
        if text and not REFERENCE.fullmatch(text):
            reason = _NO_VALUES.text.format(name=re.sub(r"\W", "_", key).upper())
            found.problems.append(Problem(path, reason, "refused", _NO_VALUES))
    return found


def _decoded(value: str) -> str | None:
    try:
        return base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None


def stored_secret(manifest: Json) -> Json:
    """Return a Secret as Kubernetes stores it: `stringData` moved into `data`, `Opaque` when it says no type."""
    plain, data = manifest.get("stringData", {}), manifest.get("data", {})
    if not isinstance(plain, dict) or not isinstance(data, dict):
        return manifest  # what is wrong with it is said elsewhere
    rest = {key: value for key, value in manifest.items() if key != "stringData"}
    encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
    if data or encoded:
        rest["data"] = {**data, **encoded}
    return {**rest, "type": manifest.get("type") or "Opaque"}


def _schema(kind: str) -> Json:
    return openapi.schema(whole(_DECLARED[kind]))


_COUNT = Column("Data", ".data.count()", "integer")
NAMESPACE = Kind(
    "",
    ("v1",),
    "Namespace",
    "namespaces",
    lambda _: _schema("Namespace"),
    _check,
    short_names=("ns",),
    columns=(Column("Status", ".status.phase"), AGE),
    namespaced=False,
    built_in=True,
)
CONFIG_MAP = Kind(
    "",
    ("v1",),
    "ConfigMap",
    "configmaps",
    lambda _: _schema("ConfigMap"),
    _check,
    short_names=("cm",),
    columns=(_COUNT, AGE),
    has_status=False,
    built_in=True,
)
SECRET = Kind(
    "",
    ("v1",),
    "Secret",
    "secrets",
    lambda _: _schema("Secret"),
    _check_secret,
    columns=(Column("Type", ".type"), _COUNT, AGE),
    has_status=False,
    built_in=True,
)

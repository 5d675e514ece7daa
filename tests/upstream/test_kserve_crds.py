"""The declarations against KServe's own CRDs: nothing of theirs is missing, nothing of ours is invented, types agree.

A field that is refused as a whole, or has a type of Kubernetes itself, covers what is below it. Of the others, type,
bounds, enum, default and what is required are compared as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.conftest import shared_folder

from ondol.formats.kserve import kinds
from ondol.formats.kserve.model import FRAMEWORKS
from ondol.formats.resource import openapi
from ondol.formats.resource.checking import join
from ondol.formats.resource.kind import Kind
from ondol.formats.resource.types import Builtin, Free, ListOf, MapOf, Object, Type

Json = dict[str, Any]

BOUNDS = ("minimum", "maximum", "enum", "pattern", "maxLength")
"""What a declaration may say where the schema does not: KServe's webhook does."""

LOOSER = ("Probe.httpGet.port", *(f"canary[].predictor.{name}.name" for name in ("model", *FRAMEWORKS)))
"""What need not be given: a probe's port is the container's own, and a canary's container needs no name here."""


@pytest.fixture(scope="module", params=kinds.KINDS, ids=lambda kind: f"{kind.kind}-{kind.version}")
def pair(request: pytest.FixtureRequest) -> tuple[Kind, Json]:
    """A declared kind and the upstream schema of its spec and status."""
    kind: Kind = request.param
    path = shared_folder("crds") / f"{kind.group}_{kind.plural}.yaml"
    stamp = path.stat()
    kept = request.config.cache.mkdir("crds") / f"{path.stem}-{stamp.st_size}-{stamp.st_mtime_ns}.json"
    if not kept.exists():
        found = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)  # it is the safe one
        kept.write_text(json.dumps(found), encoding="utf-8")
    document = json.loads(kept.read_text(encoding="utf-8"))
    names = document["spec"]["names"]
    assert (names["kind"], names["plural"], names["singular"]) == (kind.kind, kind.plural, kind.singular)
    assert tuple(names.get("shortNames", ())) == kind.short
    assert (document["spec"]["scope"] == "Namespaced") == kind.namespaced
    (version,) = (one for one in document["spec"]["versions"] if one["name"] == kind.version)
    listed = [(one["name"], one["jsonPath"], one["type"]) for one in version["additionalPrinterColumns"]]
    assert [(one.name, one.path, one.type) for one in kind.columns] == [
        one
        for one in listed
        if one[0] not in ("URLs",)  # of `-o wide` only
    ]
    return kind, version["schema"]["openAPIV3Schema"]["properties"]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["spec", "status"])
def test_the_declaration_says_what_the_schema_says(pair: tuple[Kind, Json], part: str) -> None:
    kind, upstream = pair
    differences = list(compare(getattr(kind, part), upstream[part], part))
    assert not differences, "\n".join(differences)


def compare(ours: Type, theirs: Json, path: str) -> Iterator[str]:
    """Yield how a declared type differs from a schema."""
    if isinstance(ours, Free | Builtin):  # Kubernetes' own types are the package's matter
        return
    yield from shallow(ours, theirs, path)
    if isinstance(ours, Object):
        yield from fields(ours, theirs, path)
    elif isinstance(ours, ListOf):
        yield from compare(ours.item, theirs["items"], f"{path}[]")
    elif isinstance(ours, MapOf):
        yield from compare(ours.value, theirs["additionalProperties"], join(path, "*"))


def fields(ours: Object, theirs: Json, path: str) -> Iterator[str]:
    """Yield how an object's fields differ."""
    upstream: Json = theirs.get("properties", {})
    for name in upstream.keys() - ours.fields.keys():
        yield f"{join(path, name)}: missing in the declaration"
    for name, field in ours.fields.items():
        if name not in upstream:
            yield f"{join(path, name)}: no field of KServe"
            continue
        if name in theirs.get("required", []) and not field.required and not join(path, name).endswith(LOOSER):
            yield f"{join(path, name)}: is required upstream"
        if "default" in upstream[name] and upstream[name]["default"] not in ("", field.default):
            yield f"{join(path, name)}: default {upstream[name]['default']!r} upstream, {field.default!r} here"
        yield from compare(field.type, upstream[name], join(path, name))


def shallow(ours: Type, theirs: Json, path: str) -> Iterator[str]:
    """Yield how one level of a schema differs."""
    own = openapi.schema(ours)
    for key in ("type", "x-kubernetes-int-or-string"):
        if own.get(key) != theirs.get(key):
            yield f"{path}: {key} {theirs.get(key)!r} upstream, {own.get(key)!r} here"
    if "format" in theirs and "maximum" not in own and own.get("format") != theirs["format"]:
        yield f"{path}: format {theirs['format']!r} upstream, {own.get('format')!r} here"
    for key in BOUNDS:
        if key in theirs and _plain(theirs[key]) != _plain(own.get(key)):
            yield f"{path}: {key} {theirs[key]!r} upstream, {own.get(key)!r} here"


def _plain(bound: Any) -> Any:
    return sorted(bound) if isinstance(bound, list) else bound

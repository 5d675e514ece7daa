"""OpenAPI of the served kinds: what `kubectl explain` reads and what tells clients that validation is done here.

Source: Kubernetes' OpenAPI v3 endpoints (one document for each group and version) and the older v2 document.
"""

from __future__ import annotations

import functools
from typing import Any

from ondol.api.kubernetes import status
from ondol.api.kubernetes.kinds import Kind, Registry
from ondol.base import hashing

Json = dict[str, Any]
INFO = {"title": "Ondol", "version": "v1.32.0"}
_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_TEXT: Json = {"type": "string"}
_TEXTS: Json = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA: Json = {
    "name": {**_TEXT, "description": "Unique among the kind's objects in a namespace."},
    "generateName": {**_TEXT, "description": "Beginning of a name that the server completes."},
    "namespace": {**_TEXT, "description": "Where the object lives."},
    "labels": {**_TEXTS, "description": "For selecting objects."},
    "annotations": {**_TEXTS, "description": "For tools; not for selecting."},
    "finalizers": {"type": "array", "items": _TEXT, "description": "Names that must be gone before the object is."},
    "ownerReferences": {
        "type": "array",
        "items": {"type": "object"},
        "description": "Objects that this one belongs to; it is deleted with the last of them.",
    },
    "uid": {**_TEXT, "description": "Unique in time and space. Read-only."},
    "resourceVersion": {**_TEXT, "description": "Changes with every change; what a stale write is refused by."},
    "generation": {"type": "integer", "format": "int64", "description": "Changes with the spec. Read-only."},
    "creationTimestamp": {**_TEXT, "format": "date-time", "description": "When it was created. Read-only."},
    "deletionTimestamp": {**_TEXT, "format": "date-time", "description": "When deletion was asked for. Read-only."},
    "managedFields": {"type": "array", "items": {"type": "object"}, "description": "Who set which field."},
}
_QUERY = (
    ("dryRun", "string", "`All`: check and answer, write nothing."),
    ("fieldManager", "string", "Who writes, for the ownership of fields."),
    ("fieldValidation", "string", "`Strict`, `Warn` or `Ignore` unknown and duplicate fields."),
    ("force", "boolean", "Take conflicting fields from their managers (apply only)."),
)
_ACTIONS = {"get": "get", "put": "update", "patch": "patch", "delete": "delete"}
_MANY_ACTIONS = {"get": "list", "post": "post", "delete": "deletecollection"}
_PATCH_TYPES = ("application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml")


def _names(kind: Kind) -> str:
    """Return the beginning of a kind's schema names, domain reversed as Kubernetes does it."""
    return ".".join(reversed((kind.group or "core.api.k8s.io").split(".")))


def schema_name(kind: Kind, version: str) -> str:
    """Return the name of a kind's schema in the documents."""
    return f"{_names(kind)}.{version}.{kind.kind}"


def schemas(kind: Kind, version: str, root: str) -> Json:
    """Return the schemas of a kind and of lists of it; `root` is what references begin with."""
    whole = kind.schema(version)
    gvk = {"group": kind.group, "kind": kind.kind, "version": version}
    metadata = {
        "description": "Standard object's metadata.",
        "allOf": [{"$ref": f"{root}{_OBJECT_META}"}],
        "default": {},
    }
    properties = {**whole.get("properties", {}), "metadata": metadata}
    name = schema_name(kind, version)
    items = {"type": "array", "items": {"$ref": f"{root}{name}"}}
    listed = {"type": "object", "required": ["items"], "properties": {"items": items}}
    return {
        name: {**whole, "properties": properties, "x-kubernetes-group-version-kind": [gvk]},
        f"{name}List": {**listed, "x-kubernetes-group-version-kind": [{**gvk, "kind": f"{kind.kind}List"}]},
        _OBJECT_META: {"type": "object", "description": "What every object has.", "properties": _METADATA},
    }


def index(registry: Registry, prefix: str) -> Json:
    """Return `/openapi/v3`: where the documents are, with hashes so that clients may keep them."""
    found = {}
    for group, versions in registry.groups.items():
        for version in versions:
            path = f"apis/{group}/{version}" if group else f"api/{version}"
            digest = hashing.of_json(document(registry, group, version)).rpartition(":")[2]
            found[path] = {"serverRelativeURL": f"{prefix}/openapi/v3/{path}?hash={digest.upper()}"}
    return {"paths": found}


@functools.cache
def document(registry: Registry, group: str, version: str) -> Json:
    """Return the OpenAPI v3 document of one group and version.

    :raises StatusError: 404.
    """
    kinds = registry.of_version(group, version)
    if not kinds:
        raise status.no_such_path()
    named: Json = {}
    found: Json = {}
    for kind in kinds:
        named |= schemas(kind, version, "#/components/schemas/")
        found |= paths(kind, version)
    return {"openapi": "3.0.0", "info": INFO, "paths": found, "components": {"schemas": named}}


def paths(kind: Kind, version: str) -> Json:
    """Return the operations of a kind, by path and verb."""
    begin = f"/apis/{kind.group}/{version}" if kind.group else f"/api/{version}"
    within = f"{begin}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{begin}/{kind.plural}"
    found = {
        within: {verb: _operation(kind, version, verb, action) for verb, action in _MANY_ACTIONS.items()},
        f"{within}/{{name}}": {verb: _operation(kind, version, verb, action) for verb, action in _ACTIONS.items()},
    }
    if kind.namespaced:
        found[f"{begin}/{kind.plural}"] = {"get": _operation(kind, version, "get", "list")}
    return found


def _operation(kind: Kind, version: str, verb: str, action: str) -> Json:
    schema = {"$ref": f"#/components/schemas/{schema_name(kind, version)}{'List' if action == 'list' else ''}"}
    found: Json = {
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": kind.group, "kind": kind.kind, "version": version},
    }
    if verb != "get":
        found["parameters"] = [
            {"name": name, "in": "query", "description": text, "schema": {"type": of}} for name, of, text in _QUERY
        ]
    if verb in ("post", "put"):
        found["requestBody"] = {"content": {"application/json": {"schema": schema}}, "required": True}
    elif verb == "patch":
        content = {form: {"schema": {"type": "object"}} for form in _PATCH_TYPES}
        found["requestBody"] = {"content": content, "required": True}
    return found

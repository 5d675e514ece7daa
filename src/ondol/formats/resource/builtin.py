"""Kubernetes' own types (`V1Affinity`, `V1PodSpec.volumes` …), as the installed package `kubernetes` carries them.

Importing that package costs a second and a thousand modules, so its generated classes are read as the data they are:
each file has the literals `openapi_types` and `attribute_map`. Needed only for fields of which this backend says
nothing of its own; without the package they are taken unchecked.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from pathlib import Path

from ondol.formats.resource.types import (
    Builtin,
    Field,
    Flag,
    Free,
    IntOrString,
    ListOf,
    MapOf,
    Object,
    Quantity,
    Text,
    Type,
    Whole,
)

_SIMPLE: dict[str, Type] = {
    "str": Text(),
    "int": Whole(-(2**63), 2**63 - 1),
    "bool": Flag(),
    "object": IntOrString(),  # what the package calls an object is a port or a percentage
    "datetime": Text(),
}
_QUANTITIES: dict[str, Type] = {
    **dict.fromkeys(("limits", "requests", "capacity", "overhead"), MapOf(Quantity())),
    **dict.fromkeys(("sizeLimit", "divisor"), Quantity()),
}
"""Fields that the package calls strings, and that may be written as numbers."""


@functools.cache
def resolve(name: str) -> Type:
    """Return the type of a class such as `V1Affinity`, or of a field such as `V1PodSpec.volumes`.

    What the package does not know, because it is older or absent, is `Free`.
    """
    kind, _, one = name.partition(".")
    declared = _class(kind)
    if not one or not isinstance(declared, Object):
        return declared
    return declared.fields[one].type if one in declared.fields else Free()


@functools.cache
def _files() -> dict[str, Path]:
    """Return the file of each class."""
    spec = importlib.util.find_spec("kubernetes")
    if spec is None or not spec.submodule_search_locations:
        return {}
    folder = Path(spec.submodule_search_locations[0]) / "client" / "models"
    listed = (folder / "__init__.py").read_text(encoding="utf-8")
    return {kind: folder / f"{module}.py" for module, kind in re.findall(r"models\.(\w+) import (\w+)", listed)}


@functools.cache
def _class(kind: str) -> Type:
    path = _files().get(kind)
    if path is None:
        return Free()
    source = path.read_text(encoding="utf-8")
    types, names = _literals(ast.parse(source))
    required = set(re.findall(r"Invalid value for `(\w+)`, must not be `None`", source))
    return Object(
        {
            json_name: Field(_QUANTITIES.get(json_name) or _type(types[name]), required=name in required)
            for name, json_name in names.items()
        }
    )


def _literals(tree: ast.Module) -> tuple[dict[str, str], dict[str, str]]:
    """Return `openapi_types` and `attribute_map` of the file's class."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Dict):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found["openapi_types"], found["attribute_map"]


def _type(text: str) -> Type:
    if match := re.fullmatch(r"list\[(.*)\]", text):
        return ListOf(_type(match[1]))
    if match := re.fullmatch(r"dict\(str, (.*)\)", text):
        return MapOf(_type(match[1]))
    return _SIMPLE.get(text) or Builtin(text)

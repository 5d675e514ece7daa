"""A declaration as an OpenAPI v3 schema, as Kubernetes' custom resources publish theirs.

Fields that are refused here are shown without their inside, and say so in their description.
"""

from __future__ import annotations

from typing import Any

from ondol.formats.resource import builtin
from ondol.formats.resource.types import (
    QUANTITY,
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

Json = dict[str, Any]
_SAID = {
    "no-effect": "No effect on this machine",
    "not-yet": "Refused on this machine for now",
    "refused": "Refused on this machine",
    "cluster": "Refused on this machine",
}


def schema(declared: Type) -> Json:
    """Return the schema of a type."""
    match declared:
        case Object():
            found: Json = {
                "type": "object",
                "properties": {name: _field(one) for name, one in declared.fields.items()},
            }
            required = [name for name, one in declared.fields.items() if one.required]
            if required:
                found["required"] = required
            return {**found, "description": declared.about} if declared.about else found
        case ListOf():
            found = {"type": "array", "items": schema(declared.item)}
            if declared.keys:
                found |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(declared.keys)}
            return {**found, "minItems": declared.least} if declared.least else found
        case MapOf():
            return {"type": "object", "additionalProperties": schema(declared.value)}
        case Builtin():
            return schema(builtin.resolve(declared.name))
        case _:
            return _scalar(declared)


def _scalar(declared: Text | Whole | Flag | Quantity | IntOrString | Free) -> Json:
    match declared:
        case Text():
            found: Json = {"type": "string"}
            if declared.values and declared.other is None:
                found["enum"] = list(declared.values)
            if declared.pattern:
                found["pattern"] = declared.pattern
            if declared.longest:
                found["maxLength"] = declared.longest
            return found
        case Whole(low, high):
            small = low >= -(2**31) and high <= 2**31 - 1
            found = {"type": "integer", "format": "int32" if small else "int64"}
            if low not in (-(2**31), -(2**63)):
                found["minimum"] = low
            if high not in (2**31 - 1, 2**63 - 1):
                found["maximum"] = high
            return found
        case Flag():
            return {"type": "boolean"}
        case Quantity():
            either: Json = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
            return {**either, "pattern": QUANTITY}
        case IntOrString():
            return {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
        case _:
            return {"x-kubernetes-preserve-unknown-fields": True}


def _field(declared: Field) -> Json:
    state = declared.state
    found = schema(declared.type) if state.taken else _outside(declared.type)
    said = f"{_SAID[state.word]}: {state.text}." if state.word in _SAID else ""
    about = " ".join(filter(None, (declared.about, said)))
    if about:
        found["description"] = about
    if declared.default is not None:
        found["default"] = declared.default
    return found


def _outside(declared: Type) -> Json:
    """Return the schema of a type without what is inside it."""
    resolved = builtin.resolve(declared.name) if isinstance(declared, Builtin) else declared
    match resolved:
        case ListOf():
            return {"type": "array", "items": {"x-kubernetes-preserve-unknown-fields": True}}
        case Object() | MapOf():
            return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        case Builtin():
            return _outside(resolved)
        case _:
            return _scalar(resolved)

"""The kinds of PATCH: JSON merge patch (RFC 7386), JSON patch (RFC 6902), the plain part of strategic merge patch.

Pure: values in, a new value out; the given object is not changed.
"""

from __future__ import annotations

import copy
from typing import Any

from ondol.api.kubernetes import status

Json = dict[str, Any]

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
MAX_OPERATIONS = 10_000


def merge(value: Any, patch: Any) -> Any:
    """Return a value with a JSON merge patch applied: null removes, everything but mappings is replaced."""
    if not isinstance(patch, dict):
        return patch
    found = dict(value) if isinstance(value, dict) else {}
    for key, inner in patch.items():
        if inner is None:
            found.pop(key, None)
        else:
            found[key] = merge(found.get(key), inner)
    return found


def strategic(value: Any, patch: Json) -> Any:
    """Return a value with a strategic merge patch that uses no directive, which is then a merge patch.

    The kinds that may be patched so have no lists but finalizers and owners; those are refused with the directives.

    :raises StatusError: 400 naming the part that is not honoured.
    """
    _refuse_directives(patch, "")
    return merge(value, patch)


def _refuse_directives(patch: object, path: str) -> None:
    if isinstance(patch, list):
        raise status.bad_request(
            f"{path[1:]}: lists are not honoured in a strategic merge patch here; use --type=merge"
        )
    if isinstance(patch, dict):
        for key, inner in patch.items():
            if key.startswith("$"):
                raise status.bad_request(f"{path}.{key}: not honoured in a strategic merge patch; use --type=merge")
            _refuse_directives(inner, f"{path}.{key}")


def json_patch(value: Any, operations: Any) -> Any:
    """Return a value with the operations of a JSON patch applied, all or none.

    :raises StatusError: 400 for a wrong document, 422 when an operation does not fit the object.
    """
    if not isinstance(operations, list):
        raise status.bad_request("a JSON patch is a list of operations")
    if len(operations) > MAX_OPERATIONS:
        raise status.too_large(MAX_OPERATIONS)
    found = copy.deepcopy(value)
    for operation in operations:
        if not isinstance(operation, dict) or not isinstance(operation.get("path"), str):
            raise status.bad_request("an operation of a JSON patch is a mapping with 'op' and 'path'")
        try:
            found = _operate(found, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            what = f"{operation.get('op')} operation does not apply: {operation['path']}: {error}"
            raise status.StatusError(
                422, "Invalid", f"the server rejected our request due to an error: {what}"
            ) from error
    return found


def _operate(value: Any, operation: Json) -> Any:
    kind, path = operation.get("op"), _pointer(operation["path"])
    if kind in ("add", "replace", "test"):
        if "value" not in operation:
            raise ValueError("'value' is missing")
        given = copy.deepcopy(operation["value"])
        if kind == "test":
            if _at(value, path) != given:
                raise ValueError("test failed")
            return value
        return _put(value, path, given, insert=kind == "add")
    if kind == "remove":
        return _drop(value, path)
    if kind in ("move", "copy"):
        source = _pointer(str(operation.get("from", "")))
        moved = copy.deepcopy(_at(value, source))
        return _put(_drop(value, source) if kind == "move" else value, path, moved, insert=True)
    raise ValueError(f"unknown operation {kind!r}")


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"{text!r} does not begin with '/'")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _index(items: list[Any], key: str, size: int) -> int:
    if key == "-":
        return len(items)
    if not key.isdecimal() or int(key) >= size:
        raise IndexError(f"no item {key!r}")
    return int(key)


def _at(value: Any, path: list[str]) -> Any:
    for key in path:
        value = value[_index(value, key, len(value))] if isinstance(value, list) else _member(value, key)
    return value


def _member(value: Any, key: str) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"{key!r} is below a value that has no members")
    return value[key]


def _put(value: Any, path: list[str], given: Any, *, insert: bool) -> Any:
    if not path:
        return given
    holder = _at(value, path[:-1])
    if isinstance(holder, list):
        index = _index(holder, path[-1], len(holder) + insert)
        holder[index : index + (not insert)] = [given]
    else:
        if not insert or not isinstance(holder, dict):
            _member(holder, path[-1])
        holder[path[-1]] = given
    return value


def _drop(value: Any, path: list[str]) -> Any:
    if not path:
        raise ValueError("the whole object cannot be removed")
    holder = _at(value, path[:-1])
    if isinstance(holder, list):
        del holder[_index(holder, path[-1], len(holder))]
    else:
        _member(holder, path[-1])
        del holder[path[-1]]
    return value

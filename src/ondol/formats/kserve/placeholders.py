"""`{{.Name}}` and its like in a serving runtime's container: KServe fills them from the InferenceService's metadata.

KServe hands the container to Go's templates; here only fields of the metadata are known, and whatever else stands
between the braces is refused.
"""

from __future__ import annotations

import re
from typing import Any

from ondol.formats.resource.states import refused

Json = dict[str, Any]

SERVER = "kserve-container"
"""The container of a runtime that serves the model."""

REFUSED = refused("only .Name, .Namespace, .Labels.KEY and .Annotations.KEY are filled in", "write the value itself")
_ANY = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_KNOWN = re.compile(r"-?\s*\.(?:(Name|Namespace)|(Labels|Annotations)\.([A-Za-z_][A-Za-z0-9_]*))\s*-?")


def unknown(value: Any) -> list[str]:
    """Return the placeholders in all texts of a value that cannot be filled in."""
    if isinstance(value, str):
        return [one.group(0) for one in _ANY.finditer(value) if not _KNOWN.fullmatch(one.group(1))]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for each in inner for one in unknown(each)]


def fill(value: Any, metadata: Json) -> Any:
    """Return a value with the placeholders of all its texts filled in; a label that is not there is empty, as in Go.

    :param metadata: `name`, `namespace`, `labels` and `annotations` of the InferenceService.
    """
    if isinstance(value, dict):
        return {key: fill(inner, metadata) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, metadata) for inner in value]
    return _ANY.sub(lambda match: _value(match, metadata), value) if isinstance(value, str) else value


def _value(match: re.Match[str], metadata: Json) -> str:
    known = _KNOWN.fullmatch(match.group(1))
    if known is None:  # refused when the runtime was applied
        return match.group(0)
    field, group, key = known.groups()
    return str(metadata[field.lower()]) if field else str((metadata.get(group.lower()) or {}).get(key, ""))

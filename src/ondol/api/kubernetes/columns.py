"""Tables: the columns of `kubectl get`, computed here because the server knows the kinds.

Paths are the part of JSONPath that custom resource definitions use: `.a.b`, `[*]`, `[?(@.k=='v')]` (also `!=`, and
`true`/`false` without quotes); `.count()` at the end counts what is there.
Source: Kubernetes' documentation of `additionalPrinterColumns` and of `meta.k8s.io/v1` `Table`.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Sequence
from datetime import datetime

from ondol.api.kubernetes.kinds import Json, Kind
from ondol.formats.resource.kind import Column

_STEP = re.compile(
    r"\.(?P<key>[A-Za-z0-9_-]+)(?P<count>\(\))?|\[\*\]|\[\?\(@\.(?P<field>\w+)(?P<op>[=!]=)(?P<value>[^)]+)\)\]"
)


@functools.cache
def _steps(path: str) -> tuple[re.Match[str], ...]:
    return tuple(_STEP.finditer(path))


def values(item: object, path: str) -> list[object]:
    """Return everything a path leads to."""
    here = [item]
    for step in _steps(path):
        if step["count"]:
            return [sum(len(one) if isinstance(one, (dict, list)) else 1 for one in here)]
        if step["key"]:
            here = [one[step["key"]] for one in here if isinstance(one, dict) and step["key"] in one]
            continue
        here = [inner for one in here if isinstance(one, list) for inner in one]
        if step["field"]:
            wanted = {"true": True, "false": False}.get(step["value"], step["value"].strip("'\""))
            equal = step["op"] == "=="
            here = [one for one in here if isinstance(one, dict) and (one.get(step["field"]) == wanted) == equal]
    return here


def cell(item: Json, column: Column, now: float) -> object:
    """Return what stands in a column."""
    found = values(item, column.path)
    if not found:
        return "<unknown>" if column.type == "date" else None if column.type != "string" else ""
    if column.type == "date":
        return age(str(found[0]), now)
    if column.type in ("integer", "boolean") and len(found) == 1:
        return found[0]
    return ",".join(_text(one) for one in found)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def age(since: str, now: float) -> str:
    """Return how long ago a time was, as kubectl shortens it: `5s`, `3m20s`, `26h`, `2d3h`."""
    try:
        seconds = int(now - datetime.fromisoformat(since.replace("Z", "+00:00")).timestamp())
    except ValueError:
        return "<invalid>"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 2:
        return f"{max(seconds, 0)}s"
    if hours < 3:
        return _two(minutes, "m", seconds % 60, "s", minutes < 10)
    if hours < 48:
        return _two(hours, "h", minutes % 60, "m", hours < 8)
    if days < 730:
        return _two(days, "d", hours % 24, "h", days < 8)
    return _two(days // 365, "y", days % 365, "d", days < 8 * 365)


def _two(whole: int, unit: str, rest: int, smaller: str, show_rest: bool) -> str:
    return f"{whole}{unit}{rest}{smaller}" if show_rest and rest else f"{whole}{unit}"


def table(kind: Kind, items: Sequence[Json], metadata: Json, include: str = "Metadata") -> Json:
    """Return a `meta.k8s.io/v1` Table.

    :param include: what each row carries of its object: `None`, `Metadata` or `Object`.
    """
    name = Column("Name", ".metadata.name")
    shown = (name, *kind.columns)
    now = time.time()
    rows = []
    for item in items:
        row: Json = {"cells": [cell(item, column, now) for column in shown]}
        if include == "Object":
            row["object"] = item
        elif include != "None":
            row["object"] = partial(item)
        rows.append(row)
    definitions = [
        {
            "name": column.name,
            "type": column.type if column.type != "date" else "string",
            "format": "name" if column is name else "",
            "description": column.path.lstrip("."),
            "priority": 0,
        }
        for column in shown
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    }


def partial(item: Json) -> Json:
    """Return only the object's metadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}

"""Variables of a process that are in Secrets and ConfigMaps: looked up when it starts, and handed to nobody else.

A Secret of this machine holds `${NAME}`, a variable in the environment of `ondol up`. Must not log a value, nor put one
into an error.
"""

from __future__ import annotations

import base64
import os
from typing import Any

from ondol.base import errors
from ondol.records.worker import VariableSource, WorkerSpec
from ondol.store import resources
from ondol.store.connection import Store


def resolve(store: Store, spec: WorkerSpec) -> dict[str, str]:
    """Return the variables that a process gets by reference.

    :raises InputError: INP-563 when one that is not optional is not there, or its secret is not in the environment.
    """
    found: dict[str, str] = {}
    for source in spec.sources:
        values = _values(store, source)
        if not source.key:
            found |= {f"{source.variable}{key}": _text(source, key, value) for key, value in values.items()}
        elif source.key in values:
            found[source.variable] = _text(source, source.key, values[source.key])
        elif not source.optional:
            raise _lacking(source, f"has no key {source.key!r}")
    return found


def _values(store: Store, source: VariableSource) -> dict[str, Any]:
    """Return what a Secret or ConfigMap holds, as it is stored."""
    try:
        manifest = resources.get(store, source.kind, source.namespace, source.resource).manifest
    except errors.NotFoundError:
        if source.optional:
            return {}
        raise _lacking(source, "is not there") from None
    return dict(manifest.get("data") or {})


def _text(source: VariableSource, key: str, value: str) -> str:
    if source.kind != "Secret":
        return value
    reference = base64.b64decode(value).decode()
    name = reference.removeprefix("${").removesuffix("}")  # the resource door takes nothing else
    if name and name not in os.environ:
        raise _lacking(source, f"refers with its key {key!r} to the variable {name}, which is not set")
    return os.environ.get(name, "")


def _lacking(source: VariableSource, why: str) -> errors.InputError:
    return errors.InputError(
        f"the {source.kind} {source.resource!r} in namespace {source.namespace!r} {why}",
        way_out="Apply it, and set its variables where `ondol up` is started.",
        code="INP-563",
    )

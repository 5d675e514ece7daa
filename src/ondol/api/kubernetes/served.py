"""The kinds this machine serves: KServe's as `formats` declares them, and Kubernetes' own that those lean on.

A new kind is one entry in `REGISTRY`; its controller lives in `backends.local`.
"""

from __future__ import annotations

from collections.abc import Iterable

from ondol.api.kubernetes import core, happenings
from ondol.api.kubernetes.kinds import AGE, Json, Kind, Registry
from ondol.backends.local import serving_runtimes
from ondol.formats import serving_runtime
from ondol.formats.kserve import kinds as kserve
from ondol.formats.kserve.service import INFERENCE_SERVICE
from ondol.formats.resource import kind as formats
from ondol.formats.resource import openapi
from ondol.formats.resource.checking import Findings
from ondol.store.connection import Tx


def declared(one: formats.Kind, *others: formats.Kind) -> Kind:
    """Return a kind out of its declaration in `formats`, with declarations of its other versions."""
    by_version = {each.version: each for each in (one, *others)}

    def schema(version: str) -> Json:
        found = kserve.schema(by_version[version])
        return {**found, "properties": {**found["properties"], "status": openapi.schema(by_version[version].status)}}

    return Kind(
        one.group,
        tuple(by_version),
        one.kind,
        one.plural,
        schema,
        kserve.check,
        _among_runtimes if one is INFERENCE_SERVICE else None,
        short_names=one.short,
        columns=one.columns or (AGE,),
        namespaced=one.namespaced,
        has_status=bool(one.status.fields),
        categories=("all", "kserve"),
    )


def _among_runtimes(manifest: Json, tx: Tx) -> Findings:
    """Check an InferenceService, whose model may be served by a runtime that is stored."""
    return serving_runtime.check(manifest, lambda: serving_runtimes.every_in(tx))


def _kserve(declarations: Iterable[formats.Kind]) -> list[Kind]:
    """Return them with their versions together; one that is refused whole is served too, so that it can say why."""
    found: dict[str, list[formats.Kind]] = {}
    for one in declarations:
        found.setdefault(one.kind, []).append(one)
    return [declared(*versions) for versions in found.values()]


REGISTRY = Registry((core.NAMESPACE, core.CONFIG_MAP, core.SECRET, happenings.EVENT, *_kserve(kserve.KINDS)))

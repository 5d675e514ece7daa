"""`ServingRuntime` and `ClusterServingRuntime` v1alpha1, declared: which server serves which model formats.

Which of them serves a model is chosen in `formats.serving_runtime`.
"""

from __future__ import annotations

from dataclasses import replace

from ondol.formats.kserve import placeholders, pod
from ondol.formats.kserve.common import GROUP
from ondol.formats.resource.kind import Column, Kind
from ondol.formats.resource.states import cluster, no_effect, refused
from ondol.formats.resource.types import (
    Builtin,
    Field,
    Flag,
    Free,
    Json,
    ListOf,
    Object,
    Report,
    Text,
    Whole,
    every,
    one_of,
    texts,
)

_MESH = refused("it is for many models in one server (ModelMesh)")
_ONE = refused("one process serves a model", "keep `kserve-container` only")
_SERVER = pod.custom_container(
    securityContext=Field(
        Builtin("V1Container.securityContext"), no_effect("the process has your own rights, as every server here")
    )
)
FORMAT = Object(
    {
        "name": Field(Text(), required=True, about="A model format."),
        "version": Field(Text(), about="Its version; a model that names one needs the same."),
        "autoSelect": Field(Flag(), about="Whether a model that names no runtime may get this one."),
        "priority": Field(Whole(1), about="Who is taken when several could be: the highest."),
    }
)
SPEC = Object(
    {
        "supportedModelFormats": Field(ListOf(FORMAT), about="What it can serve."),
        "protocolVersions": Field(ListOf(one_of("v1", "v2", "grpc-v1", "grpc-v2")), about="What it speaks."),
        "containers": Field(ListOf(_SERVER), required=True, about="The server."),
        "disabled": Field(Flag(), about="Whether it is left out of the choice."),
        "labels": Field(texts(), about="Kept."),
        "annotations": Field(texts(), about="Kept."),
        "multiModel": Field(Flag(), _MESH),
        "replicas": Field(Whole(0, 65535), _MESH),
        **every("builtInAdapter grpcDataEndpoint grpcEndpoint httpDataEndpoint storageHelper", _MESH),
        "workerSpec": Field(Free(), cluster("it spreads one model over several machines")),
        **every(
            "affinity hostIPC imagePullSecrets nodeSelector schedulerName tolerations volumes",
            pod.CLUSTER,
            "V1PodSpec",
        ),
    }
)


def _rules(value: Json, wrong: Report) -> None:
    """KServe's webhook: one format twice with the same priority leaves the choice open."""
    seen: dict[tuple[str, str], int | None] = {}
    for index, one in enumerate(value["spec"].get("supportedModelFormats") or []):
        key = (one["name"], one.get("version") or "")
        if key in seen and seen[key] != one.get("priority"):
            wrong(f"spec.supportedModelFormats[{index}].priority", f"{one['name']!r} is there with another priority")
        seen[key] = one.get("priority")
    _container_rules(value["spec"]["containers"], wrong)


def _container_rules(containers: list[Json], wrong: Report) -> None:
    """What KServe's controller says only when a runtime is chosen."""
    names = [one["name"] for one in containers]
    if placeholders.SERVER not in names:
        wrong("spec.containers", f"one of them must be called {placeholders.SERVER!r}")
    elif len(names) > 1:
        wrong("spec.containers", f"{len(names)} containers: {_ONE.text}", _ONE)
    for index, one in enumerate(containers):
        for unknown in placeholders.unknown(one):
            wrong(f"spec.containers[{index}]", f"{unknown!r}: {placeholders.REFUSED.text}", placeholders.REFUSED)


SERVING_RUNTIME = Kind(
    group=GROUP,
    version="v1alpha1",
    kind="ServingRuntime",
    plural="servingruntimes",
    spec=SPEC,
    status=Object({}),
    rules=(_rules,),
    columns=(
        Column("Disabled", ".spec.disabled", "boolean"),
        Column("ModelType", ".spec.supportedModelFormats[*].name"),
        Column("Containers", ".spec.containers[*].name"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
CLUSTER_SERVING_RUNTIME = replace(
    SERVING_RUNTIME, kind="ClusterServingRuntime", plural="clusterservingruntimes", namespaced=False
)

"""`LLMInferenceService` v1alpha1 and v1alpha2, declared: a GGUF file behind the OpenAI-compatible gateway."""

from __future__ import annotations

from dataclasses import replace

from ondol.formats.kserve import pod
from ondol.formats.kserve.common import ADDRESS, GROUP, STOP, named, status
from ondol.formats.resource.kind import Column, Kind
from ondol.formats.resource.states import HONOURED, cluster, no_effect, not_yet, refused
from ondol.formats.resource.types import (
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

_MANY = cluster("it spreads one model over several machines or accelerators")
_GATEWAY = cluster("it configures the cluster's gateway")
MODEL = Object(
    {
        "uri": Field(Text(), required=True, about="Where the model's files are."),
        "name": Field(Text(), about="What clients call it; the resource's name when it is left out."),
        "lora": Field(Free(), cluster("adapters are loaded by vLLM")),
        "confidential": Field(
            Object({"enabled": Field(Flag(), required=True), "resourceId": Field(Text())}),
            cluster("it needs a trusted execution environment"),
        ),
    }
)
_CRITICALITY = Field(
    one_of("Critical", "Standard", "Sheddable"), cluster("the cluster's scheduler reads it"), "Who goes first."
)
_SHARED = not_yet("language models do not share traffic", "an application's rollout does")
ROUTE = Object(
    {
        "group": Field(
            Text(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", longest=63), _SHARED, "Services that share traffic."
        ),
        "weight": Field(Whole(0, 1_000_000), _SHARED, "The service's share of its group."),
        "http": Field(Object({"refs": Field(Free()), "spec": Field(Free())}), _GATEWAY),
    }
)
ROUTER = Object(
    {
        "route": Field(ROUTE, about="How requests come to it."),
        **every("gateway ingress", _GATEWAY),
        "scheduler": Field(Free(), cluster("it chooses among many replicas by their caches")),
    }
)
TEMPLATE = Object(
    {
        **pod.pod(ephemeralContainers=Field(Free(), pod.CLUSTER)),
        "containers": Field(ListOf(pod.custom_container(), keys=("name",)), required=True, about="The server."),
    }
)
SPEC = Object(
    {
        "model": Field(MODEL, required=True, about="The model."),
        "replicas": Field(Whole(0), no_effect("the data plane serves it"), "How many servers."),
        "router": Field(ROUTER, about="How it is reached."),
        "template": Field(
            TEMPLATE,
            refused("the server is llama.cpp in the data plane, not an image", "leave it out"),
            "The server, instead of the one that is chosen.",
        ),
        "storageInitializer": Field(Object({"enabled": Field(Flag())}), no_effect("the file is there already")),
        "labels": Field(texts(), about="Kept."),
        "annotations": Field(texts(), about="Kept."),
        "baseRefs": Field(Free(), cluster("it names LLMInferenceServiceConfigs")),
        "parallelism": Field(Free(), _MANY),
        "prefill": Field(Free(), _MANY),
        "worker": Field(Free(), _MANY),
        "scaling": Field(Free(), cluster("it configures KEDA or a Horizontal Pod Autoscaler")),
        "kvCacheOffloading": Field(Free(), cluster("it is an option of vLLM")),
        "tracing": Field(Free(), cluster("it is an option of vLLM")),
    }
)


def _rules(value: Json, wrong: Report) -> None:
    if value["spec"].get("replicas") is not None and value["spec"].get("scaling") is not None:
        wrong("spec.replicas", "replicas and scaling are mutually exclusive")
    uri = value["spec"]["model"]["uri"]
    if "://" in uri.removeprefix("file://") or not uri.endswith(".gguf"):
        reason, way_out = f"{uri!r} is no GGUF file of this machine", "write file:///PATH/TO/MODEL.gguf"
        wrong("spec.model.uri", f"{reason}; {way_out}", refused(reason, way_out))
    route = (value["spec"].get("router") or {}).get("route") or {}
    if route.get("weight") is not None and not route.get("group"):
        wrong("spec.router.route.group", "weight needs a group to be a share of")


LLM_INFERENCE_SERVICE = Kind(
    group=GROUP,
    version="v1alpha2",
    kind="LLMInferenceService",
    plural="llminferenceservices",
    short=("llmisvc",),
    spec=SPEC,
    status=status(
        address=Field(ADDRESS),
        **every("addresses appliedConfigs router workloads", HONOURED),
    ),
    rules=(named, _rules),
    columns=(
        Column("URL", ".status.url"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Reason", ".status.conditions[?(@.type=='Ready')].reason"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
    annotations={STOP: HONOURED},
)
LLM_INFERENCE_SERVICE_V1 = replace(
    LLM_INFERENCE_SERVICE,
    version="v1alpha1",
    status=status(address=Field(ADDRESS), **every("addresses router", HONOURED)),
    spec=Object(
        {
            **{name: one for name, one in SPEC.fields.items() if name != "kvCacheOffloading"},
            "model": replace(
                SPEC.fields["model"],
                type=Object(
                    {
                        **{name: one for name, one in MODEL.fields.items() if name != "confidential"},
                        "criticality": _CRITICALITY,
                    }
                ),
            ),
        }
    ),
)

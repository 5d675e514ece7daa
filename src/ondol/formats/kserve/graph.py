"""`InferenceGraph` v1alpha1, declared: every field, its type, and what it does here.

The source of names, types and rules is KServe's own API (pkg/apis/serving/v1alpha1, inference_graph.go and its
validating webhook, whose words the texts are).
"""

from __future__ import annotations

import re
from functools import partial

from ondol.formats import gjson
from ondol.formats.kserve import pod
from ondol.formats.kserve.common import GROUP, STOP, named, status
from ondol.formats.resource.kind import Column, Kind
from ondol.formats.resource.states import HONOURED, State, no_effect, refused
from ondol.formats.resource.types import (
    Field,
    Flag,
    Json,
    ListOf,
    MapOf,
    Object,
    Report,
    Text,
    Whole,
    every,
    one_of,
)

TARGETS = ("nodeName", "serviceName", "serviceUrl")
_IN_PLANE = no_effect("the router is part of the data plane")
_SECONDS = Whole(0, 2**63 - 1)

STEP = Object(
    {
        "name": Field(Text(), about="Key of its answer in an Ensemble; unique in its node."),
        "serviceName": Field(Text(), about="An InferenceService; the one here is called without HTTP."),
        "serviceUrl": Field(Text(), about="Any URL that takes a POST."),
        "nodeName": Field(Text(), about="Another node of this graph."),
        "data": Field(
            Text(), about="`$response`: the answer of the step before; anything else: the request of the node."
        ),
        "weight": Field(Whole(0, 100), about="Share of a Splitter's requests; the weights of a node sum to 100."),
        "condition": Field(
            Text(), about="A GJSON path that must exist: of a Switch's request, of a Sequence's answer."
        ),
        "dependency": Field(one_of("Soft", "Hard"), about="Hard: when it fails, its answer is the node's."),
        "mapPredictionsToInstances": Field(Flag(), about="Sends `predictions` as `instances`."),
    }
)
NODE = Object(
    {
        "routerType": Field(one_of("Sequence", "Splitter", "Ensemble", "Switch"), required=True),
        "steps": Field(ListOf(STEP), about="What it calls."),
    }
)
TIMEOUTS = Object(
    {
        "serviceClient": Field(_SECONDS, about="Seconds a step may take; without it, there is no limit."),
        **{
            name: Field(_SECONDS, no_effect("the data plane has its own limits for slow clients"))
            for name in ("serverRead", "serverWrite", "serverIdle")
        },
    }
)
SPEC = Object(
    {
        "nodes": Field(MapOf(NODE), required=True, about="The nodes by name; a request begins at `root`."),
        "routerTimeouts": Field(TIMEOUTS, about="How long the router waits."),
        "timeout": Field(_SECONDS, about="Seconds until a request is answered with 504."),
        "resources": Field(pod.RESOURCES, _IN_PLANE),
        "minReplicas": Field(Whole(0), _IN_PLANE),
        "maxReplicas": Field(Whole(0), _IN_PLANE),
        "scaleTarget": Field(Whole(), _IN_PLANE),
        "scaleMetric": Field(one_of("cpu", "memory", "concurrency", "rps"), _IN_PLANE),
        **every("affinity nodeName nodeSelector serviceAccountName tolerations", pod.CLUSTER, "V1PodSpec"),
    }
)


def _rules(value: Json, wrong: Report) -> None:
    name, nodes = value["metadata"].get("name", ""), value["spec"]["nodes"]
    if "root" not in nodes:
        wrong(
            "spec.nodes",
            "root node not found, InferenceGraph needs a node with name 'root' as the root node of the graph",
        )
    for node, router in nodes.items():
        at = f"spec.nodes.{node}"
        _steps(name, node, router.get("steps") or [], partial(_below, at, wrong))
        for index, step in enumerate(router.get("steps") or []):
            if step.get("nodeName") and step["nodeName"] not in nodes:
                wrong(f"{at}.steps[{index}].nodeName", f"there is no node {step['nodeName']!r}")
        if router["routerType"] == "Splitter":
            _weights(name, node, router.get("steps") or [], partial(_below, at, wrong))
    for node in _endless(nodes):
        wrong(f"spec.nodes.{node}", "the node leads back to itself")


def _below(at: str, wrong: Report, path: str, reason: str, state: State | None = None) -> None:
    wrong(f"{at}.{path}", reason, state)


def _steps(graph: str, node: str, steps: list[Json], wrong: Report) -> None:
    seen = set[str]()
    for index, step in enumerate(steps):
        called = step.get("name") or ""
        if called and called in seen:
            wrong(
                f"steps[{index}].name",
                f'Node "{node}" of InferenceGraph "{graph}" contains more than one step with name "{called}"',
            )
        seen.add(called)
        targets = [target for target in TARGETS if step.get(target)]
        which = f'Step {index} ("{called}") in node "{node}" of InferenceGraph "{graph}"'
        if not targets:
            wrong(f"steps[{index}]", f"{which} does not specify an inference target")
        elif len(targets) > 1:
            wrong(f"steps[{index}]", f"{which} specifies more than one of nodeName, serviceName, serviceUrl")
        refusal = gjson.refusal(step.get("condition") or "")
        if refusal:
            wrong(f"steps[{index}].condition", refusal, refused(refusal))
        url = step.get("serviceUrl") or ""
        if url and not re.fullmatch(r"https?://[\w.\-\[\]:@]+(/\S*)?", url):
            wrong(f"steps[{index}].serviceUrl", f"{url!r} is not an http:// or https:// address")


def _weights(graph: str, node: str, steps: list[Json], wrong: Report) -> None:
    for index, step in enumerate(steps):
        if step.get("weight") is None:
            wrong(
                f"steps[{index}].weight",
                f"InferenceGraph[{graph}] Node[{node}] Route[{step.get('serviceName', '')}] missing the 'Weight'",
            )
            return
    if sum(step["weight"] for step in steps) != 100:
        wrong(
            "steps",
            f"InferenceGraph[{graph}] Node[{node}] splitter node: "
            "the sum of traffic weights for all routing targets should be 100",
        )


def _endless(nodes: Json) -> list[str]:
    """Return nodes that lead back to themselves; KServe's router would never answer."""
    leads = {
        name: {step.get("nodeName") for step in router.get("steps") or []} & nodes.keys()
        for name, router in nodes.items()
    }
    found = []
    for start in nodes:
        reached, todo = set[str](), list(leads[start])
        while todo:
            one = todo.pop()
            if one not in reached:
                reached.add(one)
                todo += leads[one]
        if start in reached:
            found.append(start)
    return found


INFERENCE_GRAPH = Kind(
    group=GROUP,
    version="v1alpha1",
    kind="InferenceGraph",
    plural="inferencegraphs",
    short=("ig",),
    spec=SPEC,
    status=status(deploymentMode=Field(Text())),
    rules=(named, _rules),
    annotations={STOP: HONOURED, f"{GROUP}/deploymentMode": _IN_PLANE, f"{GROUP}/autoscalerClass": _IN_PLANE},
    columns=(
        Column("URL", ".status.url"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)

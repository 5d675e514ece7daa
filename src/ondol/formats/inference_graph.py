"""KServe `InferenceGraph` v1alpha1: a checked manifest as a typed record.

What its fields are is declared in `formats.kserve.graph`. Pure: reads no files, no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ondol.formats.kserve import kinds
from ondol.formats.kserve.graph import INFERENCE_GRAPH
from ondol.formats.resource.checking import Problem

Json = dict[str, Any]
RouterType = Literal["Sequence", "Splitter", "Ensemble", "Switch"]

KIND = INFERENCE_GRAPH.kind
ROOT = "root"
STOP_ANNOTATION = "serving.kserve.io/stop"


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a node: to a service, a URL or another node; exactly one of the three is set."""

    service: str = ""
    url: str = ""
    node: str = ""
    name: str = ""
    from_response: bool = False
    """Whether the answer of the step before is sent, not the node's request."""

    weight: int = 0
    condition: str = ""
    hard: bool = False
    """Whether its failure ends the node."""

    map_predictions: bool = False
    """Whether `predictions` are sent as `instances`."""

    def key(self, index: int) -> str:
        """Return what its answer is called in an Ensemble."""
        return self.name or str(index)


@dataclass(frozen=True, slots=True)
class Node:
    """One router of a graph."""

    router: RouterType
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class InferenceGraph:
    """What one manifest asks for."""

    name: str
    namespace: str
    nodes: Mapping[str, Node]
    step_timeout_seconds: float = 0.0
    """`routerTimeouts.serviceClient`; 0: a step may take as long as it likes."""

    timeout_seconds: float = 0.0
    """0: no limit for the whole request."""

    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        return self.annotations.get(STOP_ANNOTATION, "").lower() == "true"

    @property
    def services(self) -> tuple[str, ...]:
        """The names of the services it calls, each once, in the order of the file."""
        return tuple(dict.fromkeys(step.service for node in self.nodes.values() for step in node.steps if step.service))


def read(manifest: Json) -> tuple[InferenceGraph | None, list[Problem]]:
    """Return the record (None when something is wrong or refused) and every problem found."""
    problems = kinds.check(manifest).problems
    return (None, problems) if problems else (_graph(manifest), [])


def typed(manifest: Json, source: str = "") -> InferenceGraph:
    """Return the record of a manifest.

    :raises UnsupportedError: when all that is wrong are fields this backend does not honour; all are listed.
    :raises InputError: when the manifest itself is wrong; all problems are listed.
    """
    graph, problems = read(manifest)
    if graph is not None:
        return graph
    raise kinds.refusal(manifest, problems, source)


def _graph(manifest: Json) -> InferenceGraph:
    metadata, spec = manifest["metadata"], manifest["spec"]
    return InferenceGraph(
        name=metadata["name"],
        namespace=metadata.get("namespace") or "default",
        nodes={
            name: Node(node["routerType"], tuple(_step(one) for one in node.get("steps") or ()))
            for name, node in spec["nodes"].items()
        },
        step_timeout_seconds=float((spec.get("routerTimeouts") or {}).get("serviceClient") or 0),
        timeout_seconds=float(spec.get("timeout") or 0),
        annotations=dict(metadata.get("annotations") or {}),
    )


def _step(spec: Json) -> Step:
    return Step(
        service=spec.get("serviceName") or "",
        url=spec.get("serviceUrl") or "",
        node=spec.get("nodeName") or "",
        name=spec.get("name") or "",
        from_response=spec.get("data") == "$response",
        weight=spec.get("weight") or 0,
        condition=spec.get("condition") or "",
        hard=spec.get("dependency") == "Hard",
        map_predictions=bool(spec.get("mapPredictionsToInstances")),
    )

"""How a service is served, whatever release serves it: what its manifest says beside the model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ondol.records.worker import Scaling

if TYPE_CHECKING:
    from ondol.formats.inference_service import Batcher, Component, InferenceService, Logger

DEFAULT_TIMEOUT_SECONDS = 60.0
_KNATIVE = "autoscaling.knative.dev/"


@dataclass(frozen=True, slots=True)
class Extras:
    """What stands around one component: KServe's batcher and payload logger."""

    namespace: str
    batcher: Batcher | None = None
    logger: Logger | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    """The service's annotations that go into events."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a service is served, whatever release serves it."""

    protocol: str = "v1"
    """Whose V2 dialect is spoken: `v1` KServe's own server, `v2` MLServer."""

    probabilities: bool = False
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    concurrency: int = 0
    """Requests at once; 0: unlimited."""

    scaling: Scaling = field(default_factory=Scaling)
    """Processes of a predictor that runs in processes of its own."""

    parts: Mapping[str, Scaling] = field(default_factory=dict)
    """The components beside the predictor, `transformer` and `explainer`, and their processes."""

    extras: Mapping[str, Extras] = field(default_factory=dict)
    """By component; only those that have some."""


def options_of(service: InferenceService | None) -> Options:
    """Return how a service wants to be served; without a manifest, the defaults."""
    if service is None:
        return Options()
    return Options(
        protocol=service.protocol,
        probabilities=service.probabilities,
        timeout_seconds=service.predictor.timeout_seconds or DEFAULT_TIMEOUT_SECONDS,
        concurrency=service.predictor.container_concurrency,
        scaling=scaling_of(service, service.predictor),
        parts={
            name: scaling_of(service, part)
            for name, part in (("transformer", service.transformer), ("explainer", service.explainer))
            if part is not None
        },
        extras=_extras(service),
    )


def _extras(service: InferenceService) -> dict[str, Extras]:
    found = {}
    parts = {"predictor": service.predictor, "transformer": service.transformer, "explainer": service.explainer}
    for name, part in parts.items():
        if part is not None and (part.batcher or part.logger):
            named = part.logger.metadata_annotations if part.logger else ()
            kept = {key: value for key, value in service.annotations.items() if key in named}
            found[name] = Extras(service.namespace, part.batcher, part.logger, kept)
    return found


def scaling_of(service: InferenceService, part: Component) -> Scaling:
    """Return how the processes of a component scale: KServe's fields, and the annotations Knative reads beside them."""
    notes = {**service.annotations, **part.annotations}
    least = int(_number(notes, "min-scale", part.min_replicas))
    most = int(_number(notes, "max-scale", part.max_replicas))
    return Scaling(
        least=least,
        most=max(1, least) if part.scale_metric in ("cpu", "memory") else most,  # these do not scale here
        metric="rps" if notes.get(_KNATIVE + "metric", part.scale_metric) == "rps" else "concurrency",
        target=_number(notes, "target", part.scale_target),
        limit=part.container_concurrency,
        window_seconds=_seconds(notes, "window", 60.0),
        retention_seconds=_seconds(notes, "scale-to-zero-pod-retention-period", 0.0),
    )


def _number(notes: Mapping[str, str], name: str, otherwise: float) -> float:
    text = notes.get(_KNATIVE + name, "")
    return float(text) if text.replace(".", "", 1).isdigit() else otherwise


def _seconds(notes: Mapping[str, str], name: str, otherwise: float) -> float:
    """Read a duration such as `90s`, `1m30s` or `2h`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", notes.get(_KNATIVE + name, ""))
    return sum(float(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts) if parts else otherwise

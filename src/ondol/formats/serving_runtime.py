"""`ServingRuntime` and `ClusterServingRuntime` as records, and which of them serves a model, as KServe chooses.

KServe's own runtimes of the formats served here are engines of Ondol's; they take part in the choice with the
priorities that KServe gives them. The source of the rules is KServe's controller
(pkg/apis/serving/v1beta1/predictor_model.go, pkg/controller/v1beta1/inferenceservice). Pure: reads no files, no store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ondol.base import errors
from ondol.formats import inference_service
from ondol.formats.inference_service import FORMATS, Component, Container, Env, InferenceService, Model, StorageUri
from ondol.formats.kserve import kinds, placeholders
from ondol.formats.kserve.model import BUILT_IN, RUNTIMES
from ondol.formats.kserve.runtime import CLUSTER_SERVING_RUNTIME, SERVING_RUNTIME
from ondol.formats.kserve.service import INFERENCE_SERVICE
from ondol.formats.resource.checking import Findings, Problem
from ondol.formats.resource.states import refused

Json = dict[str, Any]

KINDS = (SERVING_RUNTIME.kind, CLUSTER_SERVING_RUNTIME.kind)
_PROTOCOLS = ("v1", "v2", "grpc-v1", "grpc-v2")
_TAG = re.compile(r":[\w.\-]*$")
_MLSERVER = ("sklearn", "xgboost", "lightgbm")
"""Formats for which KServe prefers MLServer when v2 is asked for."""


@dataclass(frozen=True, slots=True)
class ModelFormat:
    """One of the formats that a runtime supports."""

    name: str
    version: str = ""
    auto_select: bool = False
    priority: int | None = None


@dataclass(frozen=True, slots=True)
class ServingRuntime:
    """A server of the user's own for models of some formats."""

    name: str
    namespace: str
    """Empty: it is a ClusterServingRuntime, for all of them."""

    formats: tuple[ModelFormat, ...]
    protocols: tuple[str, ...]
    """Empty: any."""

    disabled: bool
    container: Json
    """Its `kserve-container`, with placeholders."""

    created_at: float = 0.0
    """Seconds since the epoch."""

    @property
    def kind(self) -> str:
        return KINDS[0] if self.namespace else KINDS[1]

    def supports(self, model: Model) -> bool:
        """Whether it has the model's format, and its version when it names one; unasked only with `autoSelect`."""
        of_format = [
            one for one in self.formats if one.name == model.format and (model.runtime or one.auto_select)
        ]  # fmt: skip
        return any(model.version in ("", one.version) for one in of_format)

    def speaks(self, protocol: str) -> bool:
        return not protocol or not self.protocols or protocol in self.protocols

    def priority(self, form: str) -> int | None:
        return next((one.priority for one in self.formats if one.name == form), None)

    @property
    def rank(self) -> int:
        """Of its first protocol: the older goes first among equals."""
        return min((_PROTOCOLS.index(one) for one in self.protocols), default=len(_PROTOCOLS))


def typed(manifest: Json, created_at: float = 0.0) -> ServingRuntime:
    """Return the record of a checked manifest."""
    spec, metadata = manifest["spec"], manifest["metadata"]
    cluster = manifest["kind"] == CLUSTER_SERVING_RUNTIME.kind
    return ServingRuntime(
        name=metadata["name"],
        namespace="" if cluster else metadata.get("namespace") or "default",
        formats=tuple(
            ModelFormat(one["name"], one.get("version") or "", bool(one.get("autoSelect")), one.get("priority"))
            for one in spec.get("supportedModelFormats") or []
        ),
        protocols=tuple(spec.get("protocolVersions") or ()),
        disabled=bool(spec.get("disabled")),
        container=next(one for one in spec["containers"] if one["name"] == placeholders.SERVER),
        created_at=created_at,
    )


def among(manifests: Iterable[Json]) -> list[ServingRuntime]:
    """Return the runtimes among manifests of any kinds, those that are valid."""
    return [typed(one) for one in manifests if one.get("kind") in KINDS and not kinds.check(one).problems]


def choose(model: Model, namespace: str, runtimes: Iterable[ServingRuntime]) -> ServingRuntime | None:
    """Return the runtime that serves a model; None: an engine of Ondol's does.

    :param runtimes: all that are applied, in any order and of any namespace.
    :raises InputError: INP-560 when the one it names is not there, INP-561 when that is disabled, INP-562 when that, or
        none at all, supports its format, version and protocol.
    """
    if model.runtime in RUNTIMES:
        return None
    near = [one for one in runtimes if one.namespace in ("", namespace) and one.name not in BUILT_IN]
    if model.runtime:
        return _named(model, near)
    protocol = model.declared_protocol or "v1"
    fit = [one for one in near if not one.disabled and one.supports(model) and one.speaks(protocol)]
    fit.sort(key=lambda one: (one.rank, -one.created_at, one.name))
    fit.sort(key=lambda one: -_order(one.priority(model.format)))
    fit.sort(key=lambda one: not one.namespace)  # stable: the namespace's own go first
    first = next(iter(fit), None)
    if model.format in FORMATS:
        return first if first is not None and (first.namespace or _before_built_in(first, model)) else None
    if first is None:
        raise errors.InputError(
            f"no runtime supports model format {model.format!r} with protocol {protocol}",
            way_out="Apply one that does; `ondol get clusterservingruntimes` lists those that are there.",
            code="INP-562",
        )
    return first


def _order(priority: int | None) -> int:
    return 0 if priority is None else priority  # priorities begin with 1


def _before_built_in(one: ServingRuntime, model: Model) -> bool:
    """Whether a ClusterServingRuntime goes before the one of KServe's whose part an engine plays here.

    Theirs are older than anything applied, so of equals the new one goes first.
    """
    theirs = 2 if model.protocol == "v2" and model.format in _MLSERVER else 1
    own, rank = _order(one.priority(model.format)), _PROTOCOLS.index(model.protocol)
    return own > theirs or (own == theirs and one.rank <= rank)


def _named(model: Model, near: Sequence[ServingRuntime]) -> ServingRuntime:
    found = sorted((one for one in near if one.name == model.runtime), key=lambda one: not one.namespace)
    if not found:
        raise errors.InputError(
            f"no ServingRuntime or ClusterServingRuntime is called {model.runtime!r}",
            way_out="Apply it first.",
            code="INP-560",
        )
    one = found[0]
    if one.disabled:
        raise errors.InputError(f"the {one.kind} {one.name!r} is disabled", code="INP-561")
    if not one.speaks(model.declared_protocol):
        raise errors.InputError(
            f"the {one.kind} {one.name!r} does not speak {model.declared_protocol}, only {', '.join(one.protocols)}",
            code="INP-562",
        )
    if not one.supports(model):
        wanted = f"{model.format} {model.version}".strip()
        raise errors.InputError(f"the {one.kind} {one.name!r} does not support model format {wanted!r}", code="INP-562")
    return one


def check(manifest: Json, known: Callable[[], Sequence[ServingRuntime]]) -> Findings:
    """Return what is to be said of a manifest where runtimes are applied; like `kinds.check`, for any kind.

    :param known: gives the runtimes; called for InferenceServices only.
    """
    paths = inference_service.predictors(manifest) if kinds.find(manifest) is INFERENCE_SERVICE else {}
    service, _ = inference_service.read(manifest, tuple(paths)) if paths else (None, [])
    if service is None:
        return kinds.check(manifest)
    own, wrong = set[str](), list[Problem]()
    runtimes = known()
    for path, part in zip(paths, _predictors(service), strict=True):
        try:
            if part.model is not None and choose(part.model, service.namespace, runtimes) is not None:
                own.add(path)
        except errors.InputError as error:
            if error.code != "INP-560" and part.model is not None and part.model.runtime:
                own.add(path)
                state = refused(error.message, error.way_out)
                wrong.append(Problem(f"{path}.model.runtime", state.text, "refused", state))
    found = kinds.check(manifest, own)
    found.problems += wrong
    return found


def _predictors(service: InferenceService) -> list[Component]:
    return [service.predictor, *(one.predictor for one in service.canary)]


def settled(manifest: Json, runtimes: Sequence[ServingRuntime]) -> tuple[InferenceService, list[ServingRuntime | None]]:
    """Return the record of a stored manifest and who serves its predictors: the first, then the canaries'.

    :raises InputError: when one cannot be chosen, or the manifest is wrong for who is.
    """
    paths = inference_service.predictors(manifest)
    service = inference_service.typed(manifest, own_runtime=tuple(paths))
    chosen = [
        choose(part.model, service.namespace, runtimes) if part.model is not None else None
        for part in _predictors(service)
    ]
    own = [path for path, one in zip(paths, chosen, strict=True) if one is not None]
    return inference_service.typed(manifest, own_runtime=own), chosen


def as_server(service: InferenceService, part: Component, runtime: ServingRuntime) -> Component:
    """Return the component with the runtime's container instead of its model, merged and filled in as KServe does.

    The model's command, image, resources and variables replace the runtime's; its arguments come behind them.
    """
    assert part.model is not None  # it was chosen for it
    model, metadata = part.model, {"name": service.name, "namespace": service.namespace}
    filling = {**metadata, "labels": service.labels, "annotations": service.annotations}
    base = inference_service.container(placeholders.fill(runtime.container, filling))
    server = _merged(base, model.container)
    if model.runtime_version and "@sha256:" not in server.image:
        server = replace(server, image=f"{_TAG.sub('', server.image)}:{model.runtime_version}")
    addresses = part.storage_uris or ((StorageUri(model.storage_uri),) if model.storage_uri else ())
    return replace(part, containers=(server, *part.containers), storage_uris=addresses)


def _merged(base: Container, own: Container) -> Container:
    env: dict[str, Env] = {one.name: one for one in (*base.env, *own.env)}
    return replace(
        base,
        image=own.image or base.image,
        command=own.command or base.command,
        args=(*base.args, *own.args),
        env=tuple(env.values()),
        requests={**base.requests, **own.requests},
        limits={**base.limits, **own.limits},
    )


def protocol(model: Model, runtime: ServingRuntime) -> str:
    """Return what a runtime is spoken to with: what the model asks for, else the first HTTP one it speaks."""
    spoken = [one for one in runtime.protocols if one in ("v1", "v2")]
    return model.declared_protocol or (spoken[0] if model.runtime and spoken else "v1")

"""`InferenceService` v1beta1, declared: every field, its type, and what it does here.

The source of names, types and rules is KServe's own API (pkg/apis/serving/v1beta1 and its validating webhook). Where
KServe's webhook refuses something, the text says it in KServe's words.
"""

from __future__ import annotations

from functools import partial

from ondol.base import errors
from ondol.formats import project
from ondol.formats.kserve import component, model, pod
from ondol.formats.kserve.common import ADDRESS, GROUP, NAME, STOP, named, status
from ondol.formats.resource.kind import Column, Kind
from ondol.formats.resource.states import HONOURED, State, cluster, honoured, no_effect, refused
from ondol.formats.resource.types import (
    Field,
    Flag,
    Free,
    Json,
    ListOf,
    MapOf,
    Object,
    Report,
    Rule,
    Text,
    Whole,
    every,
    one_of,
    texts,
)


def _custom_rules(value: Json, wrong: Report) -> None:
    for index, one in enumerate(value.get("containers") or []):
        blocked = [at for at, env in enumerate(one.get("env") or []) if env["name"] in model.BLOCKED_ENV]
        for at in blocked:
            wrong(f"containers[{index}].env[{at}]", f"{model.BLOCKED_ENV[0]} is not allowed for security reasons")


def _implementations(value: Json) -> list[str]:
    """Return what implements a predictor, as KServe counts it."""
    found = [name for name in ("model", *model.FRAMEWORKS) if name in value]
    containers = value.get("containers") or []
    if containers and (not found or any(one.get("name") == "kserve-container" for one in containers)):
        found.append("containers")
    return found


def _predictor_rules(value: Json, wrong: Report) -> None:
    found = _implementations(value)
    if len(found) != 1:
        listed = f", not {' and '.join(found)}" if found else ""
        wrong("", f"must have exactly one of: model, containers, {', '.join(model.FRAMEWORKS)}{listed}")
        return
    if found == ["containers"]:
        _custom_protocol(value["containers"][0], wrong)
    elif not any(value[found[0]].get(name) for name in ("storageUri", "storage")) and not value.get("storageUris"):
        wrong(f"{found[0]}.storageUri", model.NO_FILES)
    elif value[found[0]].get("storageUri") is not None and value.get("storageUris"):
        wrong("storageUris", "Setting both StorageURI and StorageURIs is not supported.")
    for index, one in enumerate(value.get("containers") or []):
        if one.get("name") == "transformer-container" and any(e["name"] == "STORAGE_URI" for e in one.get("env") or []):
            wrong(f"containers[{index}].env", "storage uri should not be specified in transformer container")


def _custom_protocol(container: Json, wrong: Report) -> None:
    for index, one in enumerate(container.get("env") or []):
        if one["name"] == "PROTOCOL" and one.get("value") not in ("v1", "v2"):
            wrong(f"containers[0].env[{index}].value", f"invalid protocol {one.get('value')}. Must be one of [v1, v2]")


def _one_of(names: tuple[str, ...], value: Json, wrong: Report) -> None:
    found = [name for name in names if value.get(name)]
    if len(found) != 1:
        wrong("", f"must have exactly one of: {', '.join(names)}{', not ' + ' and '.join(found) if found else ''}")


def _variant_rules(value: Json, wrong: Report) -> None:
    chosen = value.get("model") or {}
    form, runtime = (chosen.get("modelFormat") or {}).get("name"), chosen.get("runtime")
    protocol = chosen.get("protocolVersion")
    if runtime in model.ONE_FORMAT and form != model.ONE_FORMAT[runtime]:
        wrong("model.runtime", f"runtime {runtime!r} does not support model format {form!r}")
    if runtime == "kserve-mlserver" and protocol not in (None, "v2"):
        wrong("model.protocolVersion", f"runtime {runtime!r} speaks v2 only, not {protocol!r}")


PREDICTOR_FIELDS: dict[str, Field] = component.component(
    {
        "model": Field(model.model(), about="A model and its format."),
        **{name: model.framework(name) for name in model.FRAMEWORKS},
        "containers": Field(ListOf(pod.custom_container()), about="A server of your own, as a process."),
        "storageUris": Field(component.STORAGE_URIS, about="Several addresses, each in a folder of its own."),
        "name": Field(Text(pattern=NAME), about="The variant, for `spec.canary[]`: renaming it promotes."),
        "storageContainerName": Field(Text(), cluster("it names a ClusterStorageContainer")),
        "workerSpec": Field(Free(), cluster("it spreads one model over several machines")),
    }
)
PREDICTOR_RULES: tuple[Rule, ...] = (
    _predictor_rules, _custom_rules, _variant_rules, *component.EXTENSION_RULES,
)  # fmt: skip
PREDICTOR = Object(PREDICTOR_FIELDS, rules=PREDICTOR_RULES)
_TRANSFORMER = Object(
    component.component(
        {
            "containers": Field(ListOf(pod.custom_container()), about="The transformer's server."),
            "storageUris": Field(component.STORAGE_URIS, about="Several addresses, each in a folder of its own."),
        }
    ),
    rules=(partial(_one_of, ("containers",)), _custom_rules, *component.EXTENSION_RULES),
)
_EXPLAINER = Object(
    component.component(
        {
            "art": Field(
                Object(
                    {
                        **model.art_fields(),
                        "type": Field(Text({"SquareAttack": HONOURED})),
                        "config": Field(texts()),
                    }
                ),
                refused("the ART explainer is an image", "give a container of your own"),
            ),
            "containers": Field(ListOf(pod.custom_container()), about="The explainer's server."),
            "storageUris": Field(component.STORAGE_URIS, about="Several addresses, each in a folder of its own."),
        }
    ),
    rules=(partial(_one_of, ("containers", "art")), _custom_rules, *component.EXTENSION_RULES),
)


def _canary_rules(value: Json, wrong: Report) -> None:
    """KServe's validating webhook on `spec.canary[]`, in its order and words."""
    stable, seen, total = value["predictor"], set[str](), 0
    for index, one in enumerate(value.get("canary") or []):
        at, predictor = f"canary[{index}].predictor", one["predictor"]
        name = predictor.get("name", "")
        if not name:
            wrong(f"{at}.name", f"canary[{index}] predictor.name is required")
        if name in seen:
            wrong(f"{at}.name", f'canary predictor.name "{name}" is duplicated')
        if name and name == stable.get("name"):
            wrong(f"{at}.name", f'canary predictor.name "{name}" conflicts with stable predictor name')
        seen.add(name)
        total += one["trafficPercent"]
        if "workerSpec" in predictor:
            wrong(f"{at}.workerSpec", f'canary "{name}" must not set workerSpec')
        for field in ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling"):
            if predictor.get(field):
                wrong(f"{at}.{field}", f'canary "{name}" must not set {field} (canary uses fixed replicas)')
        least, most = predictor.get("minReplicas", 0), stable.get("minReplicas", 1)
        if least > most:
            wrong(
                f"{at}.minReplicas",
                f'canary "{name}" minReplicas ({least}) must not exceed stable predictor minReplicas ({most})',
            )
    if total > 100:
        wrong("canary", f"sum of canary trafficPercent values ({total}) must be <= 100")


_VARIANT = Object(
    {
        **PREDICTOR_FIELDS,
        "model": Field(model.model(variant=True), about="A model and its format."),
        **{name: model.framework(name, variant=True) for name in model.FRAMEWORKS},
        "ephemeralContainers": Field(Free(), cluster("they are for debugging pods")),
    },
    rules=PREDICTOR_RULES,
)
"""A canary's predictor: the same, but that a model may name its container."""

_CANARY = Object(
    {
        "predictor": Field(_VARIANT, required=True, about="The variant, with a name of its own."),
        "trafficPercent": Field(Whole(0, 100), required=True, about="Its share; 0: none, only by its own address."),
    }
)
SPEC = Object(
    {
        "predictor": Field(PREDICTOR, required=True, about="What predicts."),
        "transformer": Field(
            _TRANSFORMER, about="What stands before the predictor, as a process.",
        ),
        "explainer": Field(
            _EXPLAINER, about="What answers `:explain`, as a process.",
        ),
        "canary": Field(
            ListOf(_CANARY), about="Named variants beside the predictor, for clusters in Standard mode."
        ),
    },
    rules=(_canary_rules,),
)  # fmt: skip

TRIAL = "ondol.io/rollout"
"""The annotation that has a new model tried and judged, as `rollout` in `ondol.yaml` says."""

_MODES = ("Standard", "Knative", "RawDeployment", "Serverless")
_CLASSES = ("hpa", "external", "keda", "none", "kpa")


def _service_rules(value: Json, wrong: Report) -> None:
    """What concerns the manifest as a whole: its name, its annotations."""
    metadata, spec = value["metadata"], value["spec"]
    annotations = metadata.get("annotations") or {}
    mode = annotations.get(f"{GROUP}/deploymentMode", "")
    if mode and mode not in _MODES:
        wrong(f"metadata.annotations.{GROUP}/deploymentMode", f"must be Standard or Knative, not {mode!r}")
    if spec.get("canary") and mode not in ("Standard", "RawDeployment"):
        wrong("spec.canary", "canary is only supported in Standard deployment mode")
    _trial_rules(annotations, spec, wrong)
    scaler = annotations.get(f"{GROUP}/autoscalerClass")
    if scaler is not None and scaler not in _CLASSES:
        wrong(f"metadata.annotations.{GROUP}/autoscalerClass", f"[{scaler}] is not a supported autoscaler class type")
    if mode in ("Standard", "RawDeployment"):
        _standard_mode(spec, scaler or "hpa", wrong)


def _trial_rules(annotations: Json, spec: Json, wrong: Report) -> None:
    """What Ondol's own annotation says, which means nothing to a cluster."""
    text = annotations.get(TRIAL)
    if text is None:
        return
    at = f"metadata.annotations.{TRIAL}"
    try:
        project.rollout_policy(str(text), at)
    except errors.InputError as error:
        wrong(at, error.message)
    percent = (spec.get("predictor") or {}).get("canaryTrafficPercent")
    if spec.get("canary") or percent is not None:
        field = "spec.canary" if spec.get("canary") else "spec.predictor.canaryTrafficPercent"
        wrong(at, f"a judged trial and {field} both move traffic: keep one")


def _standard_mode(spec: Json, scaler: str, wrong: Report) -> None:
    for part in ("predictor", "transformer", "explainer"):
        metric = (spec.get(part) or {}).get("scaleMetric")
        if metric in ("concurrency", "rps") and scaler == "hpa":
            wrong(f"spec.{part}.scaleMetric", f"[{metric}] is not a supported metric in Standard deployment mode")
        if metric and scaler == "keda":
            wrong(f"spec.{part}.scaleMetric", "ScaleMetric is not supported for KEDA")


_MODEL_STATUS = Object(
    {
        "transitionStatus": Field(
            one_of("", "UpToDate", "InProgress", "BlockedByFailedLoad", "InvalidSpec"),
            required=True,
            default="UpToDate",
            about="Whether what was asked for serves.",
        ),
        **every("copies lastFailureInfo states", HONOURED),
    }
)
_CANARY_STATUS = Object(
    {
        "name": Field(Text(), required=True),
        "ready": Field(Flag(), required=True),
        "trafficPercent": Field(Whole(), required=True),
        "modelStatus": Field(_MODEL_STATUS),
    }
)
STATUS = status(
    address=Field(ADDRESS),
    canaryStatuses=Field(ListOf(_CANARY_STATUS)),
    clusterServingRuntimeName=Field(Text()),
    components=Field(
        MapOf(
            Object(
                every(
                    "address grpcUrl latestCreatedRevision latestReadyRevision latestRolledoutRevision "
                    "previousRolledoutRevision restUrl traffic url",
                    HONOURED,
                )
            )
        )
    ),
    deploymentMode=Field(Text()),
    modelStatus=Field(_MODEL_STATUS),
    servingRuntimeName=Field(Text()),
)
_NO_POD = no_effect("there is no pod to scale or to place")
_ALWAYS = no_effect("`/metrics` is always there")
ANNOTATIONS: dict[str, State] = {
    STOP: HONOURED,
    f"{GROUP}/deploymentMode": honoured("which of KServe's two canaries and scalers the file is checked for"),
    f"{GROUP}/autoscalerClass": _NO_POD,
    f"{GROUP}/metrics": _NO_POD,
    f"{GROUP}/targetUtilizationPercentage": _NO_POD,
    f"{GROUP}/gke-accelerator": _NO_POD,
    f"{GROUP}/gpu-resource-types": _NO_POD,
    f"{GROUP}/nodegroup": _NO_POD,
    **{
        f"autoscaling.knative.dev/{name}": _NO_POD
        for name in ("class", "metric", "target", "min-scale", "max-scale", "initial-scale", "window")
    },
    f"{GROUP}/enable-tag-routing": no_effect("revisions have no address of their own"),
    f"{GROUP}/enable-prometheus-scraping": _ALWAYS,
    f"{GROUP}/enable-metric-aggregation": _ALWAYS,
    f"{GROUP}/disable-auto-update": no_effect("a service keeps its runtime until its manifest changes"),
    f"{GROUP}/disable-localmodel": no_effect("fetched files are always kept"),
    "storage.kserve.io/readonly": no_effect("fetched files are copies"),
    "sidecar.istio.io/inject": no_effect("there is no mesh"),
}
_TAGGED = ".status.components.predictor.traffic[?(@.{})].{}"
INFERENCE_SERVICE = Kind(
    group=GROUP,
    version="v1beta1",
    kind="InferenceService",
    plural="inferenceservices",
    short=("isvc",),
    spec=SPEC,
    status=STATUS,
    rules=(named, _service_rules),
    annotations=ANNOTATIONS,
    columns=(
        Column("URL", ".status.url"),
        Column("Ready", ".status.conditions[?(@.type=='Ready')].status"),
        Column("Prev", _TAGGED.format("tag=='prev'", "percent"), "integer"),
        Column("Latest", _TAGGED.format("latestRevision==true", "percent"), "integer"),
        Column("PrevRolledoutRevision", _TAGGED.format("tag=='prev'", "revisionName")),
        Column("LatestReadyRevision", _TAGGED.format("latestRevision==true", "revisionName")),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)

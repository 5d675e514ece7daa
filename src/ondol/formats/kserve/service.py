"""`InferenceService` v1beta1, declared: every field, its type, and what it does here.

The source of names, types and rules is KServe's own API (pkg/apis/serving/v1beta1 and its validating webhook). Where
KServe's webhook refuses something, the text says it in KServe's words.
"""

from __future__ import annotations

import re
from functools import partial

from ondol.formats.kserve import component, pod
from ondol.formats.resource.kind import Column, Kind
from ondol.formats.resource.states import HONOURED, State, cluster, honoured, no_effect, not_yet, refused
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
    texts,
)

GROUP = "serving.kserve.io"
NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
BLOCKED_ENV = ("PYTHONPATH",)

_NEEDS_LIBRARY = "its library is not loaded here"
MODEL_FORMATS: dict[str, State] = {
    "sklearn": HONOURED,
    "mlflow": HONOURED,
    "xgboost": HONOURED,
    "lightgbm": HONOURED,
    "catboost": HONOURED,
    "onnx": HONOURED,
    "pytorch": not_yet(_NEEDS_LIBRARY),
    "huggingface": not_yet(_NEEDS_LIBRARY),
    "tensorflow": refused("TensorFlow models are not loaded here", "log it with MLflow and use `mlflow`"),
    "triton": refused("there is no Triton here", "use the model's own format"),
    "pmml": refused("PMML is not read here"),
    "paddle": refused("Paddle models are not loaded here"),
    "vLLM": refused("there is no vLLM here", "use an LLM application with `gguf:` or an endpoint"),
}
"""What `modelFormat.name` may be. To serve a format: build it, and write `HONOURED` here."""

PROTOCOLS: dict[str, State] = {
    "v1": HONOURED,
    "v2": HONOURED,
    "grpc-v1": refused("V1 has no gRPC form that a server here speaks", "use grpc-v2"),
    "grpc-v2": not_yet("gRPC is not served", "use v2"),
}
RUNTIMES: dict[str, State] = {
    "kserve-sklearnserver": HONOURED,
    "kserve-mlserver": HONOURED,
    "kserve-xgbserver": HONOURED,
    "kserve-lgbserver": HONOURED,
    "kserve-predictiveserver": HONOURED,
}
"""Serving runtimes of KServe whose answers are given here; others are refused."""

_ONE_FORMAT = {"kserve-sklearnserver": "sklearn", "kserve-xgbserver": "xgboost", "kserve-lgbserver": "lightgbm"}
"""The runtimes that serve one format only."""

MODEL_ENV: dict[str, State] = {"PREDICT_PROBA": honoured("a classifier answers with probabilities")}
OTHER_ENV = not_yet("models share one process, so it cannot be set per model")

FRAMEWORKS = (
    "sklearn", "xgboost", "tensorflow", "pytorch", "triton", "onnx", "huggingface", "pmml", "lightgbm", "paddle",
)  # fmt: skip
"""KServe's older keys: `predictor.sklearn` is `predictor.model` without its format."""

_STORAGE = Object(
    {
        "key": Field(Text(), about="Which entry of the storage Secret."),
        "path": Field(Text(), about="Where in the bucket."),
        "parameters": Field(texts(), about="Overrides of the entry, such as `type` and `bucket`."),
        "schemaPath": Field(Text(), refused("the model's own signature is used")),
    }
)


def _model_name(value: Json, wrong: Report) -> None:
    if value.get("name"):
        wrong("name", "the 'name' field is not allowed in standard predictor")


def _blocked_env(value: Json, wrong: Report) -> None:
    for index, one in enumerate(value.get("env") or []):
        if one["name"] in BLOCKED_ENV:
            wrong(f"env[{index}]", f"setting {one['name']} is not allowed for security reasons")


_MODEL_RULES: tuple[Rule, ...] = (_model_name, _blocked_env)
_OWN_SERVER = "models run in Ondol's own server, not in an image"


def _model_fields() -> dict[str, Field]:
    return pod.container(
        storageUri=Field(Text(), about="Where the model's files are."),
        protocolVersion=Field(Text(PROTOCOLS), about="v1 or v2: which runtime answers, and in which dialect."),
        storage=Field(_STORAGE, not_yet("the storage Secret is not read", "write the whole address in storageUri")),
        runtimeVersion=Field(Text(), refused("the model decides what it needs; there is one runtime")),
        confidential=Field(
            Object({"enabled": Field(Flag(), required=True), "resourceId": Field(Text())}),
            cluster("it needs a trusted execution environment"),
        ),
        name=Field(Text(), refused("the container's name is KServe's own")),
        image=Field(Text(), refused(_OWN_SERVER)),
        imagePullPolicy=Field(Text(), refused(_OWN_SERVER)),
        command=Field(ListOf(Text()), refused(_OWN_SERVER)),
        args=Field(ListOf(Text()), not_yet("Ondol's own server takes no arguments")),
        env=Field(pod.env(Text(MODEL_ENV, OTHER_ENV)), about="Variables of the server."),
        resources=Field(
            pod.RESOURCES, no_effect("one data plane serves every model"), "What the model may use."
        ),
    )  # fmt: skip


MODEL = Object(
    {
        "modelFormat": Field(
            Object(
                {
                    "name": Field(Text(MODEL_FORMATS, refused("no runtime here supports it")), required=True),
                    "version": Field(Text(), no_effect("the model's own recorded version is checked instead")),
                }
            ),
            about="What wrote the model.",
            required=True,
        ),
        "runtime": Field(Text(RUNTIMES, refused("there is no such runtime here")), about="A runtime by name."),
        **_model_fields(),
    },
    rules=_MODEL_RULES,
)


def _framework(name: str) -> Field:
    return Field(Object(_model_fields(), rules=_MODEL_RULES), MODEL_FORMATS[name], f"`model` with format {name}.")


_CUSTOM = not_yet("custom containers are images, which this machine does not run")


def _custom_rules(value: Json, wrong: Report) -> None:
    for index, one in enumerate(value.get("containers") or []):
        _blocked_env(one, lambda path, reason, at=index: wrong(f"containers[{at}].{path}", reason))


def _implementations(value: Json) -> list[str]:
    """Return what implements a predictor, as KServe counts it."""
    found = [name for name in ("model", *FRAMEWORKS) if name in value]
    containers = value.get("containers") or []
    if containers and (not found or any(one.get("name") == "kserve-container" for one in containers)):
        found.append("containers")
    return found


def _predictor_rules(value: Json, wrong: Report) -> None:
    found = _implementations(value)
    if len(found) != 1:
        listed = f", not {' and '.join(found)}" if found else ""
        wrong("", f"must have exactly one of: model, containers, {', '.join(FRAMEWORKS)}{listed}")
        return
    if found == ["containers"]:
        _custom_protocol(value["containers"][0], wrong)
    elif not any(value[found[0]].get(name) for name in ("storageUri", "storage")) and not value.get("storageUris"):
        wrong(f"{found[0]}.storageUri", "is required: where the model's files are")
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
    model = value.get("model") or {}
    form, runtime = (model.get("modelFormat") or {}).get("name"), model.get("runtime")
    protocol = model.get("protocolVersion")
    if runtime in _ONE_FORMAT and form != _ONE_FORMAT[runtime]:
        wrong("model.runtime", f"runtime {runtime!r} does not support model format {form!r}")
    if runtime == "kserve-mlserver" and protocol not in (None, "v2"):
        wrong("model.protocolVersion", f"runtime {runtime!r} speaks v2 only, not {protocol!r}")


PREDICTOR_FIELDS: dict[str, Field] = component.component(
    {
        "model": Field(MODEL, about="A model and its format."),
        **{name: _framework(name) for name in FRAMEWORKS},
        "containers": Field(ListOf(pod.custom_container()), _CUSTOM, "A server of your own."),
        "storageUris": Field(component.STORAGE_URIS, not_yet("one model, one `model.storageUri`")),
        "name": Field(
            Text(pattern=NAME), not_yet("variants are named by `spec.canary[]`, which is not honoured"), "The variant."
        ),
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
            "storageUris": Field(component.STORAGE_URIS, not_yet("one model, one `model.storageUri`")),
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
                        **_model_fields(),
                        "type": Field(Text({"SquareAttack": HONOURED})),
                        "config": Field(texts()),
                    }
                ),
                refused("the ART explainer is an image", "give a container of your own"),
            ),
            "containers": Field(ListOf(pod.custom_container()), about="The explainer's server."),
            "storageUris": Field(component.STORAGE_URIS, not_yet("one model, one `model.storageUri`")),
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


_CANARY = Object(
    {
        "predictor": Field(PREDICTOR, required=True, about="The variant, with a name of its own."),
        "trafficPercent": Field(Whole(0, 100), required=True, about="Its share; 0: none, only by its own address."),
    }
)
SPEC = Object(
    {
        "predictor": Field(PREDICTOR, required=True, about="What predicts."),
        "transformer": Field(
            _TRANSFORMER, not_yet("transformers run in a process of their own, which is not started"),
            "What stands before the predictor.",
        ),
        "explainer": Field(
            _EXPLAINER, not_yet("explainers run in a process of their own, which is not started"),
            "What answers `:explain`.",
        ),
        "canary": Field(
            ListOf(_CANARY),
            not_yet("named canaries are not honoured", "use `predictor.canaryTrafficPercent`"),
            "Named variants beside the predictor, for clusters in Standard mode.",
        ),
    },
    rules=(_canary_rules,),
)  # fmt: skip

_MODES = ("Standard", "Knative", "RawDeployment", "Serverless")
_CLASSES = ("hpa", "external", "keda", "none", "kpa")


def _service_rules(value: Json, wrong: Report) -> None:
    """What concerns the manifest as a whole: its name, its annotations."""
    metadata, spec = value["metadata"], value["spec"]
    name = metadata.get("name", "")
    if not re.fullmatch(NAME, name) or len(name) > 63:
        wrong(
            "metadata.name",
            f"{name!r} must be at most 63 lower case letters, digits and '-', beginning with a letter",
        )
    annotations = metadata.get("annotations") or {}
    mode = annotations.get(f"{GROUP}/deploymentMode", "")
    if mode and mode not in _MODES:
        wrong(f"metadata.annotations.{GROUP}/deploymentMode", f"must be Standard or Knative, not {mode!r}")
    if spec.get("canary") and mode not in ("Standard", "RawDeployment"):
        wrong("spec.canary", "canary is only supported in Standard deployment mode")
    scaler = annotations.get(f"{GROUP}/autoscalerClass")
    if scaler is not None and scaler not in _CLASSES:
        wrong(f"metadata.annotations.{GROUP}/autoscalerClass", f"[{scaler}] is not a supported autoscaler class type")
    if mode in ("Standard", "RawDeployment"):
        _standard_mode(spec, scaler or "hpa", wrong)


def _standard_mode(spec: Json, scaler: str, wrong: Report) -> None:
    for part in ("predictor", "transformer", "explainer"):
        metric = (spec.get(part) or {}).get("scaleMetric")
        if metric in ("concurrency", "rps") and scaler == "hpa":
            wrong(f"spec.{part}.scaleMetric", f"[{metric}] is not a supported metric in Standard deployment mode")
        if metric and scaler == "keda":
            wrong(f"spec.{part}.scaleMetric", "ScaleMetric is not supported for KEDA")


_CONDITION = Object(
    every("lastTransitionTime message reason severity status type", HONOURED),
    about="One thing that is so, or is not.",
)
_MODEL_STATUS = Object(every("copies lastFailureInfo states transitionStatus", HONOURED))
STATUS = Object(
    {
        "address": Field(Object(every("CACerts audience name url", HONOURED))),
        "annotations": Field(texts()),
        "canaryStatuses": Field(ListOf(Object(every("modelStatus name ready trafficPercent", HONOURED)))),
        "clusterServingRuntimeName": Field(Text()),
        "components": Field(
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
        "conditions": Field(ListOf(_CONDITION)),
        "deploymentMode": Field(Text()),
        "modelStatus": Field(_MODEL_STATUS),
        "observedGeneration": Field(Whole(0, 2**63 - 1)),
        "servingRuntimeName": Field(Text()),
        "url": Field(Text(), about="Where it answers."),
    }
)
_TAGGED = ".status.components.predictor.traffic[?(@.{})].{}"
INFERENCE_SERVICE = Kind(
    group=GROUP,
    version="v1beta1",
    kind="InferenceService",
    plural="inferenceservices",
    short=("isvc",),
    spec=SPEC,
    status=STATUS,
    rules=(_service_rules,),
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

"""KServe `InferenceService` v1beta1: text to a typed record, every field honoured, refused with a reason, or unknown.

Pure: reads no files, no network, no environment. What a field does is decided elsewhere; here it is only said whether
this backend honours it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

import yaml

from ondol.base import errors

Json = dict[str, Any]

KIND = "InferenceService"
API_VERSION = "serving.kserve.io/v1beta1"
FORMATS = ("sklearn", "mlflow")
RUNTIMES = {"kserve-sklearnserver": "sklearn", "kserve-mlserver": "", "kserve-predictiveserver": "sklearn"}
"""Serving runtimes whose answers we give, and the one model format they are for (empty: any of ours)."""

SCALE_METRICS = ("cpu", "memory", "concurrency", "rps")
STOP_ANNOTATION = "serving.kserve.io/stop"
HONOURED_ENV = ("PREDICT_PROBA",)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LATER = "only its own model formats are served by this backend so far"
_OWN_SERVER = "it needs a server of its own, which this backend does not start"
_CLUSTER = "it has a meaning on a cluster only"
_FRAMEWORKS = _words("xgboost tensorflow pytorch triton onnx huggingface pmml lightgbm paddle")  # KServe's older keys
_REFUSED_SPEC = {
    "transformer": "transformers run in a process of their own, which this backend does not start yet",
    "explainer": "explainers run in a process of their own, which this backend does not start yet",
    "canary": "named canaries are not honoured yet; `predictor.canaryTrafficPercent` is",
}
_REFUSED_PREDICTOR = {
    **dict.fromkeys(_FRAMEWORKS, f"{_OWN_SERVER}; {_LATER}"),
    "containers": "custom containers are images, which this machine does not run",
    "workerSpec": _CLUSTER,
    "storageUris": "one model, one `model.storageUri`",
    "batcher": "requests are batched without waiting already; KServe's batcher changes the answer's shape",
    "logger": "CloudEvents are not sent yet; requests are in Ondol's own request log",
    "autoScaling": "autoscaling is by scaleMetric only",
    "scaleMetricType": "autoscaling is by scaleMetric only",
    "deploymentStrategy": "a new model is always loaded before the old one goes",
    **dict.fromkeys(
        _words(
            "serviceAccountName volumes nodeSelector tolerations affinity imagePullSecrets initContainers hostNetwork "
            "securityContext runtimeClassName schedulerName priorityClassName restartPolicy "
            "terminationGracePeriodSeconds topologySpreadConstraints dnsPolicy confidential storageContainerName name"
        ),
        _CLUSTER,
    ),
}
_REFUSED_MODEL = {
    "storage": "write the whole address in storageUri",
    "image": "models run in Ondol's own process, not in an image",
    "command": "models run in Ondol's own process",
    "args": "models run in Ondol's own process, which takes no arguments",
    "runtimeVersion": "the model decides what it needs; there is one runtime",
    **dict.fromkeys(
        _words(
            "ports volumeMounts volumeDevices envFrom securityContext imagePullPolicy lifecycle workingDir stdin tty "
            "terminationMessagePath livenessProbe readinessProbe startupProbe"
        ),
        _CLUSTER,
    ),
}
_METADATA = _words(
    "name namespace labels annotations creationTimestamp generation resourceVersion uid managedFields finalizers "
    "selfLink"
)
_PREDICTOR = _words(
    "model sklearn minReplicas maxReplicas scaleTarget scaleMetric containerConcurrency timeout canaryTrafficPercent "
    "labels annotations"
)
_MODEL = _words("modelFormat protocolVersion storageUri runtime env resources name")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUANTITY = re.compile(r"\d+(\.\d+)?([eE][-+]?\d+|[munkMGTPE]|[KMGTPE]i)?")


@dataclass(frozen=True, slots=True)
class Problem:
    """One field that keeps a manifest from being applied."""

    path: str
    reason: str
    unsupported: bool = False
    """True: a valid field of KServe that this backend does not honour. False: the manifest is wrong."""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class InferenceService:
    """What one manifest asks for."""

    name: str
    namespace: str
    storage_uri: str
    format: str
    """`sklearn` or `mlflow`."""

    protocol: str = "v1"
    """`v1` or `v2`: which runtime KServe would select, and so the dialect of V2 answers."""

    runtime: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    resources: Json = field(default_factory=dict)
    min_replicas: int = 1
    max_replicas: int = 0
    """0: as many as there are by default."""

    scale_target: int = 0
    scale_metric: str = ""
    container_concurrency: int = 0
    """Requests at once in the model; 0: unlimited."""

    timeout_seconds: float = 0.0
    """0: the server's default."""

    canary_percent: int | None = None
    """Percent of traffic for the newest model; None: all of it."""

    @property
    def stopped(self) -> bool:
        return self.annotations.get(STOP_ANNOTATION, "").lower() == "true"

    @property
    def probabilities(self) -> bool:
        """Whether a classifier answers with probabilities (KServe's PREDICT_PROBA)."""
        return self.env.get("PREDICT_PROBA", "").lower() == "true"


class _Reader:
    """Walks one manifest and collects every problem with its path."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def wrong(self, path: str, reason: str) -> None:
        self.problems.append(Problem(path, reason))

    def fields(self, value: object, path: str, known: AbstractSet[str], refused: Mapping[str, str]) -> Json:
        """Return the mapping's known fields; the others become problems."""
        if not isinstance(value, dict):
            self.wrong(path, f"must be a mapping, not {_show(value)}")
            return {}
        for key, inner in value.items():
            if key in known or (key in refused and inner is None):
                continue
            if key in refused:
                self.problems.append(Problem(f"{path}.{key}", refused[key], unsupported=True))
            else:
                self.wrong(f"{path}.{key}", "unknown field")
        return {key: inner for key, inner in value.items() if key in known and inner is not None}

    def text(self, value: object, path: str) -> str:
        if isinstance(value, str):
            return value
        self.wrong(path, f"must be a string, not {_show(value)}")
        return ""

    def whole(self, value: object, path: str, low: int, high: int = 2**31 - 1) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        self.wrong(path, f"must be a whole number from {low} to {high}, not {_show(value)}")
        return low

    def texts(self, value: object, path: str) -> dict[str, str]:
        if not isinstance(value, dict):
            self.wrong(path, f"must be a mapping, not {_show(value)}")
            return {}
        return {str(key): self.text(inner, f"{path}.{key}") for key, inner in value.items()}


def _show(value: object) -> str:
    return "null" if value is None else repr(value)[:80]


def documents(text: str, source: str = "") -> list[Json]:
    """Return the resources in a YAML text: several documents, and `kind: List`, are unrolled.

    :raises InputError: for broken YAML or a document that is no Kubernetes object, with the line.
    """
    found: list[Json] = []
    try:
        for number, document in enumerate(yaml.safe_load_all(text), start=1):
            if document is None:
                continue
            if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
                raise errors.InputError(
                    f"document {number} is not a Kubernetes object: it has no 'kind'", where=source, code="INP-010"
                )
            items = document.get("items") if document["kind"] == "List" else None
            found.extend(item for item in items if isinstance(item, dict)) if items else found.append(document)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or error
        raise errors.InputError(f"not valid YAML: {reason}", where=f"{source}{line}", code="INP-010") from error
    return found


def read(manifest: Json) -> tuple[InferenceService | None, list[Problem]]:
    """Return the record (None when something is wrong or refused) and every problem found."""
    reader = _Reader()
    top = reader.fields(manifest, "", {"apiVersion", "kind", "metadata", "spec", "status"}, {})
    if top.get("apiVersion") != API_VERSION:
        reader.wrong("apiVersion", f"must be {API_VERSION!r}, not {_show(top.get('apiVersion'))}")
    metadata = reader.fields(top.get("metadata", {}), "metadata", _METADATA, {"ownerReferences": _CLUSTER})
    name = reader.text(metadata.get("name"), "metadata.name")
    if name and (not _NAME.fullmatch(name) or len(name) > 63):
        reader.wrong(
            "metadata.name",
            f"{name!r} must be at most 63 lower case letters, digits and '-', beginning with a letter",
        )
    spec = reader.fields(top.get("spec"), "spec", {"predictor"}, _REFUSED_SPEC)
    predictor = reader.fields(spec.get("predictor"), "spec.predictor", _PREDICTOR, _REFUSED_PREDICTOR)
    if not any(problem.path.startswith("spec.predictor.") for problem in reader.problems) or predictor:
        model = _model(reader, predictor)
    else:
        model = {}
    scaling = _scaling(reader, predictor)
    for problem_path, value in (("metadata.labels", metadata.get("labels")),):
        if value is not None:
            reader.texts(value, problem_path)
    annotations = reader.texts(metadata.get("annotations", {}), "metadata.annotations")
    if reader.problems:
        return None, reader.problems
    service = InferenceService(
        name=name,
        namespace=str(metadata.get("namespace") or "default"),
        labels=dict(metadata.get("labels", {})),
        annotations=annotations,
        **model,
        **scaling,
    )
    return service, []


def _model(reader: _Reader, predictor: Json) -> Json:
    """Read `predictor.model`, or the older `predictor.sklearn`, which is the same without a format."""
    keys = [key for key in ("model", "sklearn") if key in predictor]
    if len(keys) != 1:
        refused = any(problem.path.rpartition(".")[2] in (*_FRAMEWORKS, "containers") for problem in reader.problems)
        if keys or not refused:
            reader.wrong("spec.predictor", "must have exactly one of: model, sklearn")
        return {}
    path = f"spec.predictor.{keys[0]}"
    model = reader.fields(predictor[keys[0]], path, _MODEL, _REFUSED_MODEL)
    chosen = "sklearn" if keys[0] == "sklearn" else _format(reader, model, path)
    protocol = model.get("protocolVersion", "v2" if chosen == "mlflow" else "v1")
    if protocol in ("grpc-v1", "grpc-v2"):
        reader.problems.append(Problem(f"{path}.protocolVersion", f"{protocol!r}: gRPC is not served yet", True))
    elif protocol not in ("v1", "v2"):
        reader.wrong(f"{path}.protocolVersion", f"must be 'v1' or 'v2', not {_show(protocol)}")
    uri = reader.text(model.get("storageUri"), f"{path}.storageUri") if "storageUri" in model else ""
    if not uri and not any(problem.path.startswith(f"{path}.storage") for problem in reader.problems):
        reader.wrong(f"{path}.storageUri", "is required: where the model's files are")
    runtime = model.get("runtime", "")
    if runtime and RUNTIMES.get(str(runtime), "?") not in ("", chosen):
        reason = f"no runtime {runtime!r} for {chosen!r} here; known: {', '.join(RUNTIMES)}"
        reader.problems.append(Problem(f"{path}.runtime", reason, True))
    if runtime == "kserve-mlserver" and protocol != "v2":
        reader.wrong(f"{path}.protocolVersion", "runtime 'kserve-mlserver' speaks v2 only")
    return {
        "storage_uri": uri,
        "format": chosen,
        "protocol": protocol,
        "runtime": str(runtime),
        "env": _env(reader, model.get("env", []), f"{path}.env"),
        "resources": _resources(reader, model.get("resources", {}), f"{path}.resources"),
    }


def _format(reader: _Reader, model: Json, path: str) -> str:
    declared = reader.fields(model.get("modelFormat"), f"{path}.modelFormat", {"name", "version"}, {})
    name = reader.text(declared.get("name"), f"{path}.modelFormat.name") if declared else ""
    if name and name not in FORMATS:
        reason = f"{name!r} is not served by this backend yet; served: {', '.join(FORMATS)}"
        reader.problems.append(Problem(f"{path}.modelFormat.name", reason, True))
    return name


def _env(reader: _Reader, value: object, path: str) -> dict[str, str]:
    if not isinstance(value, list):
        reader.wrong(path, f"must be a list, not {_show(value)}")
        return {}
    found: dict[str, str] = {}
    for index, entry in enumerate(value):
        here = f"{path}[{index}]"
        entry = reader.fields(entry, here, {"name", "value"}, {"valueFrom": _CLUSTER})
        name = reader.text(entry.get("name"), f"{here}.name") if entry else ""
        if name and name not in HONOURED_ENV:
            reason = f"{name!r}: models share one process, so only {', '.join(HONOURED_ENV)} can be set per model"
            reader.problems.append(Problem(here, reason, True))
        found[name] = reader.text(entry.get("value", ""), f"{here}.value")
    return found


def _resources(reader: _Reader, value: object, path: str) -> Json:
    resources = reader.fields(value, path, {"requests", "limits"}, {"claims": _CLUSTER})
    for part, amounts in resources.items():
        for name, amount in amounts.items() if isinstance(amounts, dict) else [("", amounts)]:
            here = f"{path}.{part}.{name}".rstrip(".")
            if isinstance(amount, bool) or not _QUANTITY.fullmatch(str(amount)):
                reader.wrong(here, f"{amount!r} is not a quantity such as 500m or 512Mi")
            elif name not in ("cpu", "memory", "ephemeral-storage"):
                reader.problems.append(Problem(here, f"{name!r} is not a resource of this machine's backend", True))
    return resources


def _scaling(reader: _Reader, predictor: Json) -> Json:
    path = "spec.predictor"
    whole = {
        "minReplicas": ("min_replicas", 0, 10_000),
        "maxReplicas": ("max_replicas", 0, 10_000),
        "scaleTarget": ("scale_target", 1, 10**6),
        "containerConcurrency": ("container_concurrency", 0, 10**6),
        "timeout": ("timeout_seconds", 1, 86_400),
        "canaryTrafficPercent": ("canary_percent", 0, 100),
    }
    found: Json = {
        target: reader.whole(predictor[key], f"{path}.{key}", low, high)
        for key, (target, low, high) in whole.items()
        if key in predictor
    }
    most = found.get("max_replicas", 0)
    if most and most < found.get("min_replicas", 1):
        reader.wrong(f"{path}.maxReplicas", f"{most} is less than minReplicas {found.get('min_replicas', 1)}")
    if "scaleMetric" in predictor:
        found["scale_metric"] = predictor["scaleMetric"]
        if predictor["scaleMetric"] not in SCALE_METRICS:
            reader.wrong(
                f"{path}.scaleMetric",
                f"must be one of {', '.join(SCALE_METRICS)}, not {_show(predictor['scaleMetric'])}",
            )
    return found


def typed(manifest: Json, source: str = "") -> InferenceService:
    """Return the record of a manifest.

    :raises UnsupportedError: when all that is wrong are fields this backend does not honour; all are listed.
    :raises InputError: when the manifest itself is wrong; all problems are listed.
    """
    service, problems = read(manifest)
    if service is not None:
        return service
    raise refusal(manifest, problems, source)


def refusal(manifest: Json, problems: list[Problem], source: str = "") -> errors.InputError:
    """Return the one error that lists every problem of a manifest."""
    metadata = manifest.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    listed = "".join(f"\n    {problem}" for problem in problems)
    count = f"{len(problems)} field{'s' if len(problems) > 1 else ''}"
    if all(problem.unsupported for problem in problems):
        return errors.UnsupportedError(
            f"{KIND} {name!r}: {count} not honoured by the local backend:{listed}",
            where=source,
            way_out="Remove them, or apply the file to a cluster with KServe.",
            code="UNS-010",
        )
    return errors.InputError(
        f"{KIND} {name!r} is not valid: {count}:{listed}",
        where=source,
        way_out="`kubectl explain inferenceservice.spec` describes the fields.",
        code="INP-011",
    )


_UNENFORCED = ("minReplicas", "maxReplicas", "scaleTarget", "scaleMetric", "resources")


def notes(manifest: Json) -> list[str]:
    """Return what a valid manifest asks for that is kept and shown, but that nothing on this machine acts on."""
    predictor = manifest["spec"]["predictor"]
    found = [f"spec.predictor.{name}" for name in _UNENFORCED if name in predictor]
    for inner in ("model", "sklearn"):
        part = predictor.get(inner)
        if isinstance(part, dict):
            found += [f"spec.predictor.{inner}.{name}" for name in _UNENFORCED if name in part]
            if isinstance(part.get("modelFormat"), dict) and "version" in part["modelFormat"]:
                found.append(f"spec.predictor.{inner}.modelFormat.version")
    return [f"{one} is recorded and not enforced here: one data plane serves every model" for one in found]

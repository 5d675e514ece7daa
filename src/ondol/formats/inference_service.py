"""KServe `InferenceService` v1beta1: a checked manifest as a typed record.

What its fields are and which of them are honoured is declared in `formats.kserve.service`; here they only get a shape
to work with. Pure: reads no files, no network, no environment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ondol.formats.kserve import kinds
from ondol.formats.kserve.model import FRAMEWORKS, MODEL_FORMATS
from ondol.formats.kserve.service import INFERENCE_SERVICE
from ondol.formats.resource.checking import Problem

Json = dict[str, Any]

KIND = INFERENCE_SERVICE.kind
API_VERSION = INFERENCE_SERVICE.api_version
FORMATS = tuple(name for name, state in MODEL_FORMATS.items() if state.taken)
STOP_ANNOTATION = "serving.kserve.io/stop"
_V2_BY_DEFAULT = ("mlflow", "triton", "onnx", "huggingface", "vLLM")
"""Formats that only runtimes of protocol v2 serve."""


@dataclass(frozen=True, slots=True)
class Env:
    """One environment variable: a value, or where it is."""

    name: str
    value: str = ""
    secret: str = ""
    """Name of the Secret that has `key`."""

    config_map: str = ""
    """Name of the ConfigMap that has `key`."""

    key: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class EnvFrom:
    """Every key of a Secret or ConfigMap as a variable."""

    secret: str = ""
    config_map: str = ""
    prefix: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Port:
    """Where a container listens; `h2c` in the name says gRPC."""

    number: int
    name: str = ""
    protocol: str = "TCP"


@dataclass(frozen=True, slots=True)
class Container:
    """A program of the user's own, or what is overridden of a runtime's."""

    name: str = ""
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[Env, ...] = ()
    env_from: tuple[EnvFrom, ...] = ()
    ports: tuple[Port, ...] = ()
    readiness_path: str = ""
    """Path of the readiness probe's GET; empty: none is given."""

    readiness_port: int | str = ""
    working_dir: str = ""
    requests: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)

    def value_of(self, name: str) -> str:
        """Return the literal value of a variable; empty when it has none."""
        return next((one.value for one in self.env if one.name == name), "")


@dataclass(frozen=True, slots=True)
class Storage:
    """`model.storage`: an entry of the storage Secret and a path in it."""

    key: str = ""
    path: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StorageUri:
    """One of several addresses, and the folder a container sees it in."""

    uri: str
    mount_path: str = "/mnt/models"


@dataclass(frozen=True, slots=True)
class Model:
    """`predictor.model`, or one of KServe's older keys."""

    format: str
    version: str = ""
    protocol: str = "v1"
    """`v1`, `v2`, `grpc-v1` or `grpc-v2`: which runtime KServe would select, and so the dialect of answers."""

    declared_protocol: str = ""
    """`protocolVersion` as it is written; empty: it is not."""

    runtime: str = ""
    runtime_version: str = ""
    """Tag of the runtime's image, instead of its own."""

    storage_uri: str = ""
    storage: Storage | None = None
    container: Container = field(default_factory=Container)
    """What is overridden of the runtime's container: env, args, resources."""


@dataclass(frozen=True, slots=True)
class Batcher:
    """KServe's batcher."""

    max_batch_size: int = 32
    max_latency_ms: int = 5000


@dataclass(frozen=True, slots=True)
class Logger:
    """KServe's payload logger."""

    url: str
    mode: str = "all"
    """`all`, `request` or `response`."""

    metadata_headers: tuple[str, ...] = ()
    metadata_annotations: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Component:
    """A predictor, transformer or explainer: a model, or containers of the user's own."""

    model: Model | None = None
    containers: tuple[Container, ...] = ()
    """The first, or the one called `kserve-container`, is the server; see `server`."""

    name: str = ""
    """The variant's name, for `spec.canary[]`."""

    storage_uris: tuple[StorageUri, ...] = ()
    min_replicas: int = 1
    max_replicas: int = 0
    """0: as many as `min_replicas`, at least one."""

    scale_target: int = 0
    """0: the autoscaler's default."""

    scale_metric: str = ""
    """`concurrency`, `rps`, `cpu`, `memory`, or empty: the autoscaler's default."""

    container_concurrency: int = 0
    """Requests at once in one process; 0: unlimited."""

    timeout_seconds: float = 0.0
    """0: the server's default."""

    canary_percent: int | None = None
    """Percent of traffic for the newest revision; None: all of it."""

    batcher: Batcher | None = None
    logger: Logger | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def server(self) -> Container | None:
        """The container that serves; None when a model is served."""
        return self._named("kserve-container") or (self.containers[0] if self.containers and not self.model else None)

    @property
    def beside(self) -> Container | None:
        """A transformer in the predictor's own pod (KServe's collocation)."""
        return self._named("transformer-container")

    def _named(self, name: str) -> Container | None:
        return next((one for one in self.containers if one.name == name), None)


@dataclass(frozen=True, slots=True)
class Canary:
    """One named variant of `spec.canary[]`."""

    predictor: Component
    percent: int


@dataclass(frozen=True, slots=True)
class InferenceService:
    """What one manifest asks for."""

    name: str
    namespace: str
    predictor: Component
    transformer: Component | None = None
    explainer: Component | None = None
    canary: tuple[Canary, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        return self.annotations.get(STOP_ANNOTATION, "").lower() == "true"

    @property
    def protocol(self) -> str:
        """The protocol of the predictor's answers; a server of the user's own says it in its variable PROTOCOL."""
        if self.predictor.model is not None:
            return self.predictor.model.protocol
        server = self.predictor.beside or self.predictor.server
        return (server.value_of("PROTOCOL") if server else "") or "v1"

    @property
    def probabilities(self) -> bool:
        """Whether a classifier answers with probabilities (KServe's PREDICT_PROBA)."""
        model = self.predictor.model
        return model is not None and model.container.value_of("PREDICT_PROBA").lower() == "true"


def predictors(manifest: Json) -> dict[str, Json]:
    """Return the predictors of a manifest by their paths, the canaries' too, as far as they are mappings."""
    spec = manifest.get("spec")
    found = {"spec.predictor": spec.get("predictor")} if isinstance(spec, dict) else {}
    canaries = spec.get("canary") if isinstance(spec, dict) else None
    for index, one in enumerate(canaries if isinstance(canaries, list) else []):
        found[f"spec.canary[{index}].predictor"] = one.get("predictor") if isinstance(one, dict) else None
    return {path: one for path, one in found.items() if isinstance(one, dict)}


def read(manifest: Json, own_runtime: Collection[str] = ()) -> tuple[InferenceService | None, list[Problem]]:
    """Return the record (None when something is wrong or refused) and every problem found.

    :param own_runtime: paths of predictors whose models a runtime of the user's serves.
    """
    problems = kinds.check(manifest, own_runtime).problems
    return (None, problems) if problems else (_service(manifest), [])


def typed(manifest: Json, source: str = "", own_runtime: Collection[str] = ()) -> InferenceService:
    """Return the record of a manifest.

    :param own_runtime: paths of predictors whose models a runtime of the user's serves.
    :raises UnsupportedError: when all that is wrong are fields this backend does not honour; all are listed.
    :raises InputError: when the manifest itself is wrong; all problems are listed.
    """
    service, problems = read(manifest, own_runtime)
    if service is not None:
        return service
    raise kinds.refusal(manifest, problems, source)


def _service(manifest: Json) -> InferenceService:
    metadata, spec = manifest["metadata"], manifest["spec"]
    return InferenceService(
        name=metadata["name"],
        namespace=metadata.get("namespace") or "default",
        predictor=_component(spec["predictor"]),
        transformer=_component(spec["transformer"]) if spec.get("transformer") else None,
        explainer=_component(spec["explainer"]) if spec.get("explainer") else None,
        canary=tuple(Canary(_component(one["predictor"]), one["trafficPercent"]) for one in spec.get("canary") or []),
        labels=dict(metadata.get("labels") or {}),
        annotations=dict(metadata.get("annotations") or {}),
    )


def _component(spec: Json) -> Component:
    batcher, logger = spec.get("batcher"), spec.get("logger")
    least = spec.get("minReplicas")
    return Component(
        model=_model(spec),
        containers=tuple(container(one) for one in spec.get("containers") or []),
        name=spec.get("name") or "",
        storage_uris=tuple(
            StorageUri(one["uri"], one.get("mountPath") or "/mnt/models") for one in spec.get("storageUris") or []
        ),
        min_replicas=1 if least is None else least,
        max_replicas=spec.get("maxReplicas") or 0,
        scale_target=spec.get("scaleTarget") or 0,
        scale_metric=spec.get("scaleMetric") or "",
        container_concurrency=spec.get("containerConcurrency") or 0,
        timeout_seconds=float(spec.get("timeout") or 0),
        canary_percent=spec.get("canaryTrafficPercent"),
        batcher=None
        if batcher is None
        else Batcher(batcher.get("maxBatchSize") or 32, batcher.get("maxLatency") or 5000),
        logger=None
        if logger is None
        else Logger(
            logger.get("url") or "",
            logger["mode"],
            tuple(logger.get("metadataHeaders") or ()),
            tuple(logger.get("metadataAnnotations") or ()),
        ),
        labels=dict(spec.get("labels") or {}),
        annotations=dict(spec.get("annotations") or {}),
    )


def _model(spec: Json) -> Model | None:
    """Read `model`, or an older key, which is the same without its format."""
    key = next((name for name in ("model", *FRAMEWORKS) if spec.get(name) is not None), "")
    if not key:
        return None
    model = spec[key]
    declared = model.get("modelFormat") or {"name": key}
    storage = model.get("storage")
    return Model(
        format=declared["name"],
        version=declared.get("version") or "",
        protocol=model.get("protocolVersion") or ("v2" if declared["name"] in _V2_BY_DEFAULT else "v1"),
        declared_protocol=model.get("protocolVersion") or "",
        runtime=model.get("runtime") or "",
        runtime_version=model.get("runtimeVersion") or "",
        storage_uri=model.get("storageUri") or "",
        storage=None
        if storage is None
        else Storage(storage.get("key") or "", storage.get("path") or "", dict(storage.get("parameters") or {})),
        container=container(model),
    )


def container(spec: Json) -> Container:
    """Return a container of a checked manifest."""
    get = (spec.get("readinessProbe") or {}).get("httpGet") or {}
    resources = spec.get("resources") or {}
    return Container(
        name=spec.get("name") or "",
        image=spec.get("image") or "",
        command=tuple(spec.get("command") or ()),
        args=tuple(spec.get("args") or ()),
        env=tuple(_env(one) for one in spec.get("env") or []),
        env_from=tuple(_env_from(one) for one in spec.get("envFrom") or []),
        ports=tuple(
            Port(one["containerPort"], one.get("name") or "", one.get("protocol") or "TCP")
            for one in spec.get("ports") or []
        ),
        readiness_path=get.get("path") or "",
        readiness_port=get.get("port") or "",
        working_dir=spec.get("workingDir") or "",
        requests={name: str(amount) for name, amount in (resources.get("requests") or {}).items()},
        limits={name: str(amount) for name, amount in (resources.get("limits") or {}).items()},
    )


def _env(spec: Json) -> Env:
    source = spec.get("valueFrom") or {}
    secret, config = source.get("secretKeyRef") or {}, source.get("configMapKeyRef") or {}
    chosen = secret or config
    return Env(
        name=spec["name"],
        value=spec.get("value") or "",
        secret=secret.get("name") or "",
        config_map=config.get("name") or "",
        key=chosen.get("key") or "",
        optional=bool(chosen.get("optional")),
    )


def _env_from(spec: Json) -> EnvFrom:
    secret, config = spec.get("secretRef") or {}, spec.get("configMapRef") or {}
    return EnvFrom(
        secret=secret.get("name") or "",
        config_map=config.get("name") or "",
        prefix=spec.get("prefix") or "",
        optional=bool((secret or config).get("optional")),
    )

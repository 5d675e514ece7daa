"""What predictor, transformer and explainer have in common: replicas, scaling, limits, batching, logging."""

from __future__ import annotations

from ondol.formats.kserve import pod
from ondol.formats.resource.states import HONOURED, cluster, honoured, no_effect, refused
from ondol.formats.resource.types import (
    Field,
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

_PROCESSES = honoured("of components that are processes; a model in memory needs one only")
_UNSCALED = "there is no such autoscaler here; processes are as many as `minReplicas`"

BATCHER = Object(
    {
        "maxBatchSize": Field(Whole(1), about="Rows that make a batch full.", default=32),
        "maxLatency": Field(Whole(1), about="Milliseconds a request may wait for others.", default=5000),
        "timeout": Field(Whole(1), no_effect("KServe's batcher does not read it either")),
    }
)


def _logger_rules(value: Json, wrong: Report) -> None:
    if "mode" not in value:
        wrong("mode", "invalid logger type: must be one of all, request, response")
    storage = value.get("storage")
    if storage is not None and not {"path", "parameters", "key"} <= storage.keys():
        wrong("storage", "invalid logger storage configuration: path, parameters and key are needed")


LOGGER = Object(
    {
        "url": Field(Text(), about="Where CloudEvents are sent."),
        "mode": Field(one_of("all", "request", "response"), about="What is sent."),
        "metadataHeaders": Field(ListOf(Text()), about="Headers of the request that go into the event."),
        "metadataAnnotations": Field(ListOf(Text()), about="Annotations of the service that go into the event."),
        "storage": Field(
            Object(
                {
                    "path": Field(Text()),
                    "parameters": Field(texts()),
                    "key": Field(Text()),
                    "serviceAccountName": Field(Text(), cluster()),
                }
            ),
            refused("events are sent, not stored", "give `url`; Ondol's own request log keeps what was asked"),
        ),
        **every("marshallerUrl batchSize batchInterval", refused("events are sent one by one")),
    },
    rules=(_logger_rules,),
)


def _storage_uri_rules(value: Json, wrong: Report) -> None:
    path = value.get("mountPath", "/mnt/models")
    if not value["uri"]:
        wrong("uri", "storage URI cannot be empty")
    if path == "/":
        wrong("mountPath", "storage path cannot be empty")
    elif ".." in path:
        wrong("mountPath", f"storage path cannot contain '..' for security reasons: {path}")


STORAGE_URIS = ListOf(
    Object(
        {
            "uri": Field(Text(), required=True, about="Where the files are."),
            "mountPath": Field(
                Text(pattern="^/.*", longest=255), about="The folder a container sees them in.", default="/mnt/models"
            ),
        },
        rules=(_storage_uri_rules,),
    ),
    least=1,
)


def storage_uris_rules(value: Json, wrong: Report) -> None:
    """KServe's rules for several addresses: one spelling only, and a folder in common."""
    listed = value.get("storageUris") or []
    paths = [one.get("mountPath", "/mnt/models") for one in listed if not one["uri"].startswith("pvc://")]
    claims = [one.get("mountPath", "/mnt/models") for one in listed if one["uri"].startswith("pvc://")]
    if len(paths) <= 1:
        return
    if len(claims) != len(set(claims)):
        wrong("storageUris", "PVC storage paths must be unique")
    if len({path.split("/")[1] for path in paths}) > 1:
        wrong("storageUris", f"storage paths must have a common parent directory. Current paths: {paths}")


def _extension_rules(value: Json, wrong: Report) -> None:
    least, most = value.get("minReplicas", 1), value.get("maxReplicas", 0)
    if most and least > most:
        wrong("maxReplicas", f"'MinReplicas' cannot be greater than MaxReplicas: {least} > {most}")
    if value.get("scaleMetric") == "rps" and value.get("scaleTarget", 1) < 1:
        wrong("scaleTarget", "the target for rps should be greater than 1")


EXTENSIONS: dict[str, Field] = {
    "minReplicas": Field(
        Whole(0), _PROCESSES, "Fewest processes; 0: none while nobody asks.", default=1
    ),
    "maxReplicas": Field(Whole(0), _PROCESSES, "Most processes; 0: as many as `minReplicas`."),
    "scaleTarget": Field(Whole(0), _PROCESSES, "The metric's target per process."),
    "scaleMetric": Field(
        Text({"concurrency": HONOURED, "rps": HONOURED, **dict.fromkeys(("cpu", "memory"), no_effect(_UNSCALED))}),
        _PROCESSES, "What is scaled on."
    ),
    "scaleMetricType": Field(
        one_of("Utilization", "Value", "AverageValue"), cluster("it is for a Horizontal Pod Autoscaler")
    ),
    "autoScaling": Field(
        Object({"metrics": Field(
                    ListOf(
                        Object(
                            {
                                "type": Field(one_of("Resource", "External", "PodMetric"), required=True),
                                **every("resource external podmetric", HONOURED),
                            }
                        )
                    )
                ),
                **every("behavior", HONOURED)}),
        cluster("it configures a Horizontal Pod Autoscaler or KEDA"),
    ),
    "containerConcurrency": Field(Whole(0, 2**63 - 1), about="Requests at once in a process; 0: no limit."),
    "timeout": Field(Whole(0, 2**63 - 1), about="Seconds until a request is answered with 504."),
    "canaryTrafficPercent": Field(
        Whole(0, 100), about="Share of the newest revision; the one before keeps the rest."
    ),
    "logger": Field(
        LOGGER, about="Sends requests and answers as CloudEvents.",
    ),
    "batcher": Field(
        BATCHER, about="KServe's own batching, with its shape of answers.",
    ),
    "labels": Field(texts(), about="Kept."),
    "annotations": Field(texts(), about="Kept."),
    "deploymentStrategy": Field(
        Object(every("rollingUpdate type", HONOURED, "V1DeploymentStrategy")),
        refused("a new model is always loaded before the old one goes"),
    ),
}  # fmt: skip

EXTENSION_RULES = (_extension_rules, storage_uris_rules)


def component(own: dict[str, Field]) -> dict[str, Field]:
    """Return the fields of a component: its own, the extensions, and those of a pod."""
    return {**pod.pod(), **EXTENSIONS, **own}

"""The kinds this machine serves. A new kind is one entry here; its controller lives in `backends.local`."""

from __future__ import annotations

from ondol.api.kubernetes import core
from ondol.api.kubernetes.kinds import AGE, Column, Json, Kind, Problem, Registry
from ondol.formats import inference_service

_SERVING = "serving.kserve.io"
_OLDER = ".status.components.predictor.traffic[?(@.latestRevision!=true)]"
_NEWEST = ".status.components.predictor.traffic[?(@.latestRevision==true)]"
_READY = Column("Ready", ".status.conditions[?(@.type=='Ready')].status")
_URL = Column("URL", ".status.url")


def _problems(manifest: Json) -> list[Problem]:
    return list(inference_service.read(manifest)[1])


INFERENCE_SERVICE = Kind(
    _SERVING,
    ("v1beta1",),
    inference_service.KIND,
    "inferenceservices",
    core.open_schema,
    _problems,
    inference_service.notes,
    short_names=("isvc",),
    categories=("all",),
    columns=(
        _URL,
        _READY,
        Column("Prev", f"{_OLDER}.percent", "integer"),
        Column("Latest", f"{_NEWEST}.percent", "integer"),
        Column("PrevRolledoutRevision", f"{_OLDER}.revisionName"),
        Column("LatestReadyRevision", f"{_NEWEST}.revisionName"),
        AGE,
    ),
)

REGISTRY = Registry((core.NAMESPACE, core.CONFIG_MAP, core.SECRET, INFERENCE_SERVICE))

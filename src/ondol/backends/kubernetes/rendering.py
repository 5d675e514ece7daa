"""A trial of a new model for a real cluster: KServe's two canary dialects, and who asks our judge there.

- `standard`: `spec.canary[]`, which KServe honours in Standard mode only.
- `knative`: `predictor.canaryTrafficPercent`, which it honours in Knative mode only.
- `argo`: an AnalysisTemplate whose web metrics are the judge's verdict.
- `flagger`: a Canary whose MetricTemplate is the judge's evidence of harm, and whose gates are its verdict.

Pure: manifests in, manifests out. Must not talk to a cluster.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ondol.base import errors
from ondol.records.rollout import CANDIDATE, STABLE, JudgePolicy

Json = dict[str, Any]
_MODE = "serving.kserve.io/deploymentMode"
_NOT_IN_A_CANARY = (
    "maxReplicas", "scaleTarget", "scaleMetric", "scaleMetricType", "autoScaling", "canaryTrafficPercent",
)  # fmt: skip
"""KServe refuses them there: a canary's replicas are fixed."""

_LOOKS = 2880  # as often as a day has half minutes


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried on a cluster, and who judges it."""

    serving: Json
    """The InferenceService that serves."""

    tried: Json
    """The same with the new model."""

    policy: JudgePolicy
    judge: str
    """Address of the control process as the cluster sees it."""

    rollout: str
    """Id of the rollout that judges."""

    @property
    def name(self) -> str:
        return str(self.tried["metadata"]["name"])

    @property
    def first_step(self) -> float:
        return next((step for step in self.policy.steps if step > 0), 0.0)

    @property
    def url(self) -> str:
        return f"{self.judge.rstrip('/')}/api/ondol/rollouts/{self.rollout}"


def standard(trial: Trial) -> list[Json]:
    """Return the InferenceService with the new model as a named canary.

    Promotion: rename `predictor` after the canary and drop the entry. Rollback: drop the entry.
    """
    _same_service(trial)
    made = copy.deepcopy(trial.serving)
    annotations = made["metadata"].setdefault("annotations", {})
    annotations[_MODE] = "Standard"
    made["spec"]["predictor"].setdefault("name", STABLE)
    predictor = copy.deepcopy(trial.tried["spec"]["predictor"])
    for field in _NOT_IN_A_CANARY:
        predictor.pop(field, None)
    for part in predictor.values():
        if isinstance(part, dict) and "storageUri" in part:
            part.setdefault("name", "kserve-container")  # its schema asks for it in a canary, and only there
    predictor["name"] = CANDIDATE
    made["spec"]["canary"] = [{"predictor": predictor, "trafficPercent": _whole(trial.first_step)}]
    return [made]


def knative(trial: Trial) -> list[Json]:
    """Return the InferenceService with the new model as its newest revision.

    Promotion: drop `canaryTrafficPercent`. Rollback: set it to 0, which pins the revision before.
    """
    _same_service(trial)
    made = copy.deepcopy(trial.tried)
    made["metadata"].setdefault("annotations", {})[_MODE] = "Knative"
    made["spec"]["predictor"]["canaryTrafficPercent"] = _whole(trial.first_step)
    return [made]


def argo(trial: Trial) -> list[Json]:
    """Return an AnalysisTemplate: failed at once on proven harm, successful when the judge promotes."""
    web = {
        "url": f"{trial.url}/verdict",
        "timeoutSeconds": 10,
        "headers": [{"key": "Authorization", "value": "Bearer {{args.key}}"}],
        "jsonPath": "{$}",
    }
    return [
        {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "AnalysisTemplate",
            "metadata": _metadata(trial, "judge"),
            "spec": {
                "args": [{"name": "key", "valueFrom": {"secretKeyRef": {"name": "ondol-judge", "key": "token"}}}],
                "metrics": [
                    {
                        "name": "ondol-verdict",
                        "interval": "30s",
                        "successCondition": 'result.verdict == "promote"',
                        "failureCondition": 'result.verdict == "roll_back"',
                        "failureLimit": 0,
                        "consecutiveErrorLimit": 4,
                        # Not known yet is neither: it goes on being asked, and ends inconclusive when it stays so.
                        "inconclusiveLimit": _LOOKS,
                        "count": _LOOKS,
                        "consecutiveSuccessLimit": 1,
                        "provider": {"web": web},
                    }
                ],
            },
        }
    ]


def flagger(trial: Trial) -> list[Json]:
    """Return a Canary of the predictor's Deployment and the MetricTemplate it asks."""
    steps = [_whole(step) for step in trial.policy.steps if 0 < step < 100] or [_whole(trial.first_step)]
    template = {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "MetricTemplate",
        "metadata": _metadata(trial, "harm"),
        "spec": {
            "provider": {
                "type": "prometheus",
                "address": f"{trial.url}/prometheus",
                "secretRef": {"name": "ondol-judge"},
            },
            "query": "ondol_rollout_harm",
        },
    }
    metadata = template["metadata"]
    assert isinstance(metadata, dict)
    canary = {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": _metadata(trial, "predictor", f"{trial.name}-predictor"),
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": f"{trial.name}-predictor"},
            "service": {"port": 80, "targetPort": 8080},
            "analysis": {
                "interval": "30s",
                "threshold": 1,
                "stepWeights": steps,
                "metrics": [
                    {
                        "name": "ondol-harm",
                        "templateRef": {"name": metadata["name"], "namespace": metadata["namespace"]},
                        "thresholdRange": {"max": 0.9999},
                        "interval": "1m",
                    }
                ],
                "webhooks": [
                    _gate(trial, "confirm-promotion", "promote"),
                    _gate(trial, "rollback", "roll_back"),
                ],
            },
        },
    }
    return [template, canary]


FORMS: dict[str, Callable[[Trial], list[Json]]] = {
    "standard": standard, "knative": knative, "argo": argo, "flagger": flagger,
}  # fmt: skip


def _gate(trial: Trial, kind: str, verdict: str) -> Json:
    return {"name": f"ondol-{kind}", "type": kind, "url": f"{trial.url}/gates/{verdict}", "timeout": "10s"}


def _metadata(trial: Trial, part: str, name: str = "") -> Json:
    given = trial.tried["metadata"]
    return {
        "name": name or f"{trial.name}-{part}",
        "namespace": given.get("namespace", "default"),
        "labels": {"app.kubernetes.io/managed-by": "ondol"},
        "annotations": {"ondol.io/rollout-id": trial.rollout},
    }


def _whole(percent: float) -> int:
    """Return a percentage as clusters take it.

    :raises UnsupportedError: for a fraction of a percent.
    """
    if percent != int(percent):
        raise errors.UnsupportedError(
            f"clusters split by whole percents, not {percent:g}", where="rollout.steps",
            way_out="Give whole percentages.", code="UNS-420",
        )  # fmt: skip
    return int(percent)


def _same_service(trial: Trial) -> None:
    mine, theirs = ({key: one["metadata"].get(key, "") for key in ("name", "namespace")}
                    for one in (trial.serving, trial.tried))  # fmt: skip
    if mine != theirs:
        raise errors.InputError(
            f"{mine['name']!r} and {theirs['name']!r} are not one InferenceService", where="metadata",
            way_out="Give the file that serves and the same file with the new model.", code="INP-426",
        )  # fmt: skip

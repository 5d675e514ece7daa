"""Pipeline runs, written to MLflow: one MLflow run each, in the experiment named like the pipeline.

Idempotent: a run interrupted half-way is found by its tag and completed. The MLflow runs that steps made by themselves
are found by their tags, and named with the step. Must not upload data sets: their digests and places are the lineage.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from typing import Any

from ondol.base import hashing
from ondol.base.clock import iso
from ondol.records.pipeline import PIPELINE_RUN_TAG, PIPELINE_TAG, STEP_TAG, Artifact, PipelineRun
from ondol.registry.models import Registry
from ondol.store import runs
from ondol.store.connection import Store

_STATUS = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED", "running": "RUNNING"}
_METRICS = ("system.Metrics",)
_one_at_a_time = threading.Lock()  # or one that was slower would write the older news of a run over the newer
Json = dict[str, Any]


def mirror_runs(store: Store, registry: Registry) -> int:
    """Mirror every ended run that is not mirrored yet and return how many were."""
    with _one_at_a_time:
        waiting = runs.not_mirrored(store)
        for run in waiting:
            told = with_made_runs(run, registry)
            runs.set_mlflow_run(store, told, mirror(told, registry))
    return len(waiting)


def mirror(run: PipelineRun, registry: Registry) -> str:
    """Write one run to MLflow and return the MLflow run's id."""
    identifier = registry.log_run(
        run.id,
        experiment=run.name,
        name=run.id,
        params=run.parameters,
        metrics=metrics_of(run),
        tags=tags_of(run),
        status=_STATUS[run.state],
        started_at=run.started_at,
        ended_at=run.ended_at,
        files={"lineage.json": lineage(run)},
    )
    registry.log_inputs(identifier, data_sets(run))
    return identifier


def with_made_runs(run: PipelineRun, registry: Registry) -> PipelineRun:
    """Return the run with the MLflow runs that each task's own code made."""
    made: dict[str, list[str]] = {}
    for identifier, tags in registry.runs_tagged(PIPELINE_RUN_TAG, run.id):
        made.setdefault(tags.get(STEP_TAG, ""), []).append(identifier)
    return replace(run, tasks=tuple(replace(one, mlflow_runs=tuple(made.get(one.name, ()))) for one in run.tasks))


def _outputs(run: PipelineRun) -> list[tuple[str, Artifact]]:
    return [(task.name, artifact) for task in run.tasks for artifact in task.outputs.values()]


def metrics_of(run: PipelineRun) -> dict[str, float]:
    """Return the numbers of all metrics artifacts, named `task/metric`, or `metric` alone where that is unambiguous."""
    found = [
        (task, name, float(value))
        for task, artifact in _outputs(run)
        if artifact.type in _METRICS
        for name, value in artifact.metadata.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    names = [name for _, name, _ in found]
    return {name if names.count(name) == 1 else f"{task}/{name}": value for task, name, value in found}


def tags_of(run: PipelineRun) -> dict[str, str]:
    """Return what identifies the run and where its model came from."""
    tags = {
        PIPELINE_TAG: run.name,
        "ondol.pipeline_digest": run.digest,
        "mlflow.source.name": run.source,
        "mlflow.source.type": "JOB",
        "ondol.cached_steps": f"{sum(task.cached for task in run.tasks)} of {len(run.tasks)}",
    }
    for task, artifact in _outputs(run):
        if artifact.type == "system.Model" and artifact.digest:
            tags[f"ondol.model.{task}.{artifact.name}"] = artifact.digest
    for one in run.tasks:
        tags[f"ondol.mlflow_runs.{one.name}"] = " ".join(one.mlflow_runs)
    if run.error:
        tags["ondol.error"] = run.error
    return {key: value for key, value in tags.items() if value}


def data_sets(run: PipelineRun) -> list[tuple[str, str, str]]:
    """Return the data sets of a run as (name, digest, URI)."""
    return [
        (f"{task}.{artifact.name}", hashing.short(artifact.digest, 36), artifact.uri)
        for task, artifact in _outputs(run)
        if artifact.type == "system.Dataset" and artifact.digest
    ]


def lineage(run: PipelineRun) -> Json:
    """Return what every task read and made, with digests: plain JSON, numbers that JSON cannot say as text."""
    tasks = []
    for task in run.tasks:
        outputs = {
            name: {"type": one.type, "uri": one.uri, "digest": one.digest, "metadata": one.metadata}
            for name, one in task.outputs.items()
        }
        tasks.append(
            {
                "name": task.name,
                "state": task.state,
                "cached": task.cached,
                "started_at": iso(task.started_at) if task.started_at else None,
                "seconds": round(max(0.0, task.ended_at - task.started_at), 3),
                "inputs": task.inputs,
                "parameters": task.parameters,
                "outputs": outputs,
                "error": task.error,
                "mlflow_runs": task.mlflow_runs,
            }
        )
    return dict(_finite({"run": run.id, "pipeline": run.name, "parameters": run.parameters, "tasks": tasks}))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value

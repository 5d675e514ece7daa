"""Once round the loop for one model: check, pipeline, evaluate, gate, register, serve.

Ends with a decision and, when the gate says pass, a release; putting it on trial is the conductor's part. Every step
may be repeated: finished pipeline steps are reused, the same model is the same version and the same release.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ondol.base import errors, hashing, ids
from ondol.gates import rules
from ondol.loop import reference, scoring, standing
from ondol.loop.context import Context
from ondol.loop.saying import said
from ondol.loop.walking import ASKED_FOR, alone
from ondol.pipelines import runner
from ondol.records import codec
from ondol.records.evaluation import GateResult
from ondol.records.pipeline import PIPELINE_RUN_TAG, Artifact, PipelineRun
from ondol.records.project import GateSpec, ModelSpec
from ondol.records.release import ModelManifest, Release
from ondol.records.rollout import Decision, Route
from ondol.registry.models import ModelVersion
from ondol.store import releases, resources, rollouts, routes

CHAMPION = "champion"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one walk round the loop came to."""

    model: str
    run: PipelineRun
    checked: Any
    """The data check's report, or None when the project asks for none."""

    scored: scoring.Scored
    gate: GateResult
    decision: Decision
    version: ModelVersion | None = None
    release: Release | None = None


def spec_of(context: Context, model: str) -> ModelSpec:
    """Return what the project says about a model.

    :raises NotFoundError: when it says nothing.
    """
    try:
        return context.project.models[model]
    except KeyError:
        raise errors.NotFoundError(
            f"no model {model!r} in the project",
            where="ondol.yaml: models",
            way_out=f"There are: {', '.join(context.project.models) or 'none'}.",
            code="NOF-011",
        ) from None


def walk(
    context: Context, model: str, parameters: Mapping[str, Any] | None = None, because: str = ASKED_FOR
) -> Outcome:
    """Go round once.

    :param parameters: override the project's pipeline parameters.
    :param because: why, for the record: `asked for`, or the id of the decision that asks for a retraining.
    :raises InputError: when data, pipeline or project are wrong.
    :raises ComponentError: when a pipeline step fails.
    """
    with alone(context, model, because):
        return _walk(context, model, parameters or {}, because)


def _walk(context: Context, model: str, parameters: Mapping[str, Any], because: str) -> Outcome:
    spec = spec_of(context, model)
    checked = _check_file(context, spec)
    run = _run(context, model, spec, parameters)
    if checked is None and spec.check is not None:
        checked = _check(context, _output(run, spec.check.data, "check.data").path, spec.check.schema)
    candidate = _output(run, spec.model, "model")
    held_out = _output(run, spec.evaluate.data, "evaluate.data")
    champion = _champion(context, model)
    context.progress.start("evaluate")
    trained_on = Path(_output(run, spec.evaluate.train, "evaluate.train").path) if spec.evaluate.train else None
    scored = scoring.score(
        Path(candidate.path),
        champion[1] if champion else None,
        Path(held_out.path),
        trained_on,
        spec.evaluate,
        spec.gate,
        safe=context.project.safe or context.settings.safe,
    )
    context.progress.finish("evaluate", _scores_said(scored))
    gate = decide(spec.gate, scored, None if checked is None else checked.verdict != "fail")
    context.progress.start("gate")
    context.progress.finish("gate", said(gate))
    version, release = None, None
    if gate.verdict == "pass":
        version, release = _register(context, model, run, candidate, held_out, scored)
    evidence = {
        "because": because,
        "retraining": "" if because == ASKED_FOR else because,
        "run": run.id,
        "parameters": run.parameters,
        "candidate": candidate.digest,
        "champion": champion[0] if champion else "",
        "data": held_out.digest,
        "data_check": None if checked is None else checked.verdict,
        "gate": codec.plain(spec.gate),
        "rules": list(gate.rules),
        "comparison": codec.plain(scored.champion),
        "baseline": codec.plain(scored.baseline),
        "slices": codec.plain(scored.slices),
        "scores": codec.plain(scored.scores),
        "release": release.digest if release else "",
        "version": version.version if version else "",
    }
    decision = Decision(ids.new_id("decision"), time.time(), model, "gate", gate.verdict, gate.reason, evidence)
    rollouts.decide(context.store, decision)
    if release is not None and champion is None:
        _serve_first(context, model, release)
    return Outcome(model, run, checked, scored, gate, decision, version, release)


def _check_file(context: Context, spec: ModelSpec) -> Any:
    """Check the data before anything runs, when it is a file; an output of the pipeline is checked once it is there."""
    if spec.check is None or not (context.root / spec.check.data).is_file():
        return None
    return _check(context, str(context.root / spec.check.data), spec.check.schema)


def _check(context: Context, path: str, schema: str) -> Any:
    from ondol.data import schema as schemas
    from ondol.data import tables, validation

    context.progress.start("check")
    report = validation.check(tables.read(Path(path)), schemas.load(context.root / schema))
    worst = report.worse_than("pass")
    said = f"{report.verdict}: {report.rows:,} rows, {report.columns} columns"
    context.progress.finish("check", said + (f"; {worst[0].column}: {worst[0].message}" if worst else ""))
    validation.refuse_failed(report, where=path)
    return report


def _run(context: Context, model: str, spec: ModelSpec, parameters: Mapping[str, Any]) -> PipelineRun:
    environ = {"MLFLOW_TRACKING_URI": context.tracking_uri} if context.tracking_uri else {}
    return runner.run(
        context.root / spec.pipeline,
        {**spec.parameters, **standing.parameters(context.store, model), **parameters},
        store=context.store,
        settings=context.settings,
        progress=context.progress,
        pipeline=spec.pipeline_name,
        environ=environ,
        registry=context.importers,
    )


def _output(run: PipelineRun, name: str, field: str) -> Artifact:
    """Find `task.output` in a run.

    :raises InputError: naming the tasks or outputs there are.
    """
    task_name, _, output = name.rpartition(".")
    task = run.task(task_name)
    if task is None or output not in task.outputs:
        known = [f"{one.name}.{key}" for one in run.tasks for key in one.outputs]
        raise errors.InputError(
            f"the pipeline has no output {name!r}",
            where=f"ondol.yaml: {field}",
            way_out=f"There are: {', '.join(known) or 'none'}.",
            code="INP-032",
        )
    return task.outputs[output]


def _champion(context: Context, model: str) -> tuple[str, Path] | None:
    """Return digest and files of the release that serves."""
    route = routes.get(context.store, model)
    if route is None:
        return None
    manifest = releases.model_manifest(releases.get(context.store, route.stable))
    return route.stable, context.blobs.path(manifest.artifact)


def decide(spec: GateSpec, scored: scoring.Scored, data_check: bool | None) -> GateResult:
    """Apply the project's gate to the scores: pure, so that stored evidence can be judged again."""
    thresholds = {rule.metric: rules.Threshold(rule.at_least, rule.at_most) for rule in spec.rules}
    chosen = rules.Rules(
        primary=scored.primary, margin=spec.margin, min_samples=spec.min_samples, thresholds=thresholds
    )
    return rules.decide(
        [scored.champion] if scored.champion else [],
        scored.scores,
        chosen,
        baseline=scored.baseline,
        slices=scored.slices,
        data_check=data_check,
    )


def _register(
    context: Context, model: str, run: PipelineRun, candidate: Artifact, held_out: Artifact, scored: scoring.Scored
) -> tuple[ModelVersion, Release]:
    """Register the model, pin it in a release, and keep what drift will be compared with."""
    context.progress.start("register")
    context.registry.mirror()
    first = routes.get(context.store, model) is None
    version = context.registry.register(
        model,
        Path(candidate.path),
        run_id=_mlflow_run(context, run),
        tags={PIPELINE_RUN_TAG: run.id},
        aliases=(CHAMPION,) if first else (),
        example=reference.example(Path(held_out.path), scored.features),
    )
    artifact = context.blobs.put_path(Path(version.source_path))
    manifest = ModelManifest(
        artifact=artifact,
        uri=f"models:/{model}/{version.version}",
        model=model,
        version=version.version,
        run=version.run_id,
    )
    release = releases.put(context.store, model, manifest)
    reference.keep(context, release.digest, Path(held_out.path), spec_of(context, model).evaluate.target, scored)
    said = f"{model} version {version.version}, release {hashing.short(release.digest)}"
    context.progress.finish("register", said)
    return version, release


def _mlflow_run(context: Context, run: PipelineRun) -> str:
    from ondol.store import runs

    return runs.get(context.store, run.id).mlflow_run


def _serve_first(context: Context, model: str, release: Release) -> None:
    """Serve a first release, which needs no trial: by the project's serving file, or by itself when none names it."""
    for name in context.project.serving:
        text = (context.root / name).read_text(encoding="utf-8")
        for document in yaml.safe_load_all(text):
            if isinstance(document, dict) and document.get("metadata", {}).get("name") == model:
                resources.apply(context.store, document)
                return
    if routes.get(context.store, model) is None:
        routes.put(context.store, Route(model, "model", release.digest))


def _scores_said(scored: scoring.Scored) -> str:
    whole = [one for one in scored.scores if not one.slice]
    return ", ".join(f"{one.name} {one.value:.4g}" for one in whole[:4])

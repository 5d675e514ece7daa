"""A release made ready to answer: in memory, in an environment of its own, or as processes of the user's own server.

Must not know which releases are wanted, nor who asks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ondol.base import environments, errors, hashing
from ondol.base.environments import Need
from ondol.records.release import ModelManifest, Release
from ondol.records.rollout import Arm, Route
from ondol.serving import describing, loading
from ondol.serving.batching import Batcher
from ondol.serving.engines import compiled
from ondol.serving.engines.base import Elsewhere
from ondol.serving.inputs import InputSpec
from ondol.serving.kept_engines import Kept, KeptEngines
from ondol.serving.options import Options
from ondol.serving.workers import model_process
from ondol.serving.workers.model_process import ModelProcess
from ondol.serving.workers.pool import Pool
from ondol.store import releases
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

log = logging.getLogger("ondol.serving")


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded release, ready to answer."""

    digest: str
    version: str
    spec: InputSpec
    choice: compiled.Choice
    batcher: Batcher
    probabilities: bool
    """Whether it can answer with probabilities."""

    platform: str
    dialect: str = ""
    """The protocol version it was loaded for, when it would answer otherwise under another."""

    notes: tuple[str, ...] = ()
    pool: Pool | None = None
    """The processes that answer instead, whole bodies at a time; None: the model is in memory."""

    faster: Callable[[], Model] | None = field(default=None, compare=False)
    """Makes the same model with a faster engine, which takes about a second; None: this is the fastest."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What one service's requests see; never changed, only replaced."""

    route: Route
    """The route as it is served: without a candidate that is not loaded."""

    stable: Model
    arms: Mapping[Arm, Model] = field(default_factory=dict)
    """The loaded variants by name; the candidate is the first."""

    options: Options = field(default_factory=Options)
    parts: Mapping[str, Pool] = field(default_factory=dict)
    """The processes beside the predictor that serve, by component."""

    forwards: bool = False
    """Whether requests go to a process: to the transformer, or to a predictor that is one."""

    @property
    def candidate(self) -> Model | None:
        return self.arms.get(self.route.candidate_name)

    @property
    def models(self) -> tuple[Model, ...]:
        return (self.stable, *self.arms.values())

    def model(self, arm: Arm) -> Model:
        return self.arms.get(arm, self.stable)


def load_release(
    store: Store, blobs: Blobs, release: Release, *, dialect: str = "v1", safe: bool = False,
    engines: KeptEngines | None = None,
) -> Model:  # fmt: skip
    """Load a release, test its engine and warm it up.

    :param dialect: the service's protocol version.
    :param safe: open no pickle, and no engine that was made from one.
    :param engines: where compiled engines are kept: one that is there is served without opening the model.
    :raises OndolError: with the reason when it cannot be served.
    """
    manifest = releases.model_manifest(release)
    path = files_of(blobs, manifest)
    engines = None if safe or not manifest.artifact else engines
    if engines is not None and (kept := engines.find(manifest.artifact, manifest.format, dialect)) is not None:
        loading.check_files(path, manifest.artifact)
        if (model := _of_kept(release, manifest, kept)) is not None:
            return model
    artifact = loading.load(path, manifest.artifact, manifest.format, dialect=dialect, safe=safe)
    spec = describing.describe(artifact)
    try:
        choice = compiled.choose(artifact.model, spec, name=release.name)
    except Exception as error:  # the model's own code ran: whatever it raised is why it cannot serve
        raise errors.InputError(
            f"the model fails on sample rows: {type(error).__name__}: {error}", where=manifest.uri, code="INP-224"
        ) from error
    about = Kept(
        spec=spec,
        probabilities=compiled.has_probabilities(artifact.model),
        platform=f"{manifest.format}_{artifact.flavour}" if artifact.flavour != manifest.format else manifest.format,
        dialect=artifact.dialect,
        notes=artifact.notes,
        parts=compiled.parts_of(choice.engine),
        proof=choice.proof,
    )
    if engines is not None and about.parts is not None and about.proof is not None:
        engines.put(manifest.artifact, manifest.format, dialect, about)
    return _model(release, manifest, about, replace(choice, proof=None))


def _model(release: Release, manifest: ModelManifest, about: Kept, choice: compiled.Choice) -> Model:
    return Model(
        digest=release.digest,
        version=manifest.version or hashing.short(release.digest),
        spec=about.spec,
        choice=choice,
        batcher=Batcher(choice, about.spec),
        probabilities=about.probabilities,
        platform=about.platform,
        dialect=about.dialect,
        notes=about.notes,
    )


def _of_kept(release: Release, manifest: ModelManifest, kept: Kept) -> Model | None:
    """Return the model with an engine that was kept; None when it does not answer as the original did."""
    try:
        choice = _tested(kept, plain=True)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, there is the original
        log.warning("%s: the kept engine is made anew (%s: %s)", release.name, type(error).__name__, error)
        return None
    model = _model(release, manifest, kept, choice)
    if kept.parts is None or not compiled.is_faster_whole(kept.parts):
        return model

    def faster() -> Model:
        return _model(release, manifest, kept, _tested(kept, plain=False))

    return replace(model, faster=faster)


def _tested(kept: Kept, *, plain: bool) -> compiled.Choice:
    """Return a kept engine that answers as the original did.

    :raises Exception: of any kind, when it does not.
    """
    if kept.parts is None or kept.proof is None:
        raise ValueError("nothing was kept")
    engine, rows = compiled.of_parts(kept.parts, plain=plain), kept.proof.rows
    if trouble := kept.proof.trouble(engine):
        raise ValueError(trouble)
    reason = f"same as the original on {len(rows)} rows, by its recorded answers"
    return compiled.measured(compiled.Choice(engine, reason, len(rows)), rows)


def files_of(blobs: Blobs, manifest: ModelManifest) -> Path:
    """Return where a release's files are: its blob, or where it was registered."""
    path = blobs.path(manifest.artifact)
    return path if path.exists() else Path(manifest.uri.removeprefix("file://"))


def in_own_environment(
    release: Release, path: Path, need: Need, home: Path, *, dialect: str = "v1", safe: bool = False
) -> Model:
    """Load a release in a process of its own, whose environment is built when it is not there yet.

    :raises OndolError: with the reason when it cannot be served there.
    """
    manifest = releases.model_manifest(release)
    environment = environments.ensure(need, home, partial(log.info, "%s: %s", release.name), f"model {release.name!r}")
    asked = {
        "path": str(path), "digest": manifest.artifact, "format": manifest.format, "dialect": dialect, "safe": safe,
    }  # fmt: skip
    logs = home / "logs" / f"{release.name}-predictor.log"
    engine = ModelProcess(environment, need, asked, model_process.code_folder(home), logs)
    ready, spec = engine.ready, engine.spec
    versions = ", ".join(f"{name} {version}" for name, version in ready["packages"].items() if version)
    choice = compiled.Choice(engine, f"an environment of its own ({versions}): {ready['reason']}")
    return Model(
        digest=release.digest,
        version=manifest.version or hashing.short(release.digest),
        spec=spec,
        choice=choice,
        batcher=Batcher(choice, spec),
        probabilities=bool(ready["probabilities"]),
        platform=f"{manifest.format}_{ready['flavour']}" if ready["flavour"] != manifest.format else manifest.format,
        dialect=str(ready["dialect"]),
        notes=(f"runs in an environment of its own: {versions}", *ready["notes"]),
    )


def behind(release: Release, manifest: ModelManifest, pool: Pool) -> Model:
    """Return a model that is a server of the user's own: whole requests go to its processes."""
    choice = compiled.Choice(Elsewhere(), f"its own server: {' '.join(pool.spec.command)[:200]}")
    spec = InputSpec(0)
    return Model(
        digest=release.digest, version=manifest.version or hashing.short(release.digest), spec=spec, choice=choice,
        batcher=Batcher(choice, spec), probabilities=False, platform="process", pool=pool,
    )  # fmt: skip

"""A release made ready to answer: in memory, in an environment of its own, or as processes of the user's own server.

Must not know which releases are wanted, nor who asks.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
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


def load_release(store: Store, blobs: Blobs, release: Release, *, dialect: str = "v1", safe: bool = False) -> Model:
    """Load a release, test its engine and warm it up.

    :param dialect: the service's protocol version.
    :param safe: open no pickle.
    :raises OndolError: with the reason when it cannot be served.
    """
    manifest = releases.model_manifest(release)
    path = files_of(blobs, manifest)
    artifact = loading.load(path, manifest.artifact, manifest.format, dialect=dialect, safe=safe)
    spec = describing.describe(artifact)
    try:
        choice = compiled.choose(artifact.model, spec, name=release.name)
    except Exception as error:  # the model's own code ran: whatever it raised is why it cannot serve
        raise errors.InputError(
            f"the model fails on sample rows: {type(error).__name__}: {error}", where=manifest.uri, code="INP-224"
        ) from error
    return Model(
        digest=release.digest,
        version=manifest.version or hashing.short(release.digest),
        spec=spec,
        choice=choice,
        batcher=Batcher(choice, spec),
        probabilities=compiled.has_probabilities(artifact.model),
        platform=f"{manifest.format}_{artifact.flavour}" if artifact.flavour != manifest.format else manifest.format,
        dialect=artifact.dialect,
        notes=artifact.notes,
    )


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

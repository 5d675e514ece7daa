"""Registered models and runs in MLflow, through its own client.

Every step may be repeated: what it made carries a tag (`ondol.run`, `ondol.digest`) that is looked for first, so that
work interrupted by a crash is done again without a second run or version.
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondol.base import errors, hashing
from ondol.registry import packaging

DIGEST_TAG = "ondol.digest"
RUN_TAG = "ondol.run"
OWN_TAGS = "ondol."
DEFAULT_EXPERIMENT = "Default"
_MAX_VALUE = 5000  # MLflow refuses longer tags and parameters; lineage.json has them whole
_PROXIED = "mlflow-artifacts:/"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One version of a registered model."""

    name: str
    version: str
    run_id: str
    source_path: str
    """The folder with `MLmodel` when artifacts are on this machine, else a URI that MLflow can download."""

    digest: str
    """Digest of the files it was registered from; empty for versions made elsewhere."""

    stage: str = ""
    created_at: float = 0.0
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model's name with its versions, newest first, and its aliases."""

    name: str
    versions: tuple[ModelVersion, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    """Alias -> version."""


class Registry:
    """MLflow as our rooms see it.

    :param tracking_uri: a server's URL, or a database URL that MLflow understands.
    :param artifacts_root: the folder behind `mlflow-artifacts:/` when it is on this machine.
    """

    def __init__(self, tracking_uri: str, artifacts_root: str = "") -> None:
        self.tracking_uri = tracking_uri
        self._artifacts_root = artifacts_root
        self._one_at_a_time = threading.Lock()  # look for a tag, then create: not two at once in this process
        self._made: Any = None

    @property
    def _client(self) -> Any:
        if self._made is None:
            from mlflow.tracking import MlflowClient

            self._made = MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)
        return self._made

    def experiment(self, name: str) -> str:
        """Return the id of the experiment with this name, making it when there is none."""
        from mlflow.exceptions import MlflowException

        with _upstream():
            found = self._client.get_experiment_by_name(name)
            if found is None:
                try:
                    return str(self._client.create_experiment(name))
                except MlflowException:  # somebody else was first
                    found = self._client.get_experiment_by_name(name)
        if found is None:
            raise errors.UpstreamError(f"MLflow can neither find nor make the experiment {name!r}", code="UPS-010")
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def log_run(
        self,
        key: str,
        *,
        experiment: str,
        name: str = "",
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
        status: str = "FINISHED",
        started_at: float = 0.0,
        ended_at: float = 0.0,
        files: Mapping[str, Any] | None = None,
    ) -> str:
        """Write a run once per `key` and return its MLflow id; called again it completes what is missing.

        Tags of ours that an earlier call gave it and this one does not, like the error of a run that has gone on since,
        are taken away.

        :param metrics: logged at step 0 with the time the run ended.
        :param files: JSON documents to keep with the run, by name.
        :raises UpstreamError: when MLflow refuses or does not answer.
        """
        from mlflow.entities import Metric, Param, RunTag

        with self._one_at_a_time, _upstream():
            where = self.experiment(experiment)
            start, end = (int(at * 1000) or None for at in (started_at, ended_at))
            found = self._client.search_runs([where], f"tags.`{RUN_TAG}` = '{_quoted(key)}'", max_results=1)
            # The key is part of creating the run: there is no moment with a run that cannot be found again.
            run = found[0] if found else self._client.create_run(where, start, {RUN_TAG: key}, name or key)
            identifier = str(run.info.run_id)
            at = end or start or int(run.info.start_time)
            self._client.log_batch(
                identifier,
                metrics=[Metric(key, float(value), at, 0) for key, value in (metrics or {}).items()],
                params=[Param(key, str(value)[:_MAX_VALUE]) for key, value in (params or {}).items()],
                tags=[RunTag(key, str(value)[:_MAX_VALUE]) for key, value in (tags or {}).items()],
            )
            for tag in run.data.tags:
                if tag.startswith(OWN_TAGS) and tag != RUN_TAG and tag not in (tags or {}):
                    self._client.delete_tag(identifier, tag)
            for file, document in (files or {}).items():
                self._client.log_dict(identifier, document, file)
            self._client.set_terminated(identifier, status, end)
        return identifier

    def runs_tagged(self, tag: str, value: str) -> Sequence[tuple[str, dict[str, str]]]:
        """Return the runs of all experiments with this tag as (id, tags), oldest first.

        :raises UpstreamError: when MLflow does not answer.
        """
        with _upstream():
            experiments = [str(one.experiment_id) for one in _pages(self._client.search_experiments)]
            found = _pages(self._client.search_runs, experiments, f"tags.`{tag}` = '{_quoted(value)}'")
        found.sort(key=lambda one: one.info.start_time)
        return [(str(one.info.run_id), dict(one.data.tags)) for one in found]

    def log_inputs(self, run: str, inputs: Sequence[tuple[str, str, str]]) -> None:
        """Record the data sets a run read, as (name, digest, URI): MLflow's own lineage."""
        from mlflow.entities import Dataset, DatasetInput

        with _upstream():
            sets = [Dataset(name, hashing.short(digest, 36), "local", uri) for name, digest, uri in inputs]
            if sets:
                self._client.log_inputs(run, [DatasetInput(one, []) for one in sets])

    def register(
        self,
        name: str,
        model_path: Path,
        run_id: str = "",
        tags: Mapping[str, str] | None = None,
        *,
        aliases: Sequence[str] = (),
        example: Sequence[Json] | None = None,
    ) -> ModelVersion:
        """Log a model under its run and register it; the same content gives the same version, however often.

        :param model_path: an MLflow model folder, a joblib or pickle file, or a folder with one.
        :param example: some input records; they become input example and signature.
        :raises InputError: when there is no model there or it cannot be loaded.
        :raises UpstreamError: when MLflow refuses or does not answer.
        """
        source = packaging.find_model(model_path)
        digest = hashing.of_tree(source)
        with self._one_at_a_time, _upstream():
            found = self._version_of(name, digest)
            if found is None:
                self._ensure_model(name)
                model = self._logged_model(name, source, digest, run_id, example)
                found = self._client.create_model_version(
                    name,
                    f"models:/{model}",
                    run_id or None,
                    tags={**(tags or {}), DIGEST_TAG: digest},
                    model_id=model,
                )
            for alias in aliases:
                self._client.set_registered_model_alias(name, alias, found.version)
            return self._version(found)

    def _version_of(self, name: str, digest: str) -> Any:
        found = self._client.search_model_versions(f"name = '{_quoted(name)}' AND tags.`{DIGEST_TAG}` = '{digest}'")
        return max(found, key=lambda version: int(version.version), default=None)

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _logged_model(self, name: str, source: Path, digest: str, run: str, example: Sequence[Json] | None) -> str:
        experiment = str(self._client.get_run(run).info.experiment_id) if run else self.experiment(DEFAULT_EXPERIMENT)
        by_digest = f"tags.`{DIGEST_TAG}` = '{digest}'"
        for known in self._client.search_logged_models([experiment], filter_string=by_digest):
            if str(known.status) == "READY" and (known.source_run_id or "") == run:
                return str(known.model_id)
        model = self._client.create_logged_model(
            experiment, name="model", source_run_id=run or None, tags={DIGEST_TAG: digest, "ondol.model": name}
        )
        identifier = str(model.model_id)
        try:
            with tempfile.TemporaryDirectory(prefix="ondol-model-") as folder:
                packaging.package(source, Path(folder) / "model", model_id=identifier, run=run, example=example)
                self._client.log_model_artifacts(identifier, str(Path(folder) / "model"))
        except errors.OndolError:
            self._client.finalize_logged_model(identifier, "FAILED")
            raise
        self._client.finalize_logged_model(identifier, "READY")
        if run:
            self._link_output(run, identifier)
        return identifier

    def _link_output(self, run: str, model: str) -> None:
        from mlflow.entities import LoggedModelOutput

        self._client.log_outputs(run, [LoggedModelOutput(model, 0)])

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version; the door writes the move to the audit history."""
        with _upstream():
            self._client.set_registered_model_alias(name, alias, version)

    def delete_alias(self, name: str, alias: str) -> None:
        """Remove an alias; nothing happens when there is none."""
        with _upstream():
            self._client.delete_registered_model_alias(name, alias)

    def aliases(self, name: str) -> dict[str, str]:
        """Return a model's aliases and the versions they point at.

        :raises NotFoundError: when there is no such model.
        """
        with _upstream():
            found = self._client.get_registered_model(name)
            return {alias: str(version) for alias, version in found.aliases.items()}

    def version(self, name: str, version: str) -> ModelVersion:
        """Return one version.

        :raises NotFoundError: when there is none.
        """
        with _upstream():
            return self._version(self._client.get_model_version(name, version))

    def list(self) -> list[RegisteredModel]:
        """Return every registered model with its versions, by name."""
        with _upstream():
            found = []
            for model in _pages(self._client.search_registered_models):
                versions = _pages(self._client.search_model_versions, f"name = '{_quoted(model.name)}'")
                known = sorted((self._version(one) for one in versions), key=lambda one: -int(one.version))
                aliases = {alias: str(version) for alias, version in (model.aliases or {}).items()}
                found.append(RegisteredModel(model.name, tuple(known), aliases))
            return sorted(found, key=lambda model: model.name)

    def _version(self, version: Any) -> ModelVersion:
        return ModelVersion(
            version.name,
            str(version.version),
            version.run_id or "",
            self._source_path(version),
            (version.tags or {}).get(DIGEST_TAG, ""),
            "" if version.current_stage in (None, "None") else version.current_stage,
            (version.creation_timestamp or 0) / 1000,
        )

    def _source_path(self, version: Any) -> str:
        uri = f"models:/{version.name}/{version.version}"
        location = str(version.source or "")
        model = getattr(version, "model_id", None) or location.removeprefix("models:/")
        if model.startswith("m-"):
            location = str(self._client.get_logged_model(model).artifact_location)
        if location.startswith(_PROXIED) and self._artifacts_root and "://" not in self._artifacts_root:
            path = Path(self._artifacts_root) / location.removeprefix(_PROXIED).lstrip("/")
            return str(path) if path.is_dir() else uri
        return location.removeprefix("file://") if Path(location.removeprefix("file://")).is_dir() else uri


def _pages(search: Any, *arguments: Any) -> list[Any]:
    found, token = [], None
    while True:
        page = search(*arguments, page_token=token) if token else search(*arguments)
        found.extend(page)
        token = page.token
        if not token:
            return found


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


@contextlib.contextmanager
def _upstream() -> Any:
    """Turn MLflow's exceptions into ours."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        message = str(error.message).splitlines()[0][:500] if error.message else str(error)
        kind = errors.NotFoundError if error.error_code == "RESOURCE_DOES_NOT_EXIST" else errors.UpstreamError
        code = "NOF-020" if kind is errors.NotFoundError else "UPS-011"
        raise kind(f"MLflow says: {message}", where=error.error_code, code=code) from error

"""Experiments, pipelines and their versions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ondol.api.kfp import listing, packages, wire
from ondol.api.kfp.asked import Asked, endpoint, failure, mapping, text
from ondol.base import errors, ids
from ondol.pipelines import requests
from ondol.records.kfp import Experiment, PipelineVersion, RecurringRun, RunRequest, UploadedPipeline
from ondol.store import kfp
from ondol.store.connection import Store

Json = dict[str, Any]
DEFAULT = Experiment("default", "Default", "All runs that were created without specifying an experiment.")
_NAMES = {
    "name": "display_name", "display_name": "display_name", "created_at": "created_at", "description": "description",
    "namespace": "namespace",
}  # fmt: skip
_EXPERIMENTS = {**_NAMES, "id": "experiment_id", "storage_state": "storage_state", "last_run_created_at": "created_at"}
_PIPELINES = {**_NAMES, "id": "pipeline_id", "name": "name"}
_VERSIONS = {**_NAMES, "id": "pipeline_version_id", "name": "name"}
_FETCH_SECONDS = 30.0


class Pipelines:
    """The handlers, over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def routes(self, prefix: str) -> list[Route]:
        """Return the routes; those with a verb behind the id come before the bare id."""

        def of(method: str, path: str, function: Callable[[Asked], Json]) -> Route:
            return Route(prefix + path, endpoint(function), methods=[method])

        return [
            of("GET", "/experiments", self._list_experiments),
            of("POST", "/experiments", self._create_experiment),
            of("POST", "/experiments/{id}:archive", self._archive_experiment),
            of("POST", "/experiments/{id}:unarchive", self._unarchive_experiment),
            of("GET", "/experiments/{id}", lambda asked: wire.experiment(self.experiment(asked.path["id"]))),
            of("DELETE", "/experiments/{id}", self._delete_experiment),
            Route(f"{prefix}/pipelines/upload", self._upload, methods=["POST"]),
            Route(f"{prefix}/pipelines/upload_version", self._upload_version, methods=["POST"]),
            of("POST", "/pipelines/create", self._create_with_version),
            of("GET", "/pipelines/names/{name}", self._named),
            of("GET", "/pipelines", self._list_pipelines),
            of("POST", "/pipelines", self._create_pipeline),
            of("GET", "/pipelines/{id}", lambda asked: wire.pipeline(self._pipeline(asked))),
            of("PATCH", "/pipelines/{id}", self._change_pipeline),
            of("DELETE", "/pipelines/{id}", self._delete_pipeline),
            of("GET", "/pipelines/{id}/versions", self._list_versions),
            of("POST", "/pipelines/{id}/versions", self._create_version),
            of("GET", "/pipelines/{id}/versions/{version}", lambda asked: wire.version(self._version(asked))),
            of("PATCH", "/pipelines/{id}/versions/{version}", self._change_version),
            of("DELETE", "/pipelines/{id}/versions/{version}", self._delete_version),
        ]

    # ------------------------------------------------------------ experiments

    def experiment(self, identifier: str) -> Experiment:
        """Return an experiment; the default one is made when it is first asked for."""
        if identifier in ("", DEFAULT.id):
            found = kfp.find(self._store, Experiment, DEFAULT.id)
            return found or kfp.add(self._store, replace(DEFAULT, created_at=time.time()))
        return kfp.get(self._store, Experiment, identifier)

    def _list_experiments(self, asked: Asked) -> Json:
        self.experiment(DEFAULT.id)  # it is there from the start
        last: dict[str, float] = {}
        for request in kfp.every(self._store, RunRequest):
            last[request.experiment] = max(last.get(request.experiment, 0.0), request.created_at)
        found = kfp.every(self._store, Experiment)
        items = [wire.experiment(one, last.get(one.id, 0.0)) for one in _of_namespace(found, asked)]
        return listing.page(items, asked.query, "experiments", "experiment_id", _EXPERIMENTS)

    def _create_experiment(self, asked: Asked) -> Json:
        given = asked.fields("display_name description namespace storage_state created_at experiment_id")
        name = _required(given, "display_name")
        made = Experiment(
            ids.new_id("exp"),
            name,
            text(given.get("description"), "description", 4096),
            text(given.get("namespace"), "namespace"),
            time.time(),
        )
        return wire.experiment(kfp.add(self._store, made))

    def _archive_experiment(self, asked: Asked) -> Json:
        """Archive an experiment with its runs, and ask for no more of them, as KFP does."""
        one = self.experiment(asked.path["id"])
        kfp.change(self._store, Experiment, one.id, lambda now: replace(now, archived=True))
        for recurring in kfp.every(self._store, RecurringRun):
            if recurring.experiment == one.id:
                kfp.change(self._store, RecurringRun, recurring.id, _disabled)
        for request in kfp.every(self._store, RunRequest, one.id):
            kfp.change(self._store, RunRequest, request.id, lambda now: replace(now, archived=True))
        return {}

    def _unarchive_experiment(self, asked: Asked) -> Json:
        """Bring an experiment back alone: its runs stay archived and its recurring runs disabled, as with KFP."""
        one = self.experiment(asked.path["id"])
        kfp.change(self._store, Experiment, one.id, lambda now: replace(now, archived=False))
        return {}

    def _delete_experiment(self, asked: Asked) -> Json:
        if asked.path["id"] == DEFAULT.id:
            raise errors.StateError("the default experiment stays", code="STA-532")
        kfp.remove(self._store, Experiment, asked.path["id"])
        return {}

    # ------------------------------------------------------------ pipelines

    def _pipeline(self, asked: Asked) -> UploadedPipeline:
        return kfp.get(self._store, UploadedPipeline, asked.path["id"])

    def _named(self, asked: Asked) -> Json:
        found = kfp.named(self._store, UploadedPipeline, asked.path["name"], asked.query.get("namespace", ""))
        if found is None:
            raise errors.NotFoundError(f"no pipeline {asked.path['name']!r}", code="NOF-530")
        return wire.pipeline(found)

    def _list_pipelines(self, asked: Asked) -> Json:
        items = [wire.pipeline(one) for one in _of_namespace(kfp.every(self._store, UploadedPipeline), asked)]
        return listing.page(items, asked.query, "pipelines", "pipeline_id", _PIPELINES)

    def _create_pipeline(self, asked: Asked) -> Json:
        return wire.pipeline(kfp.add(self._store, _pipeline_of(asked)))

    def _create_with_version(self, asked: Asked) -> Json:
        given = asked.fields("pipeline pipeline_version")
        made = _pipeline_of(Asked({}, {}, mapping(given.get("pipeline"), "pipeline")))
        body = mapping(given.get("pipeline_version"), "pipeline_version")
        version = _version_of(Asked({}, {}, body), made.id, made.name)
        kfp.add(self._store, made)
        kfp.add(self._store, version)
        return wire.pipeline(made)

    def _change_pipeline(self, asked: Asked) -> Json:
        changes = _changes(asked)
        changed = kfp.change(self._store, UploadedPipeline, asked.path["id"], lambda one: replace(one, **changes))
        return wire.pipeline(changed)

    def _delete_pipeline(self, asked: Asked) -> Json:
        versions = kfp.every(self._store, PipelineVersion, self._pipeline(asked).id)
        if versions and asked.query.get("cascade", "").lower() != "true":
            raise errors.StateError(
                f"pipeline {asked.path['id']!r} has {len(versions)} versions",
                way_out="Delete them first, or ask with ?cascade=true.",
                code="STA-532",
            )
        for one in versions:
            kfp.remove(self._store, PipelineVersion, one.id)
        kfp.remove(self._store, UploadedPipeline, asked.path["id"])
        return {}

    # ------------------------------------------------------------ versions

    def _version(self, asked: Asked) -> PipelineVersion:
        found = kfp.get(self._store, PipelineVersion, asked.path["version"])
        if found.pipeline != asked.path["id"]:
            raise errors.NotFoundError(
                f"pipeline {asked.path['id']!r} has no version {asked.path['version']!r}", code="NOF-530"
            )
        return found

    def _list_versions(self, asked: Asked) -> Json:
        items = [wire.version(one) for one in kfp.every(self._store, PipelineVersion, self._pipeline(asked).id)]
        return listing.page(items, asked.query, "pipeline_versions", "pipeline_version_id", _VERSIONS)

    def _create_version(self, asked: Asked) -> Json:
        return wire.version(kfp.add(self._store, _version_of(asked, self._pipeline(asked).id)))

    def _change_version(self, asked: Asked) -> Json:
        changes, identifier = _changes(asked), self._version(asked).id
        return wire.version(kfp.change(self._store, PipelineVersion, identifier, lambda one: replace(one, **changes)))

    def _delete_version(self, asked: Asked) -> Json:
        kfp.remove(self._store, PipelineVersion, self._version(asked).id)
        return {}

    # ------------------------------------------------------------ uploads

    async def _upload(self, request: Request) -> Response:
        def keep(query: Json, spec: Json, name: str) -> Json:
            made = _pipeline_of(Asked({}, {}, {**query, "name": query.get("name") or name}))
            kfp.add(self._store, made)
            kfp.add(self._store, _new_version(made.id, made.name, query, spec))
            return wire.pipeline(made)

        return await _uploaded(request, "name display_name description namespace tags", keep)

    async def _upload_version(self, request: Request) -> Response:
        def keep(query: Json, spec: Json, name: str) -> Json:
            pipeline = kfp.get(self._store, UploadedPipeline, str(query.pop("pipelineid", "")))
            made = _new_version(pipeline.id, query.get("name") or name, query, spec)
            return wire.version(kfp.add(self._store, made))

        return await _uploaded(request, "name display_name description pipelineid tags", keep)


async def _uploaded(request: Request, known: str, keep: Callable[[Json, Json, str], Json]) -> Response:
    try:
        query = Asked({}, {}, dict(request.query_params)).fields(known)
        async with request.form(max_files=1, max_part_size=packages.MAX_BYTES) as form:
            file = form.get("uploadfile")
            if not isinstance(file, UploadFile):
                raise errors.InputError("no file", where="uploadfile", code="INP-534")
            content, name = await file.read(packages.MAX_BYTES + 1), file.filename or "pipeline.yaml"
        if len(content) > packages.MAX_BYTES:
            raise errors.InputError(f"more than {packages.MAX_BYTES} bytes", where=name, code="INP-534")

        def whole() -> Json:
            spec = packages.read(content, name)
            requests.compiled_of(spec)
            return keep(query, spec, name.partition(".")[0])

        return JSONResponse(await run_in_threadpool(whole))
    except errors.OndolError as error:
        return failure(error)


def _disabled(one: RecurringRun) -> RecurringRun:
    return replace(one, enabled=False, updated_at=time.time())


def _required(given: Json, name: str) -> str:
    value = text(given.get(name), name)
    if not value:
        raise errors.InputError(f"no {name}", where=name, code="INP-535")
    return value


def _of_namespace(items: list[Any], asked: Asked) -> list[Any]:
    wanted = asked.query.get("namespace", "")
    return [one for one in items if not wanted or one.namespace in ("", wanted)]


def _pipeline_of(asked: Asked) -> UploadedPipeline:
    given = asked.fields("name display_name description namespace tags")
    name = text(given.get("name"), "name", 128) or _required(given, "display_name")
    return UploadedPipeline(
        ids.new_id("pipe"),
        name,
        text(given.get("display_name"), "display_name") or name,
        text(given.get("description"), "description", 4096),
        text(given.get("namespace"), "namespace"),
        time.time(),
        _tags(given.get("tags")),
    )


def _tags(value: object) -> dict[str, str]:
    return {key: text(inner, f"tags.{key}") for key, inner in mapping(value, "tags").items()}


def _version_of(asked: Asked, pipeline: str, name: str = "") -> PipelineVersion:
    """Read a version whose package is fetched from its URL."""
    given = asked.fields("pipeline_id name display_name description package_url code_source_url tags")
    url = text(mapping(given.pop("package_url", None), "package_url").get("pipeline_url"), "package_url", 4096)
    if not url.startswith(("http://", "https://")):
        raise errors.InputError(f"{url!r} is not an http(s) address", where="package_url.pipeline_url", code="INP-535")
    spec = packages.read(_fetch(url), url.rpartition("/")[2])
    requests.compiled_of(spec)
    name = name or text(given.get("name"), "name") or _required(given, "display_name")
    return _new_version(pipeline, name, given, spec)


def _new_version(pipeline: str, name: str, given: Json, spec: Json) -> PipelineVersion:
    return PipelineVersion(
        ids.new_id("ver"),
        pipeline,
        name,
        text(given.get("display_name"), "display_name") or name,
        text(given.get("description"), "description", 4096),
        time.time(),
        text(given.get("code_source_url"), "code_source_url", 4096),
        spec,
        _tags(given.get("tags")) if isinstance(given.get("tags"), dict) else {},
    )


def _changes(asked: Asked) -> Json:
    known = "display_name description tags pipeline_id pipeline_version_id name"
    given = asked.fields(known)
    return {name: given[name] for name in ("display_name", "description", "tags") if name in given}


def _fetch(url: str) -> bytes:
    import httpx

    try:
        answer = httpx.get(url, timeout=_FETCH_SECONDS, follow_redirects=True)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise errors.UpstreamError(f"cannot fetch the package: {error}", where=url, code="UPS-530") from error
    return answer.content

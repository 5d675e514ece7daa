"""Runs and recurring runs."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.routing import Route

from ondol.api.kfp import listing, wire
from ondol.api.kfp.asked import Asked, endpoint, mapping, number, text
from ondol.api.kfp.pipelines import DEFAULT, Pipelines
from ondol.base import errors, ids
from ondol.base.settings import Settings
from ondol.pipelines import requests, schedules
from ondol.records.kfp import Experiment, PipelineVersion, RecurringRun, RunRequest, Trigger, UploadedPipeline
from ondol.records.pipeline import PipelineRun
from ondol.store import kfp, runs
from ondol.store.connection import Store

Json = dict[str, Any]
_NAMES = {
    "name": "display_name", "display_name": "display_name", "created_at": "created_at", "description": "description",
    "experiment_id": "experiment_id", "pipeline_version_id": "pipeline_version_id",
}  # fmt: skip
_RUNS = {
    **_NAMES, "id": "run_id", "run_id": "run_id", "state": "state", "status": "state", "storage_state": "storage_state",
    "scheduled_at": "scheduled_at", "finished_at": "finished_at", "recurring_run_id": "recurring_run_id",
}  # fmt: skip
_RECURRING = {**_NAMES, "id": "recurring_run_id", "status": "status", "mode": "mode", "updated_at": "updated_at"}
_MOST_ARTIFACT_BYTES = 32 * 1024 * 1024
_REFUSED = {
    "service_account": "service accounts are a cluster's; leave service_account out",
    "plugins_input": "plugins of KFP's backend do not run here; MLflow is told of every run anyway",
    "run_details": "a run's details are an answer, not a wish",
}
_ASKED = (
    "experiment_id display_name description pipeline_spec pipeline_version_reference pipeline_version_id runtime_config"
)


class Runs:
    """The handlers, over one store.

    :param wake: called when something was asked for, so that it begins at once.
    """

    def __init__(self, store: Store, settings: Settings, pipelines: Pipelines, wake: Callable[[], None]) -> None:
        self._store, self._home, self._pipelines, self._wake = store, settings.home, pipelines, wake

    def routes(self, prefix: str) -> list[Route]:
        """Return the routes; those with a verb behind the id come before the bare id."""

        def of(method: str, path: str, function: Callable[[Asked], Json]) -> Route:
            return Route(prefix + path, endpoint(function), methods=[method])

        return [
            of("GET", "/runs", self._list),
            of("POST", "/runs", self._create),
            of("POST", "/runs/{id}:archive", self._archive),
            of("POST", "/runs/{id}:unarchive", self._unarchive),
            of("POST", "/runs/{id}:terminate", lambda asked: self._ask(requests.stop, asked)),
            of("POST", "/runs/{id}:retry", lambda asked: self._ask(requests.retry, asked)),
            of("GET", "/runs/{id}/nodes/{node:path}/artifacts/{name}:read", self._artifact),
            of("GET", "/runs/{id}", lambda asked: self._shown(asked.path["id"])),
            of("DELETE", "/runs/{id}", lambda asked: self._ask(requests.delete, asked)),
            of("GET", "/recurringruns", self._list_recurring),
            of("POST", "/recurringruns", self._create_recurring),
            of("POST", "/recurringruns/{id}:enable", lambda asked: self._enable(asked, True)),
            of("POST", "/recurringruns/{id}:disable", lambda asked: self._enable(asked, False)),
            of("GET", "/recurringruns/{id}", lambda asked: wire.recurring(self._recurring(asked))),
            of("DELETE", "/recurringruns/{id}", self._delete_recurring),
        ]

    # ------------------------------------------------------------ runs

    def _list(self, asked: Asked) -> Json:
        wanted = asked.query.get("experiment_id", "")
        records = {record.id: record for record in runs.headers(self._store)}
        asked_for = {one.id: one for one in kfp.every(self._store, RunRequest)}
        items = []
        for identifier in asked_for.keys() | records.keys():
            record = records.get(identifier)
            request = asked_for.get(identifier) or (requests.adopt(record, DEFAULT.id) if record else None)
            if request is None or request.wish == "delete":
                continue
            if not wanted or (request.experiment or DEFAULT.id) == wanted:
                items.append(wire.run(request, record, self._state(request, record), whole=False))
        return listing.page(items, asked.query, "runs", "run_id", _RUNS)

    def _state(self, request: RunRequest, record: PipelineRun | None) -> requests.State:
        return requests.state_now(self._home, request.id, request, record)

    def _shown(self, identifier: str) -> Json:
        record, request = runs.find(self._store, identifier), kfp.find(self._store, RunRequest, identifier)
        request = request or (requests.adopt(record, DEFAULT.id) if record else None)
        if request is None or request.wish == "delete":
            raise errors.NotFoundError(f"no run {identifier!r}", code="NOF-530")
        return wire.run(request, record, self._state(request, record), whole=True)

    def _create(self, asked: Asked) -> Json:
        given = asked.fields(_ASKED + " storage_state recurring_run_id", _REFUSED)
        request = RunRequest(ids.new_id("run"), **self._asked_for(given), created_at=time.time())
        kfp.add(self._store, request)
        self._wake()
        return wire.run(request, None, "PENDING", whole=False)

    def _asked_for(self, given: Json) -> Json:
        """Return what runs and recurring runs have in common, checked."""
        config = _part(given, "runtime_config", "parameters pipeline_root")
        if root := config.get("pipeline_root"):
            raise errors.UnsupportedError(
                f"pipeline_root {root!r}: artifacts are kept in the home's runs folder",
                where="runtime_config.pipeline_root",
                way_out="Leave it out; ONDOL_ARTIFACTS says where MLflow's artifacts go.",
                code="UNS-530",
            )
        spec = mapping(given.get("pipeline_spec"), "pipeline_spec")
        pipeline, version = self._reference(given)
        if bool(spec) == bool(pipeline or version):
            raise errors.InputError(
                "give either pipeline_spec or pipeline_version_reference", where="pipeline_spec", code="INP-530"
            )
        found: Json = {
            "experiment": self._pipelines.experiment(text(given.get("experiment_id"), "experiment_id")).id,
            "display_name": text(given.get("display_name"), "display_name") or "run",
            "description": text(given.get("description"), "description", 4096),
            "spec": spec,
            "pipeline": pipeline,
            "version": version,
            "parameters": mapping(config.get("parameters"), "runtime_config.parameters"),
        }
        probe = RunRequest("", **found)
        requests.check(schedules.spec_of(self._store, probe), found["parameters"])
        return found

    def _reference(self, given: Json) -> tuple[str, str]:
        reference = mapping(given.get("pipeline_version_reference"), "pipeline_version_reference")
        pipeline = text(reference.get("pipeline_id"), "pipeline_version_reference.pipeline_id")
        version = text(reference.get("pipeline_version_id") or given.get("pipeline_version_id"), "pipeline_version_id")
        if version:
            pipeline = kfp.get(self._store, PipelineVersion, version).pipeline
        elif pipeline:
            kfp.get(self._store, UploadedPipeline, pipeline)
        return pipeline, version

    def _archive(self, asked: Asked) -> Json:
        identifier = asked.path["id"]
        if kfp.find(self._store, RunRequest, identifier) is None:
            kfp.add(self._store, requests.adopt(runs.get(self._store, identifier), DEFAULT.id))
        kfp.change(self._store, RunRequest, identifier, lambda one: replace(one, archived=True))
        return {}

    def _unarchive(self, asked: Asked) -> Json:
        run = kfp.get(self._store, RunRequest, asked.path["id"])
        experiment = kfp.find(self._store, Experiment, run.experiment)
        if experiment is not None and experiment.archived:
            raise errors.StateError(
                f"run {run.id!r} is in the archived experiment {experiment.name!r}",
                way_out="Unarchive the experiment first.",
                code="STA-730",
            )
        kfp.change(self._store, RunRequest, run.id, lambda one: replace(one, archived=False))
        return {}

    def _ask(self, what: Callable[[Store, Path, str], None], asked: Asked) -> Json:
        what(self._store, self._home, asked.path["id"])
        self._wake()
        return {}

    def _artifact(self, asked: Asked) -> Json:
        record = runs.find(self._store, asked.path["id"])
        task = record.task(asked.path["node"]) if record else None
        made = task.outputs.get(asked.path["name"]) if task else None
        if made is None or not Path(made.path).is_file():
            raise errors.NotFoundError(
                f"no file {asked.path['name']!r} of step {asked.path['node']!r} in run {asked.path['id']!r}",
                code="NOF-531",
            )
        if Path(made.path).stat().st_size > _MOST_ARTIFACT_BYTES:
            raise errors.InputError(
                f"larger than {_MOST_ARTIFACT_BYTES} bytes",
                way_out=f"It is at {made.path}.",
                code="INP-536",
            )
        return {"data": base64.b64encode(Path(made.path).read_bytes()).decode()}

    # ------------------------------------------------------------ recurring runs

    def _recurring(self, asked: Asked) -> RecurringRun:
        return kfp.get(self._store, RecurringRun, asked.path["id"])

    def _list_recurring(self, asked: Asked) -> Json:
        wanted = asked.query.get("experiment_id", "")
        found = [one for one in kfp.every(self._store, RecurringRun) if not wanted or one.experiment == wanted]
        items = [wire.recurring(one) for one in found]
        return listing.page(items, asked.query, "recurringRuns", "recurring_run_id", _RECURRING)

    def _create_recurring(self, asked: Asked) -> Json:
        given = asked.fields(_ASKED + " trigger mode max_concurrency no_catchup namespace status", _REFUSED)
        trigger = _trigger(_part(given, "trigger", "cron_schedule periodic_schedule"))
        schedules.check(trigger)
        most = number(given.get("max_concurrency", 1), "max_concurrency")
        if not 1 <= most <= schedules.MOST_CONCURRENT:
            raise errors.InputError(
                f"{most} is not from 1 to {schedules.MOST_CONCURRENT}", where="max_concurrency", code="INP-535"
            )
        now = time.time()
        made = RecurringRun(
            ids.new_id("rec"),
            **self._asked_for(given),
            trigger=trigger,
            namespace=text(given.get("namespace"), "namespace"),
            max_concurrency=most,
            no_catchup=given.get("no_catchup") is True,
            enabled=given.get("mode", "ENABLE") in ("ENABLE", 1),
            created_at=now,
            updated_at=now,
        )
        kfp.add(self._store, made)
        self._wake()
        return wire.recurring(made)

    def _enable(self, asked: Asked, enabled: bool) -> Json:
        now = time.time()
        kfp.change(
            self._store, RecurringRun, asked.path["id"], lambda one: replace(one, enabled=enabled, updated_at=now)
        )
        self._wake()
        return {}

    def _delete_recurring(self, asked: Asked) -> Json:
        kfp.remove(self._store, RecurringRun, asked.path["id"])
        return {}


def _part(given: Json, name: str, known: str) -> Json:
    """Return an object inside the body, its fields checked."""
    return Asked({}, {}, mapping(given.get(name), name)).fields(known)


def _trigger(given: Json) -> Trigger:
    cron = _part(given, "cron_schedule", "cron start_time end_time")
    periodic = _part(given, "periodic_schedule", "interval_second start_time end_time")
    span = cron or periodic
    return Trigger(
        text(cron.get("cron"), "trigger.cron_schedule.cron"),
        number(periodic.get("interval_second", 0), "trigger.periodic_schedule.interval_second"),
        wire.seconds_of(span.get("start_time"), "trigger.start_time"),
        wire.seconds_of(span.get("end_time"), "trigger.end_time"),
    )

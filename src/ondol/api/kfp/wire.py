"""Our records in KFP's JSON: field names, states and times as its generated clients read them.

Source: the swagger of kfp-server-api 2.17 (`V2beta1Run` and its kin). Must not read the store.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ondol.base import errors
from ondol.pipelines.requests import State
from ondol.records.kfp import Experiment, PipelineVersion, RecurringRun, RunRequest, Trigger, UploadedPipeline
from ondol.records.pipeline import PipelineRun, TaskRun

Json = dict[str, Any]
_CANCELLED, _UNKNOWN = 1, 2  # google.rpc.Code
_TASK_STATES = {
    "pending": "PENDING",
    "running": "RUNNING",
    "succeeded": "SUCCEEDED",
    "failed": "FAILED",
    "skipped": "SKIPPED",
    "cancelled": "CANCELED",
}


def time_of(seconds: float) -> str | None:
    """Return a time as RFC 3339, or None when there is none."""
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(text: object, where: str) -> float:
    """Read a time of RFC 3339; nothing is 0.

    :raises InputError: INP-532 when it is none.
    """
    if text in (None, ""):
        return 0.0
    try:
        read = datetime.fromisoformat(str(text))
    except ValueError:
        raise errors.InputError(
            f"{text!r} is not a time", where=where, way_out="Write it like 2026-01-31T09:00:00Z.", code="INP-532"
        ) from None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def _given(value: Json) -> Json:
    return {key: inner for key, inner in value.items() if inner not in (None, "", {}, [])}


def experiment(one: Experiment, last_run: float = 0.0) -> Json:
    return _given(
        {
            "experiment_id": one.id,
            "display_name": one.name,
            "description": one.description,
            "namespace": one.namespace,
            "created_at": time_of(one.created_at),
            "last_run_created_at": time_of(last_run),
            "storage_state": _storage(one.archived),
        }
    )


def _storage(archived: bool) -> str:
    return "ARCHIVED" if archived else "AVAILABLE"


def pipeline(one: UploadedPipeline) -> Json:
    return _given(
        {
            "pipeline_id": one.id,
            "name": one.name,
            "display_name": one.display_name or one.name,
            "description": one.description,
            "namespace": one.namespace,
            "created_at": time_of(one.created_at),
            "tags": one.tags,
        }
    )


def version(one: PipelineVersion) -> Json:
    return _given(
        {
            "pipeline_id": one.pipeline,
            "pipeline_version_id": one.id,
            "name": one.name,
            "display_name": one.display_name or one.name,
            "description": one.description,
            "created_at": time_of(one.created_at),
            "code_source_url": one.code_source_url,
            "pipeline_spec": one.spec,
            "tags": one.tags,
        }
    )


def _asked_for(one: RunRequest | RecurringRun) -> Json:
    reference = {"pipeline_id": one.pipeline, "pipeline_version_id": one.version}
    return {
        "experiment_id": one.experiment,
        "display_name": one.display_name,
        "description": one.description,
        "pipeline_spec": one.spec,
        "pipeline_version_id": one.version,
        "pipeline_version_reference": _given(reference),
    }


def run(request: RunRequest, record: PipelineRun | None, state: State, *, whole: bool) -> Json:
    """Return a run.

    KFP's own client waits for `succeeded`, `failed` or `skipped` and would wait for ever for a run that is `CANCELED`:
    a stopped run ends as FAILED with the code CANCELLED; that it was CANCELED is in its history.

    :param whole: with the details of its tasks.
    """
    ended = record.ended_at if record is not None and state not in ("PENDING", "RUNNING", "CANCELING") else 0.0
    message, code = (record.error if record else "") or request.error, _UNKNOWN
    if state == "CANCELED":
        message, code = "the run was terminated", _CANCELLED
    shown = {
        **_asked_for(request),
        "run_id": request.id,
        "storage_state": _storage(request.archived),
        "runtime_config": {"parameters": record.parameters if record else request.parameters},
        "created_at": time_of(request.created_at),
        "scheduled_at": time_of(request.scheduled_at or request.created_at),
        "finished_at": time_of(ended),
        "state": "FAILED" if state == "CANCELED" else state,
        "state_history": _history(request, record, state),
        "recurring_run_id": request.recurring,
    }
    if state in ("FAILED", "CANCELED"):
        shown["error"] = {"code": code, "message": message or "the run failed"}
    if whole and record is not None:
        shown["run_details"] = {"task_details": [_task(record, one) for one in record.tasks]}
    return _given(shown)


def _history(request: RunRequest, record: PipelineRun | None, state: State) -> list[Json]:
    seen: list[tuple[str, float]] = [("PENDING", request.created_at)]
    if record is not None:
        seen.append(("RUNNING", record.started_at))
    if state not in ("PENDING", "RUNNING"):
        seen.append((state, (record.ended_at if record else 0.0) or request.created_at))
    return [_given({"state": name, "update_time": time_of(at)}) for name, at in seen]


def _task(record: PipelineRun, one: TaskRun) -> Json:
    parent, _, name = one.name.rpartition("/")
    children = [other.name for other in record.tasks if other.name.rpartition("/")[0] == one.name]
    shown: Json = {
        "run_id": record.id,
        "task_id": one.name,
        "parent_task_id": parent,
        "display_name": name,
        "create_time": time_of(one.started_at),
        "start_time": time_of(one.started_at),
        "end_time": time_of(one.ended_at),
        "state": _TASK_STATES[one.state],
        "outputs": {key: {"artifact_ids": [f"{one.name}/{key}"]} for key in one.outputs},
        "child_tasks": [{"task_id": child} for child in children],
    }
    if one.state == "failed":
        shown["error"] = {"code": _UNKNOWN, "message": one.error}
    return _given(shown)


def recurring(one: RecurringRun) -> Json:
    shown = {
        **_asked_for(one),
        "recurring_run_id": one.id,
        "namespace": one.namespace,
        "runtime_config": {"parameters": one.parameters},
        "max_concurrency": str(one.max_concurrency),
        "no_catchup": one.no_catchup,
        "mode": "ENABLE" if one.enabled else "DISABLE",
        "status": "ENABLED" if one.enabled else "DISABLED",
        "trigger": _trigger(one.trigger),
        "created_at": time_of(one.created_at),
        "updated_at": time_of(one.updated_at),
    }
    if one.error:
        shown["error"] = {"code": _UNKNOWN, "message": one.error}
    return _given(shown)


def _trigger(one: Trigger) -> Json:
    span = {"start_time": time_of(one.start), "end_time": time_of(one.end)}
    if one.cron:
        return {"cron_schedule": _given({**span, "cron": one.cron})}
    return {"periodic_schedule": _given({**span, "interval_second": str(one.interval_seconds)})}

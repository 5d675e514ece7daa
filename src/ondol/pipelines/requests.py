"""Runs that are asked for instead of started: checked when they are asked for, and where they stand.

A request and its run have the same id; which process runs it is somebody else's business.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ondol.base import errors
from ondol.pipelines import compiling, runner, values
from ondol.pipelines.compiling import Compiled
from ondol.records.kfp import RunRequest, Wish
from ondol.records.pipeline import PipelineRun
from ondol.store import kfp, runs
from ondol.store.connection import Store

State = Literal["PENDING", "RUNNING", "CANCELING", "SUCCEEDED", "FAILED", "CANCELED"]
SUBMITTED = Path("submitted pipeline")


def compiled_of(spec: Mapping[str, Any]) -> Compiled:
    """Return a pipeline from what a client sent: the IR, or `{"pipeline_spec": IR, "platform_spec": …}`.

    :raises InputError: naming what is wrong, or what this machine cannot honour.
    """
    if not isinstance(spec, Mapping) or not spec:
        raise errors.InputError("no pipeline_spec", where="pipeline_spec", code="INP-530")
    documents = [spec["pipeline_spec"], spec.get("platform_spec")] if "pipeline_spec" in spec else [spec]
    return compiling.from_text("\n---\n".join(json.dumps(one) for one in documents if one), SUBMITTED)


def check(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with their defaults and exact types.

    :raises InputError: for a pipeline or a parameter that cannot run here.
    """
    return values.arguments(compiled_of(spec).pipeline, parameters)


def state_of(request: RunRequest | None, record: PipelineRun | None, running: bool) -> State:
    """Return where a run stands, in KFP's words.

    :param running: some process has it now.
    """
    stopping = request is not None and request.wish != "run"
    if running:
        return "CANCELING" if stopping else "RUNNING"
    if record is None:
        return "CANCELED" if stopping else "FAILED" if request is not None and request.error else "PENDING"
    if record.state == "running":  # its process was killed; it goes on, or nobody wants it any more
        if request is not None and request.error:
            return "FAILED"
        return "CANCELED" if stopping else "PENDING"
    ended: dict[str, State] = {"succeeded": "SUCCEEDED", "failed": "FAILED", "cancelled": "CANCELED"}
    return ended[record.state]


def state_now(home: Path, run: str, request: RunRequest | None, record: PipelineRun | None) -> State:
    """Return where a run stands; once its end is written down it has ended, though its process may be closing yet."""
    ended = record is not None and record.state != "running"
    return state_of(request, record, not ended and runner.is_running(home, run))


def stop(store: Store, home: Path, run: str) -> None:
    """Ask that a run be stopped.

    :raises StateError: STA-530 when it has ended already.
    """
    record, request = runs.find(store, run), kfp.find(store, RunRequest, run)
    _known(run, record, request)
    state = state_now(home, run, request, record)
    if state in ("SUCCEEDED", "FAILED", "CANCELED"):
        raise errors.StateError(f"run {run!r} has ended: {state}", code="STA-530")
    _want(store, run, record, "stop")


def retry(store: Store, home: Path, run: str) -> None:
    """Ask that a run that failed or was stopped goes on; finished steps are kept.

    :raises StateError: STA-531 when it has not ended, or has succeeded.
    """
    record, request = runs.find(store, run), kfp.find(store, RunRequest, run)
    _known(run, record, request)
    state = state_now(home, run, request, record)
    if state not in ("FAILED", "CANCELED"):
        raise errors.StateError(f"run {run!r} is {state}: only failed or cancelled runs are retried", code="STA-531")
    again = None if record is None else replace(record, state="running", ended_at=0.0, error="")
    with store.write() as tx:
        if again is not None:
            runs.put_in(tx, again)
            kfp.ensure_in(tx, adopt(again))
        kfp.change_in(tx, RunRequest, run, lambda one: replace(one, wish="run", attempts=0, error="", error_code=""))


def delete(store: Store, home: Path, run: str) -> None:
    """Forget a run and its files; one that is running is stopped first."""
    record, request = runs.find(store, run), kfp.find(store, RunRequest, run)
    _known(run, record, request)
    if runner.is_running(home, run) or state_of(request, record, False) == "PENDING":
        _want(store, run, record, "delete")
    else:
        purge(store, home, run)


def purge(store: Store, home: Path, run: str) -> None:
    """Take away what there is of a run that nobody runs."""
    runs.remove(store, run)
    if kfp.find(store, RunRequest, run):
        kfp.remove(store, RunRequest, run)
    shutil.rmtree(home / "runs" / run, ignore_errors=True)


def adopt(record: PipelineRun, experiment: str = "") -> RunRequest:
    """Return the request that a run started elsewhere would have come from."""
    return RunRequest(
        record.id,
        experiment,
        record.name,
        parameters=dict(record.parameters),
        created_at=record.started_at or time.time(),
    )


def _known(run: str, record: PipelineRun | None, request: RunRequest | None) -> None:
    if record is None and request is None:
        raise errors.NotFoundError(f"no run {run!r}", way_out="`ondol pipeline list` shows them.", code="NOF-530")


def _want(store: Store, run: str, record: PipelineRun | None, wish: Wish) -> None:
    """Write down a wish; a run that was started elsewhere gets a request for it."""
    with store.write() as tx:
        if record is not None:
            kfp.ensure_in(tx, adopt(record))
        kfp.change_in(tx, RunRequest, run, lambda one: replace(one, wish=wish))


def give_up(store: Store, seen: RunRequest, record: PipelineRun) -> None:
    """End a run that nobody runs and nobody wants any more, unless somebody has asked for it again meanwhile."""
    with store.write() as tx:
        if kfp.change_in(tx, RunRequest, seen.id, lambda one: one) == seen:
            runs.put_in(tx, replace(record, state="cancelled", ended_at=time.time()))

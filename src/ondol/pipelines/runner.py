"""Runs a pipeline on this machine: steps in worker processes, independent ones side by side, finished ones reused.

Every change of state is committed before it is announced, so that a killed runner can be resumed: finished steps are
not repeated. Must not know MLflow; runs are mirrored there by the registry.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondol.base import errors, holding, ids
from ondol.base.progress import SILENT, Progress
from ondol.base.settings import Settings
from ondol.formats.kfp_container import PythonCode
from ondol.formats.kfp_graph import Graph, Importer, Pipeline
from ondol.pipelines import caching, compiling, containers, preload, values
from ondol.pipelines.compiling import Compiled
from ondol.pipelines.execution import Execution
from ondol.pipelines.importing import Fetch, Importing
from ondol.pipelines.walk import project_of
from ondol.pipelines.workers import Workers
from ondol.records.pipeline import PipelineRun, RunMode, TaskRun
from ondol.store import runs
from ondol.store.connection import Store

_PIPELINE_FILE = "pipeline.yaml"


def run(
    source: Path,
    parameters: Mapping[str, Any],
    *,
    store: Store,
    settings: Settings,
    progress: Progress = SILENT,
    use_cache: bool | None = None,
    resume: str | None = None,
    pipeline: str = "",
    slots: int | None = None,
    environ: Mapping[str, str] | None = None,
    text_parameters: bool = False,
    registry: Fetch | None = None,
    run_id: str = "",
    origin: str = "",
    debug: str = "",
    in_process: bool | None = None,
) -> PipelineRun:
    """Run a pipeline file to its end and return the finished run.

    `use_cache`, `slots` and `in_process` are kept with the run: where they are left out, a resumed run has them as
    before, and a new one has their defaults (yes, 0, no).

    :param source: a `.py` with a `@dsl.pipeline`, or a compiled `.yaml`.
    :param parameters: values of the pipeline's parameters, of the declared types.
    :param use_cache: reuse outcomes of steps with the same code, inputs and environment.
    :param resume: id of a run that failed, was interrupted or killed: its finished steps are kept.
    :param pipeline: which one, when the file has several.
    :param slots: steps at the same time; 0: as many as there are processors.
    :param environ: added to the steps' environment, like `MLFLOW_TRACKING_URI`.
    :param text_parameters: the parameters are text, as on the command line.
    :param registry: fetches `models:/` and `runs:/` for importers; None: they are refused.
    :param run_id: the new run's id, when somebody has given it one already.
    :param origin: who asked for it: `api`, `cli`; such runs are finished by `ondol up` when they were killed.
    :param debug: the step that runs on the terminal, in a debugger that stops in its function; it is never reused.
    :param in_process: steps share warm processes, one after the other in each: cheaper, and what a step leaves in its
        modules the next one finds. Steps with limits, mounts, secrets or an earlier attempt still get one of their own.
    :raises InputError: for a file, a parameter or something to import that is wrong; nothing has run then.
    :raises ComponentError: when a step failed, after everything is written down.
    :raises ConflictError: when the run to resume is still running.
    """
    if resume:
        record, compiled = _resumed(store, settings.home, resume, source, pipeline)
        resume = record.id
    else:
        compiled = compiling.load(Path(source), store, pipeline)
        given = values.arguments(compiled.pipeline, parameters, text=text_parameters)
        _check_debug(compiled, debug)
        containers.images(compiled.pipeline, project_of(settings), str(compiled.source))
        _check_importers(compiled, given, Importing(settings.home, registry))
        record = PipelineRun(
            run_id or ids.new_id("run"),
            compiled.pipeline.name,
            "running",
            given,
            started_at=time.time(),
            source=str(compiled.source),
            digest=compiled.digest,
            notes=compiled.pipeline.notes,
            origin=origin,
        )
    folder = settings.home / "runs" / record.id
    folder.mkdir(parents=True, exist_ok=True)
    with _owned(folder, record.id):
        if not resume:
            (folder / _PIPELINE_FILE).write_text(compiled.text, encoding="utf-8")
        prior = _finished_tasks(record, store, settings.home) if resume else {}
        attempts = {task.name: task.attempt for task in record.tasks}
        mode = _mode(record.mode, in_process, slots, use_cache)
        record = replace(record, state="running", ended_at=0.0, error="", tasks=(), mode=mode)
        runs.put(store, record)
        codes = [part.body for part in compiled.pipeline.components.values() if isinstance(part.body, PythonCode)]
        workers = Workers(folder, environ or {}, preload.modules(codes))
        execution = Execution(compiled, record, store, settings, progress, workers, prior, registry, debug)
        execution.attempts = attempts
        return execution.to_the_end()


def _mode(before: RunMode, in_process: bool | None, slots: int | None, use_cache: bool | None) -> RunMode:
    """Return how a run goes on: as before, but for what is wanted otherwise now."""
    return RunMode(
        before.in_process if in_process is None else in_process,
        before.slots if slots is None else slots,
        before.use_cache if use_cache is None else use_cache,
    )


def _resumed(store: Store, home: Path, resume: str, source: Path, pipeline: str) -> tuple[PipelineRun, Compiled]:
    record = runs.get(store, resume)
    if record.state == "succeeded":
        raise errors.StateError(
            f"run {record.id!r} has succeeded: there is nothing to resume",
            way_out="Run the pipeline again; unchanged steps are reused.",
            code="STA-010",
        )
    if str(source) in ("", "."):
        source = Path(record.source)
    kept = home / "runs" / record.id / _PIPELINE_FILE
    if source.is_file() or not kept.is_file():
        compiled = compiling.load(source, store, pipeline or (record.name if source.suffix == ".py" else ""))
    else:
        compiled = compiling.from_text(kept.read_text(encoding="utf-8"), source)
    if compiled.digest != record.digest:
        raise errors.StateError(
            f"the pipeline changed since run {record.id!r} began",
            where=str(source),
            way_out="Start a new run: unchanged steps are reused all the same.",
            code="STA-011",
        )
    return record, compiled


def _finished_tasks(record: PipelineRun, store: Store, home: Path) -> dict[str, TaskRun]:
    from ondol.store.blobs import Blobs

    blobs, kept = Blobs(home / "blobs"), {}
    for task in record.tasks:
        if task.state == "succeeded" and not task.graph:
            outputs = caching.restored(task.outputs, blobs, home / "runs" / record.id / task.name)
            if outputs is not None:
                kept[task.name] = replace(task, outputs=outputs)
    return kept


def kept_pipeline(record: PipelineRun, home: Path) -> Pipeline:
    """Return the pipeline that a run ran, as it was then.

    :raises InputError: when the run's folder was removed.
    """
    kept = home / "runs" / record.id / _PIPELINE_FILE
    try:
        return compiling.from_text(kept.read_text(encoding="utf-8"), Path(record.source)).pipeline
    except OSError as error:
        raise errors.InputError(f"run {record.id!r} keeps no pipeline: {error}", code="INP-506") from error


def is_running(home: Path, run_id: str) -> bool:
    """Whether some process is running this run now."""
    return holding.is_held(home / "runs" / run_id / "lock")


def runner_of(home: Path, run_id: str) -> int | None:
    """Return the id of the process that is running this run, or None."""
    if not is_running(home, run_id):
        return None
    with contextlib.suppress(OSError, ValueError):
        return int((home / "runs" / run_id / "lock").read_text())
    return None


@contextlib.contextmanager
def _owned(folder: Path, run_id: str) -> Iterator[None]:
    """Hold the run: the kernel lets go when this process dies, however it dies."""
    with (folder / "lock").open("a+") as file:
        if not holding.take(file):
            raise errors.ConflictError(
                f"run {run_id!r} is running", way_out=f"`ondol pipeline show {run_id}` follows it.", code="CON-010"
            )
        _heed_a_stop()
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _heed_a_stop() -> None:
    """Listen to SIGINT, by which runs are stopped: what a script starts in its background is born deaf to it."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _check_debug(compiled: Compiled, debug: str) -> None:
    """Refuse to debug what is no Python step of the pipeline; items of loops are named like `loop/0/step`."""
    body: Any = compiled.pipeline.root.body
    for part in debug.split("/") if debug else ():
        if part.isdigit() and isinstance(body, Graph):
            continue
        task = body.tasks.get(part) if isinstance(body, Graph) else None
        if task is None:
            names = ", ".join(body.tasks) if isinstance(body, Graph) else "nothing"
            raise errors.InputError(
                f"no step {debug!r} to debug: there is no {part!r}", way_out=f"There is: {names}.", code="INP-505"
            )
        body = compiled.pipeline.components[task.component].body
    if debug and not isinstance(body, PythonCode):
        raise errors.InputError(f"{debug!r} is no Python step: there is nothing to debug in it", code="INP-505")


def _check_importers(compiled: Compiled, parameters: Mapping[str, Any], importing: Importing) -> None:
    """Refuse addresses that mean nothing on this machine, and missing files, before anything runs."""
    root = compiled.pipeline.root.body
    assert isinstance(root, Graph)
    for task in root.tasks.values():
        body = compiled.pipeline.components[task.component].body
        if isinstance(body, Importer):
            given = task.parameters.get(body.uri.input) if body.uri.input else body.uri
            uri = parameters.get(given.input) if given and given.input else (given.constant if given else None)
            if isinstance(uri, str) and "{{$" not in uri:
                importing.check(uri, f"importer {task.name!r}")

"""Runs a pipeline on this machine: steps in worker processes, independent ones side by side, finished ones reused.

Every change of state is committed before it is announced, so that a killed runner can be resumed: finished steps are
not repeated. Must not know MLflow; runs are mirrored there by the registry.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import queue
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondol.base import errors, ids
from ondol.base.environments import Environment
from ondol.base.progress import SILENT, Progress
from ondol.base.settings import Settings
from ondol.formats.kfp_container import PythonCode
from ondol.formats.kfp_graph import Graph, Importer
from ondol.pipelines import caching, compiling, environments, plan, preload, steps, values
from ondol.pipelines.compiling import Compiled
from ondol.pipelines.flow import Ended, Node, sum_up
from ondol.pipelines.steps import Outcome, Work
from ondol.pipelines.walk import Ready, Walk
from ondol.pipelines.workers import Workers
from ondol.records.pipeline import PipelineRun, RunState, TaskRun
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
    use_cache: bool = True,
    resume: str | None = None,
    pipeline: str = "",
    slots: int = 0,
    environ: Mapping[str, str] | None = None,
    text_parameters: bool = False,
) -> PipelineRun:
    """Run a pipeline file to its end and return the finished run.

    :param source: a `.py` with a `@dsl.pipeline`, or a compiled `.yaml`.
    :param parameters: values of the pipeline's parameters, of the declared types.
    :param use_cache: reuse outcomes of steps with the same code, inputs and environment.
    :param resume: id of a run that failed, was interrupted or killed: its finished steps are kept.
    :param pipeline: which one, when the file has several.
    :param slots: steps at the same time; 0: as many as there are processors.
    :param environ: added to the steps' environment, like `MLFLOW_TRACKING_URI`.
    :param text_parameters: the parameters are text, as on the command line.
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
        _check_importers(compiled, given)
        record = PipelineRun(
            ids.new_id("run"),
            compiled.pipeline.name,
            "running",
            given,
            started_at=time.time(),
            source=str(compiled.source),
            digest=compiled.digest,
            notes=compiled.pipeline.notes,
        )
    folder = settings.home / "runs" / record.id
    folder.mkdir(parents=True, exist_ok=True)
    with _owned(folder, record.id):
        if not resume:
            (folder / _PIPELINE_FILE).write_text(compiled.text, encoding="utf-8")
        prior = _finished_tasks(record, store, settings.home) if resume else {}
        attempts = {task.name: task.attempt for task in record.tasks}
        record = replace(record, state="running", ended_at=0.0, error="", tasks=())
        runs.put(store, record)
        codes = [part.body for part in compiled.pipeline.components.values() if isinstance(part.body, PythonCode)]
        workers = Workers(folder, environ or {}, preload.modules(codes))
        runner = _Runner(compiled, record, store, settings, progress, workers, use_cache, prior, slots)
        runner.attempts = attempts
        return runner.to_the_end()


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


def is_running(home: Path, run_id: str) -> bool:
    """Whether some process is running this run now."""
    path = home / "runs" / run_id / "lock"
    if not path.exists():
        return False
    with path.open("r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def _owned(folder: Path, run_id: str) -> Iterator[None]:
    """Hold the run: the kernel lets go when this process dies, however it dies."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.ConflictError(
                f"run {run_id!r} is running", way_out=f"`ondol pipeline show {run_id}` follows it.", code="CON-010"
            ) from None
        yield


def _check_importers(compiled: Compiled, parameters: Mapping[str, Any]) -> None:
    """Refuse addresses that are not on this machine, and missing files, before anything runs."""
    root = compiled.pipeline.root.body
    assert isinstance(root, Graph)
    for task in root.tasks.values():
        body = compiled.pipeline.components[task.component].body
        if isinstance(body, Importer):
            given = task.parameters.get(body.uri.input) if body.uri.input else body.uri
            uri = parameters.get(given.input) if given and given.input else (given.constant if given else None)
            if isinstance(uri, str) and "{{$" not in uri:
                path = steps.local_path(uri, f"importer {task.name!r}")
                if not path.exists():
                    raise errors.InputError(
                        f"nothing to import at {uri!r}",
                        where=f"importer {task.name!r}",
                        way_out=f"Looked at {path}.",
                        code="INP-017",
                    )


class _Runner(Walk):
    """One run in progress. Only this thread writes states; threads of the pool wait for workers."""

    def __init__(
        self,
        compiled: Compiled,
        record: PipelineRun,
        store: Store,
        settings: Settings,
        progress: Progress,
        workers: Workers,
        use_cache: bool,
        prior: dict[str, TaskRun],
        slots: int,
    ) -> None:
        super().__init__(
            compiled,
            dict(record.parameters),
            run=record.id,
            store=store,
            home=settings.home,
            use_cache=use_cache,
            prior=prior,
        )
        self.record, self.progress, self.workers = record, progress, workers
        self.slots = slots or os.cpu_count() or 1
        self.pool = ThreadPoolExecutor(self.slots, thread_name_prefix="ondol-step")
        self.done: queue.SimpleQueue[tuple[Ready, TaskRun, Outcome]] = queue.SimpleQueue()
        self.running: dict[str, TaskRun] = {}
        self.waiting: deque[Ready] = deque()
        self.later: list[tuple[float, int, Ready]] = []
        self.attempts: dict[str, int] = {}  # how often each task was started, over all resumptions
        self.tries: dict[str, int] = {}
        self.error: errors.ComponentError | None = None
        self.stage = f"pipeline {record.name}"

    def to_the_end(self) -> PipelineRun:
        total = sum(1 for _ in _leaves(self.compiled))
        self.progress.start(self.stage, total)
        for line in self.record.notes:
            self.progress.advance(self.stage, 0, line)
        try:
            self._loop()
        except BaseException as error:
            self._cancelled(error)
            raise
        finally:
            self.workers.stop()
            self.pool.shutdown(wait=True, cancel_futures=True)
        return self._ended()

    def _loop(self) -> None:
        self.advance()
        while self.running or self.later or self.waiting:
            while self.waiting and len(self.running) < self.slots:
                self._submit(self.waiting.popleft())
            wait = max(0.0, self.later[0][0] - time.monotonic()) if self.later else None
            try:
                ready, task, outcome = self.done.get(timeout=wait)
            except queue.Empty:
                self.waiting.append(heapq.heappop(self.later)[2])
                continue
            self.running.pop(task.name, None)
            self._settle(ready, task, outcome)
            self.advance()

    # ------------------------------------------------------------ steps

    def environment(self, node: Node, code: PythonCode) -> Environment:
        return environments.ensure(
            code, self.home, lambda text: self.progress.advance(self.stage, 0, f"{node.path}: {text}")
        )

    def launch(self, ready: Ready) -> None:
        self.waiting.append(ready)

    def _submit(self, ready: Ready) -> None:
        node = ready.node
        attempt = self.attempts.get(node.path, 0) + 1
        self.attempts[node.path] = attempt
        folder = self.folder / node.path / f"attempt-{attempt}"
        task = TaskRun(
            node.path,
            "running",
            inputs=dict(ready.inputs.parameters),
            started_at=time.time(),
            log_path=str(folder / "log.txt"),
            attempt=attempt,
            key=caching.key_of(ready.ingredients),
        )
        self.note(node, task)
        self.running[node.path] = task
        work = Work(
            node.path,
            node.component,
            ready.code,
            ready.inputs.parameters,
            ready.inputs.artifacts,
            folder,
            self.compiled.origins.get(_source_key(ready.code)),
        )
        python = environments.find(ready.code, self.home).python
        self.pool.submit(self._work, ready, task, work, python)

    def _work(self, ready: Ready, task: TaskRun, work: Work, python: str) -> None:
        try:
            outcome = steps.run(work, lambda: self.workers.of(python), self.blobs)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that decides
            outcome = Outcome(error=errors.ComponentError(f"step {work.name!r} could not run: {error}", code="RUN-012"))
        self.done.put((ready, task, outcome))

    def _settle(self, ready: Ready, task: TaskRun, outcome: Outcome) -> None:
        node, retry = ready.node, ready.node.task.retry
        ended_at = time.time()
        if outcome.error is None:
            task = replace(
                task, state="succeeded", outputs=outcome.outputs, parameters=outcome.parameters, ended_at=ended_at
            )
            self.note(node, task, ready)
            self._succeed(node, task)
            return
        tries = self.tries[node.path] = self.tries.get(node.path, 0) + 1
        failed = replace(task, state="failed", ended_at=ended_at, error=outcome.error.message)
        if retry is not None and tries <= retry.times:
            wait = min(retry.wait * retry.factor ** (tries - 1), retry.longest)
            runs.put_task(self.store, self.run, failed)
            self.progress.advance(self.stage, 0, f"{node.path}: {outcome.error.message}; try {tries + 1} in {wait:g} s")
            heapq.heappush(self.later, (time.monotonic() + wait, id(ready), ready))
            return
        self.note(node, failed)
        self.fail(node, outcome.error)
        self.finish(node, Ended("failed", error=outcome.error.message))

    def fail(self, node: Node, error: errors.ComponentError) -> None:
        if self.error is None:
            self.error = error

    # ------------------------------------------------------------ states

    def note(self, node: Node, task: TaskRun, ready: Ready | None = None) -> None:
        if ready is not None and ready.ingredients and task.state == "succeeded":
            runs.finish_task(self.store, self.run, task, plan.step_name(self.compiled, node), ready.ingredients)
        else:
            runs.put_task(self.store, self.run, task)
        if not task.graph:
            ended = task.state not in ("running", "pending")
            self.progress.advance(self.stage, 1 if ended else 0, describe(task))

    def _ended(self) -> PipelineRun:
        failed = any(ended.state == "failed" for ended in self.flow.root.ended.values())
        message = self.error.message if self.error else ""
        outputs = dict(sum_up(self.flow.root).parameters)
        self.record = replace(
            self.record, state="failed" if failed else "succeeded", ended_at=time.time(), error=message, outputs=outputs
        )
        runs.put(self.store, self.record)
        finished = runs.get(self.store, self.record.id)
        if failed:
            raise self.error or errors.ComponentError(f"run {self.run!r} failed", code="RUN-010")
        self.progress.finish(self.stage, summary(finished))
        return finished

    def _cancelled(self, error: BaseException) -> None:
        """Write down that the run was stopped, whatever stopped it."""
        now = time.time()
        self.workers.stop()
        with contextlib.suppress(errors.OndolError):
            for task in self.running.values():
                runs.put_task(self.store, self.run, replace(task, state="cancelled", ended_at=now))
            state: RunState = "cancelled" if isinstance(error, KeyboardInterrupt) else "failed"
            message = str(error) or type(error).__name__
            runs.put(self.store, replace(self.record, state=state, ended_at=now, error=message))


def _source_key(code: PythonCode) -> str:
    import hashlib

    return hashlib.sha256(code.source.encode()).hexdigest()


def _leaves(compiled: Compiled) -> Iterator[str]:
    """Yield the steps of a pipeline, nested ones included."""
    graphs = [compiled.pipeline.root.body]
    while graphs:
        body = graphs.pop()
        assert isinstance(body, Graph)
        for task in body.tasks.values():
            inner = compiled.pipeline.components[task.component].body
            if isinstance(inner, Graph):
                graphs.append(inner)
            else:
                yield task.name


def describe(task: TaskRun) -> str:
    """Return one line for people about a task's state."""
    if task.cached:
        return f"{task.name}: reused"
    if task.state == "running":
        return f"{task.name}: running"
    if task.state in ("skipped", "failed") and task.error:
        return f"{task.name}: {task.state}, {task.error}"
    took = f" in {task.ended_at - task.started_at:.1f} s" if task.ended_at else ""
    return f"{task.name}: {task.state}{took}"


def summary(record: PipelineRun) -> str:
    """Return one line for people about a finished run."""
    leaves = [task for task in record.tasks if not task.graph]
    reused = sum(task.cached for task in leaves)
    return f"{len(leaves)} steps, {reused} reused, {record.ended_at - record.started_at:.1f} s ({record.id})"

"""A run in progress: which steps start when, and how each end is written down before it is announced.

Only one thread decides and writes states; threads of a pool wait for the workers. Must not know where runs come from
or how they are resumed.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import os
import queue
import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from ondol.base import errors
from ondol.base.environments import Environment
from ondol.base.progress import Progress
from ondol.base.settings import Settings
from ondol.formats.kfp_container import Code, PythonCode
from ondol.formats.kfp_graph import Claim, Component, Graph
from ondol.pipelines import caching, environments, plan, resources, steps, surroundings, tracking
from ondol.pipelines.compiling import Compiled
from ondol.pipelines.flow import Ended, Inputs, Node, sum_up
from ondol.pipelines.importing import Fetch
from ondol.pipelines.resources import Resources
from ondol.pipelines.steps import Outcome, Work
from ondol.pipelines.surroundings import Surroundings
from ondol.pipelines.walk import Ready, Walk
from ondol.pipelines.workers import Terminal, Worker, Workers
from ondol.records.pipeline import PipelineRun, RunState, TaskRun
from ondol.store import runs
from ondol.store.connection import Store

_MOST_LOSSES = 3
"""How often a step is started again because its worker was killed; a step that kills each of them fails."""


class Execution(Walk):
    """One run in progress. Only this thread writes states; threads of the pool wait for workers."""

    def __init__(
        self,
        compiled: Compiled,
        record: PipelineRun,
        store: Store,
        settings: Settings,
        progress: Progress,
        workers: Workers,
        prior: dict[str, TaskRun],
        registry: Fetch | None,
        debug: str = "",
    ) -> None:
        super().__init__(
            compiled,
            dict(record.parameters),
            run=record.id,
            store=store,
            settings=settings,
            use_cache=record.mode.use_cache,
            prior=prior,
            registry=registry,
        )
        self.record, self.progress, self.workers = record, progress, workers
        self.debug = debug
        self.slots = record.mode.slots or os.cpu_count() or 1
        self.pool = ThreadPoolExecutor(self.slots, thread_name_prefix="ondol-step")
        self.done: queue.SimpleQueue[tuple[Ready, TaskRun, Outcome]] = queue.SimpleQueue()
        self.running: dict[str, tuple[TaskRun, Resources]] = {}
        self.waiting: deque[Ready] = deque()
        self.needs: dict[str, tuple[Resources, Surroundings]] = {}
        self.later: list[tuple[float, int, Ready]] = []
        self.attempts: dict[str, int] = {}  # how often each task was started, over all resumptions
        self.tries: dict[str, int] = {}
        self.losses: dict[str, int] = {}
        self.told: list[tuple[Component, str]] = []
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
            while self.waiting and self._fits(self.waiting[0]):
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

    def environment(self, node: Node, code: Code) -> Environment:
        return environments.ensure(
            code, self.image(node), self.home, lambda text: self.progress.advance(self.stage, 0, f"{node.path}: {text}")
        )

    def launch(self, ready: Ready) -> None:
        node, code = ready.node, ready.code
        needs = resources.of(code.resources, ready.inputs.parameters, node.path)
        around = surroundings.of(
            code.platform,
            lambda name: self.flow.named(node, name),
            settings=self.settings,
            environ=os.environ,
            facts=self.flow.facts(node),
            step=node.path,
            scratch=self.folder / node.path / "scratch",
        )
        self.needs[node.path] = needs, around
        self.waiting.append(ready)

    def claim(self, node: Node, claim: Claim, inputs: Inputs) -> TaskRun | None:
        asked, now = inputs.parameters, time.time()
        name = str(asked.get("pvc_name") or f"{self.run}{asked.get('pvc_name_suffix', '')}")
        folder = surroundings.volume(self.settings, name)
        if claim.action == "delete":
            shutil.rmtree(folder, ignore_errors=True)
        else:
            folder.mkdir(parents=True, exist_ok=True)
        made = {"name": name} if claim.action == "create" else {}
        return TaskRun(node.path, "succeeded", parameters=made, inputs=dict(asked), started_at=now, ended_at=now)

    def _fits(self, ready: Ready) -> bool:
        """Whether the slots that a step asks for are free; one that asks for more than there are runs alone."""
        taken = sum(needs.slots for _, needs in self.running.values())
        return not self.running or taken + self.needs[ready.node.path][0].slots <= self.slots

    def _submit(self, ready: Ready) -> None:
        node, (needs, around) = ready.node, self.needs[ready.node.path]
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
        self.running[node.path] = task, needs
        work = Work(
            node.path,
            node.component,
            ready.code,
            ready.inputs.parameters,
            ready.inputs.artifacts,
            folder,
            self.compiled.origins.get(_source_key(ready.code)),
            self.image(node),
            facts=self.flow.facts(node),
            surroundings=around,
            memory=needs.memory,
            seconds=ready.code.platform.deadline,
            environ=tracking.variables(self.record, task, ready.code.env),
        )
        work = replace(work, shared=self._shares(node, work, attempt))
        python = environments.find(ready.code, self.image(node), self.home).python
        if not isinstance(ready.code, PythonCode):
            # A command needs its environment's programs, and no kfp: any worker may start it.
            cwd = str(self.settings.project) if work.image.command else ""
            work, python = replace(work, programs=str(Path(python).parent), cwd=cwd), sys.executable
        if node.path == self.debug and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the debugger's, until its step has ended
        self.pool.submit(self._work, ready, task, work, python)

    def _shares(self, node: Node, work: Work, attempt: int) -> bool:
        """Whether a step runs in a process with others; when it cannot though it should, that is said once."""
        asked = self.record.mode.in_process
        reason = steps.needs_a_process(work, attempt) if asked else ""
        if reason and (node.component, reason) not in self.told:
            self.told.append((node.component, reason))
            self.progress.advance(self.stage, 0, f"{node.path}: in a process of its own, for {reason}")
        return asked and not reason

    def reusable(self, node: Node) -> bool:
        return self.use_cache and node.path != self.debug

    def _work(self, ready: Ready, task: TaskRun, work: Work, python: str) -> None:
        def worker() -> Worker | Terminal:
            return self.workers.terminal(python) if work.name == self.debug else self.workers.of(python)

        try:
            outcome = steps.run(work, worker, self.blobs)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that decides
            outcome = Outcome(error=errors.ComponentError(f"step {work.name!r} could not run: {error}", code="RUN-012"))
        self.done.put((ready, task, outcome))

    def _settle(self, ready: Ready, task: TaskRun, outcome: Outcome) -> None:
        node, retry = ready.node, ready.node.task.retry
        ended_at = time.time()
        if node.path == self.debug and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if outcome.error is None:
            task = replace(
                task, state="succeeded", outputs=outcome.outputs, parameters=outcome.parameters, ended_at=ended_at
            )
            # What a debugged step made may be what somebody typed: it counts for this run only.
            self.note(node, task, None if node.path == self.debug else ready)
            self._succeed(node, task)
            return
        failed = replace(task, state="failed", ended_at=ended_at, error=outcome.error.message)
        if outcome.lost and self.losses.get(node.path, 0) < _MOST_LOSSES:
            self.losses[node.path] = self.losses.get(node.path, 0) + 1
            runs.put_task(self.store, self.run, failed)
            self.progress.advance(self.stage, 0, f"{node.path}: {outcome.error.message}; it starts again")
            self.waiting.appendleft(ready)
            return
        tries = self.tries[node.path] = self.tries.get(node.path, 0) + 1
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
            for task, _ in self.running.values():
                runs.put_task(self.store, self.run, replace(task, state="cancelled", ended_at=now))
            state: RunState = "cancelled" if isinstance(error, KeyboardInterrupt) else "failed"
            message = str(error) or type(error).__name__
            runs.put(self.store, replace(self.record, state=state, ended_at=now, error=message))


def _source_key(code: Code) -> str:
    return hashlib.sha256(code.source.encode()).hexdigest() if isinstance(code, PythonCode) else ""


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

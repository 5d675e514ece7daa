"""Walks a pipeline for a plan or for a run: skips, opens nested pipelines, imports, looks outcomes up.

What is left, a step that must really run, goes to `launch`. Must not start processes itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

from ondol.base import errors, hashing
from ondol.base.environments import Environment
from ondol.base.settings import PROJECT_FILE, Settings
from ondol.formats.kfp_container import Code, ContainerCode
from ondol.formats.kfp_graph import Claim, Graph, Importer, Source
from ondol.pipelines import caching, containers, environments, values
from ondol.pipelines.compiling import Compiled
from ondol.pipelines.flow import Artifacts, Ended, Flow, Inputs, Iterations, Node, gathered
from ondol.pipelines.importing import Fetch, Importing
from ondol.records.pipeline import TaskRun
from ondol.records.project import ImageSpec, Project
from ondol.store.blobs import Blobs
from ondol.store.connection import Store


@dataclass(frozen=True, slots=True)
class Ready:
    """A step whose inputs are there and which must run."""

    node: Node
    code: Code
    inputs: Inputs
    ingredients: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    """Why it runs instead of being reused."""


_ANY = ImageSpec()


def project_of(settings: Settings) -> Project:
    """Return the project's own facts; without an ondol.yaml there are none."""
    from ondol.formats import project

    return project.load(settings.project) if (settings.project / PROJECT_FILE).is_file() else Project(name="")


class Walk(ABC):
    """What planning and running have in common.

    :param prior: tasks that a resumed run has finished already.
    """

    def __init__(
        self,
        compiled: Compiled,
        parameters: dict[str, Any],
        *,
        run: str,
        store: Store,
        settings: Settings,
        use_cache: bool,
        prior: dict[str, TaskRun],
        registry: Fetch | None = None,
    ) -> None:
        self.compiled, self.run, self.store, self.settings, self.home = compiled, run, store, settings, settings.home
        self.folder = self.home / "runs" / run
        self.workspace = self.home / "workspaces" / run
        self.blobs = Blobs(self.home / "blobs")
        self.importing = Importing(self.home, registry)
        self.images = containers.images(compiled.pipeline, project_of(settings), str(compiled.source))
        self.use_cache = use_cache
        self.prior = prior
        job = f"{compiled.pipeline.name}-{run.removeprefix('run-')}"
        facts = {
            "pipeline_job_name": job,
            "pipeline_job_resource_name": job,
            "pipeline_job_uuid": run,
            "pipeline_root": str(self.folder),
            "workspace_path": str(self.workspace),
        }
        self.flow = Flow(compiled.pipeline, parameters, facts, self._given(parameters))

    # What planning and running do differently.

    @abstractmethod
    def launch(self, ready: Ready) -> None:
        """A step must run."""

    @abstractmethod
    def note(self, node: Node, task: TaskRun, ready: Ready | None = None) -> None:
        """A task's state is new: write it down before it is announced."""

    @abstractmethod
    def claim(self, node: Node, claim: Claim, inputs: Inputs) -> TaskRun | None:
        """Make or remove a volume; None: not now, it is only planned."""

    def image(self, node: Node) -> ImageSpec:
        """Return what the image of a step means here."""
        return self.images.get(node.component.name, _ANY)

    def environment(self, node: Node, code: Code) -> Environment:
        """Return where a step would run."""
        return environments.find(code, self.image(node), self.home)

    # What they do alike.

    def _given(self, parameters: dict[str, Any]) -> Artifacts:
        """Bring in the artifacts that the pipeline itself takes."""
        given: Artifacts = {}
        for name, slot in self.compiled.pipeline.root.artifacts.items():
            if name in parameters:
                importer = Importer(Source(), slot.type, slot.version)
                given[name] = (self.importing.artifact(name, importer, str(parameters[name]), {}),)
        return given

    def advance(self) -> None:
        """Handle every task that is ready now."""
        while self.flow.ready:
            self._handle(self.flow.ready.popleft())

    def finish(self, node: Node, ended: Ended) -> None:
        """A task has ended; nested pipelines may end with it."""
        for closed, how in self.flow.end(node, ended):
            self.note(closed, TaskRun(closed.path, how.state, parameters=_plain(how), graph=True, error=how.error))

    def _handle(self, node: Node) -> None:
        try:
            self._start(node)
        except errors.UnsupportedError:
            raise
        except errors.InputError as error:
            self.note(node, TaskRun(node.path, "failed", error=error.message))
            self.fail(
                node,
                errors.ComponentError(
                    f"step {node.path!r} cannot start: {error.message}",
                    where=error.where,
                    way_out=error.way_out,
                    code="RUN-011",
                ),
            )
            self.finish(node, Ended("failed", error=error.message))

    def fail(self, node: Node, error: errors.ComponentError) -> None:
        """Remember why a task failed."""
        return  # a plan has nobody to tell; a run overrides this

    def _start(self, node: Node) -> None:
        if why := self.flow.blocked(node):
            self._skip(node, why)
            return
        inputs = self.flow.inputs(node)
        if not self.flow.wanted(node, inputs):
            condition = node.task.condition.text if node.task.condition else ""
            self._skip(node, f"its condition does not hold: {condition}")
            return
        body = node.component.body
        if isinstance(body, Graph):
            self._open(node, body, inputs)
        elif done := self.prior.get(node.path):
            self._succeed(node, done)
        elif isinstance(body, Importer):
            self._import(node, body, inputs)
        elif isinstance(body, Claim):
            self._claim(node, body, inputs)
        else:
            self._step(node, body, inputs)

    def _skip(self, node: Node, why: str) -> None:
        graph = isinstance(node.component.body, Graph)
        self.note(node, TaskRun(node.path, "skipped", error=why, graph=graph))
        self.finish(node, Ended("skipped", error=why))

    def _open(self, node: Node, graph: Graph, inputs: Inputs) -> None:
        if node.task.loop is not None:
            self._iterate(node, inputs)
            return
        self.note(node, TaskRun(node.path, "running", inputs=_known(inputs), graph=True))
        self.flow.open(node.component, graph, inputs, node)
        if not graph.tasks:
            self.note(node, TaskRun(node.path, "succeeded", graph=True))
            self.finish(node, Ended("succeeded"))

    def _iterate(self, node: Node, inputs: Inputs) -> None:
        if inputs.unknown:  # a plan cannot know what it loops over
            self.note(node, TaskRun(node.path, "pending", error="what it loops over is known when it runs"))
            self.finish(node, Ended("succeeded", unknown=True))
            return
        self.note(node, TaskRun(node.path, "running", inputs=_known(inputs), graph=True))
        if not self.flow.loop(node, inputs):
            ended = gathered(node, Iterations([], inputs))
            self.note(node, TaskRun(node.path, "succeeded", parameters=_plain(ended), graph=True))
            self.finish(node, ended)

    def _succeed(self, node: Node, task: TaskRun) -> None:
        artifacts = {name: (artifact,) for name, artifact in task.outputs.items()}
        self.finish(node, Ended("succeeded", task.parameters, artifacts))

    def _import(self, node: Node, importer: Importer, inputs: Inputs) -> None:
        if inputs.unknown:
            self.finish(node, Ended("succeeded", unknown=True))
            return
        known = inputs.parameters
        source = importer.uri
        uri = known.get(source.input) if source.input else values.fill(source.constant, known, {})
        metadata = values.fill(importer.metadata, known, {})
        workspace = self.workspace if importer.to_workspace else None
        artifact = self.importing.artifact(node.path, importer, str(uri), metadata, workspace)
        task = TaskRun(node.path, "succeeded", outputs={"artifact": artifact}, inputs=_known(inputs))
        self.note(node, task)
        self._succeed(node, task)

    def _claim(self, node: Node, claim: Claim, inputs: Inputs) -> None:
        task = None if inputs.unknown else self.claim(node, claim, inputs)
        if task is None:
            self.note(node, TaskRun(node.path, "pending", error="it makes or removes a volume"))
            self.finish(node, Ended("succeeded", unknown=True))
        else:
            self.note(node, task)
            self._succeed(node, task)

    def _identity(self, node: Node, environment: str) -> str:
        """Return what a step runs in: its environment, and the local command that stands for its image."""
        image = self.image(node)
        if not image.command:
            return environment
        files = containers.local_files(image, self.settings.project)
        return hashing.of_json([environment, list(image.command), [hashing.of_file(file) for file in files]])

    def _step(self, node: Node, code: Code, inputs: Inputs) -> None:
        if inputs.unknown:
            self.launch(Ready(node, code, inputs, reason="what it works on changes"))
            return
        environment = self.environment(node, code)
        if not environment.identity:
            self.launch(Ready(node, code, inputs, reason=environment.note))
            return
        identity = self._identity(node, environment.identity)
        parts = caching.ingredients(
            node.component, code, inputs.parameters, inputs.artifacts, identity, node.task.cache_key
        )
        reason = self._not_reusable(node, code, inputs)
        if not reason:
            found = caching.find(self.store, self.blobs, caching.key_of(parts), self.folder / node.path)
            if found is not None:
                task = replace(found, name=node.path, cached=True, inputs=_known(inputs), attempt=0, error="")
                self.note(node, task)
                self._succeed(node, task)
                return
        self.launch(Ready(node, code, inputs, parts, reason))

    def reusable(self, node: Node) -> bool:
        """Whether a step may be reused at all."""
        return self.use_cache

    def _not_reusable(self, node: Node, code: Code, inputs: Inputs) -> str:
        if not self.reusable(node):
            return "reuse is off for this run"
        if any(mount.kind == "volume" for mount in code.platform.mounts):
            return "it works on a volume, whose content is not tracked"
        words = code.command if isinstance(code, ContainerCode) else ()
        if str(self.workspace) in str(inputs.parameters) or "workspace_path" in str(words):
            return "it works in the workspace, whose content is not tracked"
        return "" if node.task.cache else "its caching is off in the pipeline file"


def _known(inputs: Inputs) -> dict[str, Any]:
    return {name: value if not inputs.unknown else str(value) for name, value in inputs.parameters.items()}


def _plain(ended: Ended) -> dict[str, Any]:
    return dict(ended.parameters)

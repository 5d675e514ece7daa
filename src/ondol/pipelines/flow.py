"""The order of a pipeline's tasks: what is ready, where its inputs come from, when a nested pipeline has ended.

A pure state machine over the compiled graph: no input or output, no processes, no cache. Nested pipelines open scopes
of their own; a scope ends when all of its tasks have.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ondol.base import errors
from ondol.formats import kfp_condition, kfp_graph
from ondol.formats.kfp_graph import Component, Graph, Pipeline, Source, Task
from ondol.formats.kfp_platform import Named
from ondol.pipelines import values
from ondol.records.pipeline import Artifact

State = Literal["succeeded", "failed", "skipped"]
Artifacts = dict[str, tuple[Artifact, ...]]


class Unknown:
    """A value that only a run can give; planning goes on with it."""

    def __repr__(self) -> str:
        return "(known when it runs)"


UNKNOWN = Unknown()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a task ended and what it made."""

    state: State
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, tuple[Artifact, ...]] = field(default_factory=dict)
    error: str = ""
    unknown: bool = False
    """Planning only: it would run, so its outputs are not known."""


@dataclass(slots=True)
class Scope:
    """One graph being walked."""

    prefix: str
    component: Component
    graph: Graph
    parameters: dict[str, Any]
    artifacts: Artifacts
    parent: Node | None
    waiting: dict[str, set[str]]
    followers: dict[str, list[str]]
    ended: dict[str, Ended] = field(default_factory=dict)
    iteration: int = 0


@dataclass(slots=True)
class Iterations:
    """A loop being walked: one scope per item, some of them open at a time."""

    items: list[Any]
    inputs: Inputs
    opened: int = 0
    ended: dict[int, Ended] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Node:
    """A task in its scope."""

    scope: Scope
    task: Task
    component: Component

    @property
    def path(self) -> str:
        """The task's name in the run: `outer/inner` inside nested pipelines."""
        return self.scope.prefix + self.task.name


@dataclass(frozen=True, slots=True)
class Inputs:
    """A task's inputs, resolved."""

    parameters: dict[str, Any]
    artifacts: Artifacts
    unknown: bool = False


class Flow:
    """Walks a pipeline.

    :param facts: what placeholders may name: `pipeline_job_name` …
    """

    def __init__(
        self,
        pipeline: Pipeline,
        parameters: dict[str, Any],
        facts: Mapping[str, str],
        artifacts: Artifacts | None = None,
    ) -> None:
        self._components = pipeline.components
        self._facts = facts
        self._loops: dict[str, Iterations] = {}
        self.ready: deque[Node] = deque()
        assert isinstance(pipeline.root.body, Graph)
        self.root = self.open(pipeline.root, pipeline.root.body, Inputs(parameters, artifacts or {}), None)

    def open(
        self, component: Component, graph: Graph, inputs: Inputs, parent: Node | None, iteration: int | None = None
    ) -> Scope:
        """Start walking a graph."""
        waiting = {name: set(kfp_graph.before(task)) for name, task in graph.tasks.items()}
        followers: dict[str, list[str]] = {}
        for name, needs in waiting.items():
            for need in needs:
                followers.setdefault(need, []).append(name)
        prefix = f"{parent.path}/" if parent else ""
        if iteration is not None:
            prefix += f"{iteration}/"
        scope = Scope(prefix, component, graph, inputs.parameters, inputs.artifacts, parent, waiting, followers)
        scope.iteration = iteration or 0
        for name, needs in waiting.items():
            if not needs:
                self._make_ready(scope, name)
        return scope

    def loop(self, node: Node, inputs: Inputs) -> int:
        """Start walking a loop and return how many items it has; with none, it has ended already.

        :raises InputError: when what it loops over is no list.
        """
        loop = node.task.loop
        assert loop is not None
        if loop.artifacts:
            items: Any = list(inputs.artifacts.get(loop.items.input, ()))
        else:
            items = loop.items.constant if loop.items.constant is not None else inputs.parameters.get(loop.items.input)
        if isinstance(items, str):
            items = values.from_text(items, "LIST", f"what {node.path!r} loops over")
        if not isinstance(items, list):
            raise errors.InputError(f"{node.path!r} loops over {items!r}, which is no list", code="INP-018")
        iterations = self._loops[node.path] = Iterations(items, inputs)
        for _ in range(min(len(items), loop.limit or len(items))):
            self._open_next(node, iterations)
        return len(items)

    def _open_next(self, node: Node, iterations: Iterations) -> None:
        loop, number = node.task.loop, iterations.opened
        assert loop is not None
        assert isinstance(node.component.body, Graph)
        iterations.opened += 1
        item, inputs = iterations.items[number], iterations.inputs
        if loop.artifacts:
            mine = Inputs(inputs.parameters, {**inputs.artifacts, loop.item: (item,)})
        else:
            mine = Inputs({**inputs.parameters, loop.item: item}, inputs.artifacts)
        self.open(node.component, node.component.body, mine, node, number)

    def _iterated(self, node: Node, number: int, ended: Ended) -> Ended | None:
        """Note that one item is done; return how the whole loop ended when it was the last."""
        iterations = self._loops[node.path]
        iterations.ended[number] = ended
        if iterations.opened < len(iterations.items):
            self._open_next(node, iterations)
        return gathered(node, iterations) if len(iterations.ended) == len(iterations.items) else None

    def _make_ready(self, scope: Scope, name: str) -> None:
        task = scope.graph.tasks[name]
        self.ready.append(Node(scope, task, self._components[task.component]))

    def blocked(self, node: Node) -> str:
        """Say why a ready task must be skipped; empty when it may run."""
        if node.task.always:
            return ""
        for name in kfp_graph.before(node.task):
            state = node.scope.ended[name].state
            if state != "succeeded":
                return f"{node.scope.prefix}{name} {'failed' if state == 'failed' else 'was skipped'}"
        return ""

    def inputs(self, node: Node) -> Inputs:
        """Resolve a ready task's inputs.

        :raises InputError: when something it needs was not made.
        """
        task, found = node.task, {}
        constants = {name: source for name, source in task.parameters.items() if source.constant is not None}
        for name, source in task.parameters.items():
            if name not in constants:
                found[name] = self._parameter(node, source)
        for name, source in constants.items():
            # An f-string over upstream values: its placeholders name the task's other inputs.
            unknown = UNKNOWN in found.values() and "{{$" in str(source.constant)
            found[name] = UNKNOWN if unknown else values.fill(source.constant, found, self.facts(node))
        self._declared(node, found)
        item = task.loop.item if task.loop else ""
        artifacts: Artifacts = {}
        for name, source in task.artifacts.items():
            if made := self._artifact(node, source):
                artifacts[name] = made
        unknown = any(node.scope.ended[name].unknown for name in kfp_graph.before(task))
        for name, place in node.component.artifacts.items():
            if name not in artifacts and name != item and not (place.optional or place.many or unknown):
                raise errors.InputError(f"{node.path!r} needs the artifact {name!r}, which was not made")
        given = {name: value for name, value in found.items() if value is not None}
        return Inputs(given, artifacts, unknown or UNKNOWN in given.values())

    def _declared(self, node: Node, found: dict[str, Any]) -> None:
        """Give every declared parameter its default or its exact type, and refuse what is missing."""
        item = node.task.loop.item if node.task.loop else ""
        for name, slot in node.component.parameters.items():
            if name == item:
                continue
            if found.get(name) is None and slot.has_default:
                found[name] = slot.default
            elif found.get(name) is None and not slot.optional:
                raise errors.InputError(f"{node.path!r} needs the parameter {name!r}, which was not made")
            else:
                found[name] = _fitting(found.get(name), slot.type)
            if not isinstance(found.get(name), Unknown):
                values.check_literal(found.get(name), slot, f"{node.path}: {name!r}")

    def _parameter(self, node: Node, source: Source) -> Any:
        scope = node.scope
        if source.final_status_of:
            return self._final_status(scope, source.final_status_of)
        if source.task:
            ended = scope.ended[source.task]
            value = UNKNOWN if ended.unknown else ended.parameters.get(source.output)
        else:
            value = scope.parameters.get(source.input)
        return value if isinstance(value, Unknown) else _part(value, source.pick, node.path)

    def facts(self, node: Node) -> dict[str, str]:
        """Return what placeholders may name in a task."""
        return {**self._facts, "pipeline_task_name": node.task.name, "pipeline_task_uuid": node.path}

    def named(self, node: Node, name: Named) -> str:
        """Return the name that a step's platform means; empty when its parameter was left out."""
        if name.task or name.input:
            value = self._parameter(node, Source(task=name.task, output=name.output, input=name.input))
            return "" if value is None else values.as_text(value)
        return name.constant

    def _artifact(self, node: Node, source: Source) -> tuple[Artifact, ...]:
        if source.task:
            return node.scope.ended[source.task].artifacts.get(source.output, ())
        return node.scope.artifacts.get(source.input, ())

    def _final_status(self, scope: Scope, task: str) -> dict[str, Any]:
        ended = scope.ended[task]
        status: dict[str, Any] = {
            "state": ended.state.upper(),
            "pipelineJobResourceName": self._facts.get("pipeline_job_resource_name", ""),
            "pipelineTaskName": task,
        }
        if ended.error:
            status["error"] = {"code": 1, "message": ended.error}
        return status

    def wanted(self, node: Node, inputs: Inputs) -> bool:
        """Whether the task's condition holds (true without one, and when planning cannot tell)."""
        condition = node.task.condition
        if condition is None or inputs.unknown:
            return True
        return kfp_condition.holds(condition, inputs.parameters)

    def end(self, node: Node, ended: Ended) -> list[tuple[Node, Ended]]:
        """Note that a task has ended; return the nested pipelines that ended with it, innermost first."""
        closed: list[tuple[Node, Ended]] = []
        current: Node | None = node
        while current is not None:
            scope, name = current.scope, current.task.name
            scope.ended[name] = ended
            for follower in scope.followers.get(name, ()):
                scope.waiting[follower].discard(name)
                if not scope.waiting[follower]:
                    self._make_ready(scope, follower)
            if len(scope.ended) < len(scope.graph.tasks) or scope.parent is None:
                return closed
            current, ended = scope.parent, sum_up(scope)
            if current.task.loop is not None:
                whole = self._iterated(current, scope.iteration, ended)
                if whole is None:
                    return closed
                ended = whole
            closed.append((current, ended))
        return closed

    @property
    def finished(self) -> bool:
        """Whether all tasks of the pipeline have ended."""
        return len(self.root.ended) == len(self.root.graph.tasks)


def sum_up(scope: Scope) -> Ended:
    """Return how a graph as a whole ended: failed when one of its tasks did."""
    failed = next((ended for ended in scope.ended.values() if ended.state == "failed"), None)
    unknown = any(ended.unknown for ended in scope.ended.values())
    parameters, artifacts = {}, {}
    for name, sources in scope.graph.parameters.items():
        for source in sources:
            made = scope.ended[source.task]
            if source.output in made.parameters:
                parameters[name] = made.parameters[source.output]
                break
    for name, sources in scope.graph.artifacts.items():
        for source in sources:
            if things := scope.ended[source.task].artifacts.get(source.output):
                artifacts[name] = things
                break
    return Ended("failed" if failed else "succeeded", parameters, artifacts, failed.error if failed else "", unknown)


def gathered(node: Node, iterations: Iterations) -> Ended:
    """Return how a loop as a whole ended: its outputs are lists, in the order of the items."""
    done = [iterations.ended[number] for number in sorted(iterations.ended)]
    failed = next((ended for ended in done if ended.state == "failed"), None)
    parameters = {
        name: [ended.parameters[name] for ended in done if name in ended.parameters]
        for name in node.component.output_parameters
    }
    artifacts = {
        name: tuple(one for ended in done for one in ended.artifacts.get(name, ()))
        for name in node.component.output_artifacts
    }
    unknown = any(ended.unknown for ended in done)
    return Ended("failed" if failed else "succeeded", parameters, artifacts, failed.error if failed else "", unknown)


def _part(value: Any, keys: tuple[str, ...], path: str) -> Any:
    """Return the part of a value that a loop's item expression picks."""
    for key in keys:
        if isinstance(value, str):
            value = values.from_text(value, "STRUCT", f"an item of {path!r}")
        if not isinstance(value, dict) or key not in value:
            raise errors.InputError(f"{path!r} needs {key!r} of the item {value!r}", code="INP-018")
        value = value[key]
    return value


def _fitting(value: Any, kind: str) -> Any:
    """Return a value as its declared type says it: what kfp's launcher does between steps."""
    if value is None or isinstance(value, Unknown):
        return value
    if kind == "STRING" and not isinstance(value, str):
        return values.as_text(value)
    if kind == "NUMBER_DOUBLE" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == "NUMBER_INTEGER" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value

"""A compiled pipeline as records: components, graphs, tasks, and where each input comes from.

Plain nouns: reading them from a file is `kfp_ir`'s work, running them is `ondol.pipelines`'.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ondol.formats.kfp_condition import Condition
from ondol.formats.kfp_container import Code


@dataclass(frozen=True, slots=True)
class Parameter:
    """An input or output parameter of a component."""

    type: str
    """`STRING`, `NUMBER_INTEGER`, `NUMBER_DOUBLE`, `BOOLEAN`, `LIST`, `STRUCT` or `TASK_FINAL_STATUS`."""

    default: Any = None
    has_default: bool = False
    optional: bool = False
    literals: tuple[Any, ...] = ()
    """The only values it may have (`typing.Literal`); empty: any."""


@dataclass(frozen=True, slots=True)
class ArtifactSlot:
    """An input or output artifact of a component."""

    type: str
    """Schema title, like `system.Dataset`."""

    version: str = ""
    many: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Where an input's value comes from: a constant, an input of the enclosing graph, or a task's output."""

    constant: Any = None
    input: str = ""
    task: str = ""
    output: str = ""
    final_status_of: str = ""
    pick: tuple[str, ...] = ()
    """Keys that lead to the part of the value that is meant."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently a failed step is tried again; times in seconds."""

    times: int
    wait: float = 0.0
    factor: float = 2.0
    longest: float = 3600.0


@dataclass(frozen=True, slots=True)
class Loop:
    """A graph that runs once per item (`dsl.ParallelFor`)."""

    item: str
    """The graph's input that gets the item."""

    items: Source
    artifacts: bool = False
    """The items are artifacts, not values."""

    limit: int = 0
    """How many items at a time; 0: all."""


@dataclass(frozen=True, slots=True)
class Task:
    """One node of a graph."""

    name: str
    component: str
    after: tuple[str, ...] = ()
    parameters: dict[str, Source] = field(default_factory=dict)
    artifacts: dict[str, Source] = field(default_factory=dict)
    cache: bool = False
    cache_key: str = ""
    """A key of the user's own that decides instead of code and inputs what is reused."""

    retry: Retry | None = None
    condition: Condition | None = None
    loop: Loop | None = None
    always: bool = False
    """Run when the tasks before have ended in whatever way (exit handler, `ignore_upstream_failure`)."""


@dataclass(frozen=True, slots=True)
class Graph:
    """Tasks, and where the graph's own outputs come from: the first source that exists."""

    tasks: dict[str, Task]
    parameters: dict[str, tuple[Source, ...]] = field(default_factory=dict)
    artifacts: dict[str, tuple[Source, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Importer:
    """A step that brings an artifact from outside into the pipeline."""

    uri: Source
    type: str
    version: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    to_workspace: bool = False
    """Put a copy into the run's workspace."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A step that makes or removes a volume (`kubernetes.CreatePVC`, `DeletePVC`)."""

    action: Literal["create", "delete"]


@dataclass(frozen=True, slots=True)
class Component:
    """What a task runs: code, an importer or a graph, with its typed interface."""

    name: str
    body: Code | Importer | Claim | Graph
    parameters: dict[str, Parameter] = field(default_factory=dict)
    artifacts: dict[str, ArtifactSlot] = field(default_factory=dict)
    output_parameters: dict[str, Parameter] = field(default_factory=dict)
    output_artifacts: dict[str, ArtifactSlot] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A compiled pipeline."""

    name: str
    root: Component
    components: dict[str, Component]
    description: str = ""
    notes: tuple[str, ...] = ()
    """What the file says that means nothing on this machine, for people."""


def before(task: Task) -> tuple[str, ...]:
    """Return the tasks that must have ended before this one starts."""
    sources = (*task.parameters.values(), *task.artifacts.values())
    producers = [source.task or source.final_status_of for source in sources]
    return tuple(dict.fromkeys((*task.after, *(name for name in producers if name))))

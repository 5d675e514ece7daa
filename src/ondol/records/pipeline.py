"""A run of a pipeline, its tasks and what they made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

TaskState = Literal["pending", "running", "succeeded", "failed", "skipped", "cancelled"]
RunState = Literal["running", "succeeded", "failed", "cancelled"]
Json = dict[str, Any]

PIPELINE_TAG, PIPELINE_RUN_TAG, STEP_TAG = "ondol.pipeline", "ondol.pipeline_run", "ondol.step"
"""Tags of the MLflow runs that a step makes: the pipeline's name, the run's id, the task's name."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something a task made, or an importer brought in."""

    name: str
    type: str
    """KFP's schema title: `system.Dataset`, `system.Model`, `system.Metrics` …"""

    uri: str
    path: str
    """Where the content is on this machine; there may be none (metrics live in `metadata`)."""

    digest: str = ""
    """Digest of the content (`hashing.of_tree`), also its blob; empty when there is no content."""

    metadata: Json = field(default_factory=dict)
    version: str = ""
    """KFP's schema version."""

    stamp: str = ""
    """Size and time of the files when the digest was taken: unchanged means the digest still holds."""


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task of a run. Tasks inside nested pipelines are named `outer/inner`."""

    name: str
    state: TaskState
    outputs: dict[str, Artifact] = field(default_factory=dict)
    parameters: Json = field(default_factory=dict)
    """Output parameters."""

    inputs: Json = field(default_factory=dict)
    """Input parameters, resolved."""

    started_at: float = 0.0
    ended_at: float = 0.0
    cached: bool = False
    log_path: str = ""
    error: str = ""
    attempt: int = 0
    key: str = ""
    """Cache key: what the outcome depends on."""

    mlflow_runs: tuple[str, ...] = ()
    """MLflow runs that its own code made, oldest first; known once the run is mirrored."""

    graph: bool = False
    """It is a pipeline in the pipeline: it runs nothing of its own."""


@dataclass(frozen=True, slots=True)
class RunMode:
    """How the steps of a run are run. It is kept with the run: whoever goes on with it does as the beginner did."""

    in_process: bool = False
    """Steps share warm processes."""

    slots: int = 0
    """Steps at the same time; 0: one per processor."""

    use_cache: bool = True
    """Outcomes of earlier runs may be reused."""


@dataclass(frozen=True, slots=True)
class PipelineRun:
    """One run of a pipeline."""

    id: str
    name: str
    state: RunState
    parameters: Json = field(default_factory=dict)
    tasks: tuple[TaskRun, ...] = ()
    started_at: float = 0.0
    ended_at: float = 0.0
    source: str = ""
    """The pipeline file."""

    digest: str = ""
    """Digest of the compiled pipeline."""

    mlflow_run: str = ""
    """MLflow run that mirrors it, when there is one."""

    error: str = ""
    outputs: Json = field(default_factory=dict)
    """The pipeline's own output parameters."""

    notes: tuple[str, ...] = ()
    """What the file asked for that means nothing on this machine."""

    origin: str = ""
    """Who asked for it: `cli`, `api`; empty: a walk round the loop, which looks after its own runs."""

    mode: RunMode = field(default_factory=RunMode)

    def task(self, name: str) -> TaskRun | None:
        """Return the task with this name."""
        return next((task for task in self.tasks if task.name == name), None)

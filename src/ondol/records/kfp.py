"""What a Kubeflow Pipelines server keeps beside the runs themselves: experiments, pipelines, versions, requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
Wish = Literal["run", "stop", "delete"]


@dataclass(frozen=True, slots=True)
class Experiment:
    """A folder of runs."""

    id: str
    name: str
    description: str = ""
    namespace: str = ""
    created_at: float = 0.0
    archived: bool = False


@dataclass(frozen=True, slots=True)
class UploadedPipeline:
    """A name under which versions of a pipeline are kept."""

    id: str
    name: str
    display_name: str = ""
    description: str = ""
    namespace: str = ""
    created_at: float = 0.0
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PipelineVersion:
    """A compiled pipeline under a name."""

    id: str
    pipeline: str
    """Id of the :class:`UploadedPipeline`."""

    name: str
    display_name: str = ""
    description: str = ""
    created_at: float = 0.0
    code_source_url: str = ""
    spec: Json = field(default_factory=dict)
    """The IR, or `{"pipeline_spec": IR, "platform_spec": …}`."""

    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trigger:
    """When a recurring run is due: a cron expression or an interval."""

    cron: str = ""
    interval_seconds: int = 0
    start: float = 0.0
    """Not before; 0: from when it was made."""

    end: float = 0.0
    """Not after; 0: for ever."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What somebody asked to run through the API; the run itself has the same id."""

    id: str
    experiment: str
    display_name: str
    description: str = ""
    spec: Json = field(default_factory=dict)
    pipeline: str = ""
    version: str = ""
    """Ids of the pipeline and version that were named; empty when the spec came along."""

    parameters: Json = field(default_factory=dict)
    recurring: str = ""
    """Id of the recurring run that asked for it."""

    created_at: float = 0.0
    scheduled_at: float = 0.0
    archived: bool = False
    wish: Wish = "run"
    """What shall become of it: `stop` and `delete` are carried out by who runs it."""

    attempts: int = 0
    """Processes started for it since somebody last asked, or since one of them finished a step."""

    finished: int = 0
    """Steps that were finished when the last process was started."""

    error: str = ""
    """Why it could not even start."""

    error_code: str = ""


@dataclass(frozen=True, slots=True)
class RecurringRun:
    """A run that is asked for again and again."""

    id: str
    experiment: str
    display_name: str
    trigger: Trigger
    description: str = ""
    namespace: str = ""
    spec: Json = field(default_factory=dict)
    pipeline: str = ""
    version: str = ""
    parameters: Json = field(default_factory=dict)
    max_concurrency: int = 1
    no_catchup: bool = False
    enabled: bool = True
    created_at: float = 0.0
    updated_at: float = 0.0
    cursor: float = 0.0
    """The due time of the last run that was asked for; what is due is looked for after it."""

    error: str = ""

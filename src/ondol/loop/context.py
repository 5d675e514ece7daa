"""What a walk round the loop needs: the project, where things are kept, who watches, and the registry as a port."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ondol.base.progress import SILENT, Progress
from ondol.base.settings import Settings
from ondol.pipelines.importing import Fetch
from ondol.records.project import Project
from ondol.registry.models import ModelVersion
from ondol.store.blobs import Blobs
from ondol.store.connection import Store


class ModelRegistry(Protocol):
    """Where models that passed their gate are registered (MLflow)."""

    def register(
        self,
        name: str,
        model_path: Path,
        run_id: str = "",
        tags: Mapping[str, str] | None = None,
        *,
        aliases: Sequence[str] = (),
        example: Sequence[Mapping[str, Any]] | None = None,
    ) -> ModelVersion: ...

    def set_alias(self, name: str, alias: str, version: str) -> None: ...

    def mirror(self) -> int:
        """Write the pipeline runs that are not in MLflow yet."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """Everything a stage may use besides its inputs."""

    store: Store
    settings: Settings
    project: Project
    registry: ModelRegistry
    progress: Progress = SILENT
    tracking_uri: str = ""
    """MLflow's address for components that log by themselves; empty: they are given none."""
    importers: Fetch | None = None
    """Fetches `models:/` and `runs:/` for the pipelines' importers; None: they are refused."""

    @property
    def root(self) -> Path:
        """The folder that the project's paths are relative to."""
        return self.settings.project

    @property
    def blobs(self) -> Blobs:
        return Blobs(self.settings.blobs)

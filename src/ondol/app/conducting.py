"""Puts the conductor together: what it reconciles with, what it registers with, who retrains for it."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from ondol.app import running
from ondol.backends.local import inference_graph, inference_service, llm_service
from ondol.base.settings import Settings
from ondol.loop import walking
from ondol.loop.conductor import Conductor, Hands
from ondol.registry.client import RegistryClient
from ondol.store.connection import Store


class ChildProcesses:
    """Retrainings as `ondol loop run --once` in processes of their own: user code never runs in control."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, model: str, because: str) -> None:
        """Start a walk round the loop; its output goes to `logs/loop.log`."""
        self._settings.logs.mkdir(parents=True, exist_ok=True)
        with (self._settings.logs / "loop.log").open("ab") as log:
            self._children[model] = subprocess.Popen(
                [sys.executable, "-m", "ondol.cli.main", "loop", "run", model, "--once", "--because", because],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._settings.project,
                env=running.environment(self._settings),
                start_new_session=True,
            )

    def running(self, model: str) -> bool:
        """Whether somebody walks round the model's loop now, a child of ours or not."""
        child = self._children.get(model)
        return (child is not None and child.poll() is None) or walking.is_walking(self._settings.home, model)


def make(store: Store, settings: Settings, *, registry: bool = True) -> Conductor:
    """Return this home's conductor.

    :param registry: whether MLflow is there; without it nothing is known of aliases.
    """
    return Conductor(
        store,
        settings,
        Hands(
            reconcile=[
                partial(inference_service.reconcile, store, settings),
                partial(inference_graph.reconcile, store, settings),
                partial(llm_service.reconcile, store, settings),
            ],
            registry=RegistryClient(settings.control.url, settings.api_key) if registry else None,
            retraining=ChildProcesses(settings),
        ),
    )

"""The demo from beginning to end: the project's folder, the two processes, the acts, the table."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondol.app import looping, running, supervisor
from ondol.app.demo import assistant, flights, llm_setup
from ondol.app.demo.stage import Act, Happened, Stage, Teller
from ondol.app.running import Running
from ondol.base import settings as settings_module
from ondol.base.settings import Settings
from ondol.data import examples
from ondol.formats import project as projects
from ondol.registry.client import RegistryClient
from ondol.store.connection import Store

ACTS: dict[str, Act] = {"flights": flights.play, "assistant": assistant.play}
_PARTS = {
    "flights": "flights",
    "assistant": "assistant",
    "assistant/docs": "docs",
    "assistant/evals": "evals",
}  # folder in the project -> example


def prepare(folder: Path, llm: str = "", questions: int | None = None) -> Settings:
    """Put the demo's project into a folder and return its settings; files that were changed there are kept.

    :param llm: an LLM that answers beside the extractive reader, as `llm:` in ondol.yaml names it.
    :param questions: how many labelled questions it is judged by; None: what suits it.
    """
    examples.copy("demo", folder)
    for part, name in _PARTS.items():
        examples.copy(name, folder / part, without=assistant.NOT_INDEXED)
    if llm:
        llm_setup.prepare(folder, llm, questions)
    return settings_module.load(folder)


class Starting:
    """Ondol, starting while the first pipeline runs already; who needs it waits for it.

    :raises: what the start raised, from `wait`.
    """

    def __init__(self, settings: Settings) -> None:
        found = running.find(settings.home)
        ports = settings if found else running.with_free_ports(settings)
        self.settings = replace(ports, control=found.control, data=found.data) if found else ports
        self._pool = ThreadPoolExecutor(1, "ondol-start")
        self._future = self._pool.submit(supervisor.ensure_running, self.settings)

    def wait(self) -> Running:
        """Return the running Ondol."""
        live = self._future.result()
        self._pool.shutdown(wait=False)
        return live


class RegistryWhenReady(RegistryClient):
    """The registry of an Ondol that may still be starting."""

    def __init__(self, starting: Starting) -> None:
        super().__init__(starting.settings.control.url, starting.settings.api_key)
        self._starting = starting

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        self._starting.wait()
        return super()._ask(method, path, body)


def play(starting: Starting, teller: Teller, acts: Sequence[str]) -> list[Happened]:
    """Play the acts on an Ondol and return what happened."""
    settings = starting.settings
    project = projects.load(settings.project)
    with Store(settings.database) as store:
        context = replace(looping.context(store, settings, project, teller), registry=RegistryWhenReady(starting))
        stage = Stage(settings, project, store, context, teller)
        if acts[0] != "flights":  # that one trains while Ondol starts; others need it at once
            starting.wait()
        for name in acts:
            ACTS[name](stage)
        return stage.happened

"""The demo from beginning to end: the project's folder, the two processes, the acts, the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ondol.app import looping, supervisor
from ondol.app.demo import assistant, flights
from ondol.app.demo.stage import Act, Happened, Stage, Teller
from ondol.app.running import Running
from ondol.base import settings as settings_module
from ondol.base.settings import Settings
from ondol.data import examples
from ondol.formats import project as projects
from ondol.store.connection import Store

ACTS: dict[str, Act] = {"flights": flights.play, "assistant": assistant.play}
_PARTS = {
    "flights": "flights",
    "assistant": "assistant",
    "assistant/docs": "docs",
    "assistant/evals": "evals",
}  # folder in the project -> example


def prepare(folder: Path) -> Settings:
    """Put the demo's project into a folder and return its settings; files that were changed there are kept."""
    examples.copy("demo", folder)
    for part, name in _PARTS.items():
        examples.copy(name, folder / part)
    return settings_module.load(folder)


def services(settings: Settings, teller: Teller) -> tuple[Settings, Running]:
    """Start Ondol for this project, or find it running, and return the settings with its addresses."""
    teller.start("services")
    live = supervisor.ensure_running(settings, any_port=True)
    how = "started" if live.started_here else "found running"
    teller.finish("services", f"{how}: control {live.control.url}, data plane {live.data.url}")
    return replace(settings, control=live.control, data=live.data), live


def play(settings: Settings, teller: Teller, acts: Sequence[str]) -> list[Happened]:
    """Play the acts on a running Ondol and return what happened."""
    project = projects.load(settings.project)
    with Store(settings.database) as store:
        context = looping.context(store, settings, project, teller)
        stage = Stage(settings, project, store, context, teller)
        for name in acts:
            ACTS[name](stage)
        return stage.happened

"""Everything a door to LLMs needs, put together once per process: ledger, spans, alerts, prices, models, applications.

Must not listen or answer: that is `door`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from ondol.base import errors, settings
from ondol.formats import project as project_format
from ondol.llm import registry
from ondol.monitoring import alert_targets, alerts, budgets, ledger, otlp, pricing, pulse, spans
from ondol.records import codec
from ondol.records.project import Project
from ondol.records.usage import Price
from ondol.serving import application_host
from ondol.store import budgets as budget_rows
from ondol.store.connection import Store


def read_project(settings_: settings.Settings) -> Project:
    """Return the project, or an empty one when there is no `ondol.yaml`."""
    try:
        return project_format.load(settings_.project)
    except errors.NotFoundError:
        return Project(name="")


class Services:
    """What is shared by everybody who calls models in this process."""

    def __init__(self, store: Store, settings_: settings.Settings, project: Project | None = None) -> None:
        self.store, self.settings = store, settings_
        self.project = project if project is not None else read_project(settings_)
        self.prices = pricing.Prices(self.project.prices)
        alert_targets.read(self.project.alerts)  # refused now, and not when something is wrong
        self.alerts = alerts.Delivering(store, self._outbox, self._look)
        self._pulse = pulse.Pulse(store, "data")
        self.ledger = ledger.Ledger(store, on_alert=self.alerts.wake)
        self.spans = spans.Spans(store, otlp.from_environment(os.environ))
        self.models = registry.Models(settings_.project)
        self._resolved: dict[str, registry.LLMSpec] = {}
        self._configured: dict[str, registry.LLMSpec] | None = None
        self.served: dict[str, registry.LLMSpec] = {}
        """Models of applied LLMInferenceServices, by what callers name them; replaced as a whole."""

        self.opener = application_host.Opener(
            store, settings_, self.ledger, self.price_of, self.project.llms, self.models
        )

    def start(self) -> None:
        """Take over the project's budgets and begin to book."""
        wanted = [budgets.read_budget(_plain(one)) for one in self.project.budgets]
        budget_rows.replace_source(self.store, "ondol.yaml", wanted)
        self.ledger.start()
        self.spans.start()
        self._pulse.begin()
        self.alerts.start()

    async def stop(self) -> None:
        """Write what is there and close everything."""
        self.ledger.stop()
        self.spans.stop()
        self.alerts.stop()
        self._pulse.end()
        await self.opener.close()

    def _outbox(self) -> alerts.Outbox:
        return alerts.Outbox(self.store, alert_targets.read(read_project(self.settings).alerts))

    def _look(self) -> None:
        """Say that this process lives, and look whether the conductor does: it cannot raise that alert itself."""
        self._pulse.beat()
        pulse.alert_if_stuck(self.store, time.time())

    def price_of(self, spec: registry.LLMSpec) -> Price | None:
        """Return what a model costs; None when nobody knows."""
        return self.prices.of(spec.provider, spec.name, spec.price or None, spec.is_local)

    def configured(self) -> dict[str, registry.LLMSpec]:
        """Return the models that the project's applications name, as they are written there."""
        if self._configured is not None:
            return self._configured
        found: dict[str, registry.LLMSpec] = {}
        for one in self.project.applications.values():
            if one.llm and one.llm != registry.EXTRACTIVE:
                options: Any = {"model": one.llm, "base_url": one.base_url} if one.base_url else one.llm
                found[one.llm] = registry.parse(options, self.project.llms)
        self._configured = found
        return found

    def serve(self, files: Mapping[str, str]) -> None:
        """Take the GGUF files of the applied LLMInferenceServices, by what callers name them."""
        self.served = {name: registry.parse(f"gguf:{path}", self.project.llms) for name, path in files.items()}

    def resolve(self, model: str) -> registry.LLMSpec | None:
        """Return the model a caller names, if callers may: configured ones, and known providers by `provider/model`.

        Files and Python objects (`gguf:`, `langchain:`) are only for the project to name, never for a caller.
        """
        if model in self._resolved:
            return self._resolved[model]
        configured = self.configured()
        if model in configured:
            return configured[model]
        if model in self.served:
            return self.served[model]
        provider, _, name = model.partition("/")
        if not name or not (provider in registry.PROVIDERS or provider in self.project.llms):
            return None
        spec = registry.parse(model, self.project.llms)
        if len(self._resolved) < 1000:  # names come from callers
            self._resolved[model] = spec
        return spec


def _plain(record: Any) -> dict[str, Any]:
    value: dict[str, Any] = codec.plain(record)
    value["alert_at"] = list(value["alert_at"])
    return value

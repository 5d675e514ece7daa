"""Opens an LLM application in this process, for evaluations: the very code that the data plane serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from ondol.api.openai import wiring
from ondol.base import telemetry
from ondol.base.settings import Settings
from ondol.records.chat import Answered
from ondol.records.evaluation import EvalSample
from ondol.records.release import Release
from ondol.serving.applications import Ask
from ondol.store.connection import Store

Answerer = Callable[[EvalSample], Awaitable[EvalSample]]


@asynccontextmanager
async def answerer(store: Store, settings: Settings, release: Release) -> AsyncIterator[Answerer]:
    """Give a function that answers the questions of a suite with one release; every call is booked and traced."""
    services = wiring.Services(store, settings)
    services.start()
    try:
        application = services.opener.open(release)

        async def answer(sample: EvalSample) -> EvalSample:
            attributes = {"ondol.root": True, "ondol.application": release.name, "ondol.release": release.digest}
            span = telemetry.start(services.spans, f"evaluate {release.name}", attributes)
            try:
                answered: Answered = await application.answer(Ask(sample.question, unit="evaluation"), span)
            finally:
                span.finish()
            return replace(sample, answer=answered.text, contexts=answered.contexts, documents=answered.documents)

        yield answer
    finally:
        await services.stop()

"""Any LangChain chat model as a `ChatModel`: `langchain:module:attribute` names an instance or a function making one.

Accepted by what it can do (`ainvoke`, `astream`), not by its class, so that LangChain is not imported here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from ondol.base import errors
from ondol.llm import openai_compatible
from ondol.records.chat import ChatAnswer, ChatDelta, ChatRequest, TokenUsage


def load(place: str, project: Path | None = None) -> Any:
    """Import `module:attribute`, looking in the project's folder too; call it when it is a plain function.

    :raises InputError: when there is no such thing, or it is no chat model.
    """
    module_name, _, attribute = place.partition(":")
    if not attribute:
        raise errors.InputError(
            f"{place!r} is not MODULE:ATTRIBUTE", way_out="Write langchain:my_models:chat.", code="INP-164"
        )
    if project is not None and str(project) not in sys.path:
        sys.path.insert(0, str(project))
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise errors.InputError(f"cannot load {place!r}: {error}", code="INP-164") from error
    model = found if hasattr(found, "ainvoke") or not callable(found) else found()
    if not (hasattr(model, "ainvoke") and hasattr(model, "astream")):
        raise errors.InputError(f"{place!r} is a {type(model).__name__}, not a LangChain chat model", code="INP-165")
    return model


class LangChainModel:
    """A LangChain chat model behind our port."""

    provider = "langchain"
    supports_json_schema = False

    def __init__(self, model: Any, name: str) -> None:
        self.name = str(getattr(model, "model_name", "") or getattr(model, "model", "") or name)
        self._model = model

    def _call(self, request: ChatRequest) -> tuple[list[tuple[str, str]], dict[str, Any]]:
        roles = {"user": "human", "assistant": "ai"}
        messages = [(roles.get(one.role, one.role), one.content) for one in request.messages]
        options: dict[str, Any] = {}
        for name in ("max_tokens", "temperature", "seed"):
            if (value := getattr(request, name)) is not None:
                options[name] = value
        if request.stop:
            options["stop"] = list(request.stop)
        return messages, options

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        """Ask and wait for the whole answer."""
        messages, options = self._call(request)
        try:
            answer = await self._model.ainvoke(messages, **options)
        except Exception as error:
            raise self._failed(error) from error
        text = _text(answer)
        finish = str(_metadata(answer).get("finish_reason") or "stop")
        return ChatAnswer(text, finish, _usage(answer) or openai_compatible.estimated(request, text), self.name)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """Ask and yield the answer as it is written."""
        messages, options = self._call(request)
        text: list[str] = []
        usage, finish = None, "stop"
        try:
            async for chunk in self._model.astream(messages, **options):
                usage = _usage(chunk) or usage
                finish = str(_metadata(chunk).get("finish_reason") or finish)
                if piece := _text(chunk):
                    text.append(piece)
                    yield ChatDelta(piece)
        except Exception as error:
            raise self._failed(error) from error
        usage = usage or openai_compatible.estimated(request, "".join(text))
        yield ChatDelta(finish=finish, usage=usage, model=self.name)

    def _failed(self, error: Exception) -> errors.UpstreamError:
        return errors.UpstreamError(f"the LangChain model {self.name!r} failed: {error}", code="UPS-110")

    async def close(self) -> None:
        """Nothing of ours to close."""


def _text(message: Any) -> str:
    content = getattr(message, "content", "")
    if isinstance(content, str):
        return content
    parts = [part if isinstance(part, str) else str(part.get("text", "")) for part in content or []]
    return "".join(parts)


def _metadata(message: Any) -> dict[str, Any]:
    found = getattr(message, "response_metadata", None)
    return found if isinstance(found, dict) else {}


def _usage(message: Any) -> TokenUsage | None:
    found = getattr(message, "usage_metadata", None)
    if not isinstance(found, dict) or not isinstance(found.get("input_tokens"), int):
        return None
    details = found.get("input_token_details") or {}
    return TokenUsage(found["input_tokens"], int(found.get("output_tokens") or 0), int(details.get("cache_read") or 0))

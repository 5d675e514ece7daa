"""From `openai/gpt-4o-mini` to a model that can be called: providers, addresses, keys by name.

    openai/MODEL, groq/MODEL …     a known OpenAI-compatible provider; its key's variable is known too
    ollama/MODEL, vllm/MODEL       the same on this machine, without a key
    NAME/MODEL                     a provider of the project: `llms: {NAME: {base_url: …, key: ${VARIABLE}}}`;
                                   `llms: {"gguf:PATH": {price: …, max_tokens: …}}` sets options of one model
    gguf:PATH, gguf:PACKAGE        a local model (llama.cpp)
    langchain:MODULE:ATTRIBUTE     any LangChain chat model
    extractive, or nothing         no LLM: the extractive reader answers

Must not call anything: opening a model makes no request.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ondol.base import errors, transport
from ondol.llm import gguf, langchain_model, openai_compatible
from ondol.llm.port import ChatModel

Json = dict[str, Any]
EXTRACTIVE = "extractive"

# Provider -> address, variable that holds the key, variable that may move the address.
PROVIDERS: dict[str, tuple[str, str, str]] = {
    "openai": ("https://api.openai.com/v1", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "anthropic": ("https://api.anthropic.com/v1", "ANTHROPIC_API_KEY", ""),
    "gemini": ("https://generativelanguage.googleapis.com/v1beta/openai", "GEMINI_API_KEY", ""),
    "mistral": ("https://api.mistral.ai/v1", "MISTRAL_API_KEY", ""),
    "groq": ("https://api.groq.com/openai/v1", "GROQ_API_KEY", ""),
    "deepseek": ("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY", ""),
    "xai": ("https://api.x.ai/v1", "XAI_API_KEY", ""),
    "together": ("https://api.together.xyz/v1", "TOGETHER_API_KEY", ""),
    "openrouter": ("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY", ""),
    "ollama": ("http://127.0.0.1:11434/v1", "", "OLLAMA_BASE_URL"),
    "vllm": ("http://127.0.0.1:8000/v1", "", "VLLM_BASE_URL"),
}
LOCAL = ("ollama", "vllm", "gguf", EXTRACTIVE)
_VARIABLE = re.compile(r"^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$")
_OPTIONS = {"model", "base_url", "key", "timeout", "json_schema", "stream_usage", "max_tokens", "temperature", "price"}


@dataclass(frozen=True, slots=True)
class LLMSpec:
    """Which model, where, and how to call it. Holds no secret: the key is named, not kept."""

    text: str
    """As people write it: `openai/gpt-4o-mini`."""

    provider: str
    name: str
    base_url: str = ""
    key_env: str = ""
    timeout: float = 60.0
    json_schema: bool = True
    stream_usage: bool = True
    max_tokens: int | None = None
    temperature: float | None = None
    price: Json = field(default_factory=dict)
    """`{input: …, output: …}` in US dollars per million tokens, when the project declares one."""

    @property
    def is_local(self) -> bool:
        """Whether the tokens cost nothing unless a price is declared: it runs on a machine of one's own."""
        return self.provider in LOCAL


def parse(spec: Any, providers: Mapping[str, Any] | None = None) -> LLMSpec:
    """Read an `llm:` value: a string as in the module's list, or a mapping with `model` and options.

    :param providers: the project's own (`llms:` in ondol.yaml), name to `{base_url, key, price, …}`; a model as it is
        written here may be a name too.
    :raises InputError: naming what is wrong.
    """
    if spec is None or spec == "" or spec == EXTRACTIVE:
        return LLMSpec(EXTRACTIVE, EXTRACTIVE, EXTRACTIVE)
    options: Json = {}
    if isinstance(spec, Mapping):
        options = dict(spec)
        spec = options.get("model", "")
    if not isinstance(spec, str) or not spec:
        raise errors.InputError(f"llm {spec!r} is no model", way_out="Write llm: openai/gpt-4o-mini.", code="INP-166")
    if spec == EXTRACTIVE:
        return LLMSpec(EXTRACTIVE, EXTRACTIVE, EXTRACTIVE)
    options = {**((providers or {}).get(spec) or {}), **options}
    kind, _, rest = spec.partition(":")
    if kind in ("gguf", "langchain") and rest:
        return _with(LLMSpec(spec, kind, rest), options, spec)
    provider, _, name = spec.partition("/")
    own = dict((providers or {}).get(provider) or {})
    if not name and options.get("base_url"):
        provider, name = "custom", spec
    elif not name or (provider not in PROVIDERS and not own and not options.get("base_url")):
        raise errors.InputError(
            f"llm {spec!r}: no such provider",
            way_out=f"Known: {', '.join(PROVIDERS)}, gguf:PATH, langchain:MODULE:ATTRIBUTE; or add "
            f"`llms: {{{provider}: {{base_url: …}}}}` to ondol.yaml.",
            code="INP-166",
        )
    base_url, key_env, moved = PROVIDERS.get(provider, ("", "", ""))
    base_url = (os.environ.get(moved, "") if moved else "") or base_url
    return _with(LLMSpec(spec, provider, name, base_url, key_env), {**own, **options}, spec)


def _with(spec: LLMSpec, options: Json, text: str) -> LLMSpec:
    if unknown := sorted(set(options) - _OPTIONS):
        raise errors.UnsupportedError(
            f"llm {text!r} has {unknown[0]!r}", where="ondol.yaml", way_out=f"Known: {', '.join(sorted(_OPTIONS))}."
        )
    if "timeout" in options:
        spec = replace(spec, timeout=_number(options["timeout"], "llm.timeout"))
    if "temperature" in options:
        spec = replace(spec, temperature=_number(options["temperature"], "llm.temperature"))
    if "max_tokens" in options:
        spec = replace(spec, max_tokens=int(_number(options["max_tokens"], "llm.max_tokens")))
    if "base_url" in options:
        transport.target_of(str(options["base_url"]))
        spec = replace(spec, base_url=str(options["base_url"]), key_env="")
    if "key" in options:
        spec = replace(spec, key_env=_variable(options["key"]))
    price = options.get("price") or {}
    if not isinstance(price, Mapping):
        raise errors.InputError(f"price {price!r} is not {{input: …, output: …}}", where="ondol.yaml", code="INP-167")
    return replace(
        spec,
        json_schema=bool(options.get("json_schema", spec.json_schema)),
        stream_usage=bool(options.get("stream_usage", spec.stream_usage)),
        price=dict(price),
    )


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise errors.InputError(f"{where} is {value!r}, not a number", where="ondol.yaml", code="INP-168")
    return float(value)


def _variable(value: Any) -> str:
    found = _VARIABLE.match(str(value))
    if not found:
        raise errors.InputError(
            "a key is written in ondol.yaml itself",  # never show it
            where="ondol.yaml",
            way_out="Put it into an environment variable and write key: ${ITS_NAME}.",
            code="INP-169",
        )
    return found.group(1)


def open_model(spec: LLMSpec, project: Path | None = None) -> ChatModel | None:
    """Return the model that a spec names; None for the extractive reader, which is not a language model.

    :raises InputError, DependencyError: when it cannot exist here.
    """
    if spec.provider == EXTRACTIVE:
        return None
    if spec.provider == "gguf":
        return gguf.Gguf(gguf.find(spec.name, project))
    if spec.provider == "langchain":
        return langchain_model.LangChainModel(langchain_model.load(spec.name, project), spec.name)
    endpoint = openai_compatible.Endpoint(
        spec.base_url, spec.key_env, spec.timeout, spec.json_schema, spec.stream_usage
    )
    return openai_compatible.OpenAICompatible(spec.provider, spec.name, endpoint)


class Models:
    """Opened models, one per spec, shared by everybody in a process."""

    def __init__(self, project: Path | None = None) -> None:
        self._project = project
        self._open: dict[tuple[str, str, str], ChatModel | None] = {}

    def get(self, spec: LLMSpec) -> ChatModel | None:
        """Return the model of a spec, opening it the first time."""
        key = (spec.text, spec.base_url, spec.key_env)
        if key not in self._open:
            self._open[key] = open_model(spec, self._project)
        return self._open[key]

    async def close(self) -> None:
        """Close them all."""
        for model in self._open.values():
            if model is not None:
                await model.close()
        self._open.clear()

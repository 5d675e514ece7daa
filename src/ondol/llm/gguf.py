"""Local models in llama.cpp's GGUF format, run in this process by `xllamacpp`.

llama.cpp's own server listens on loopback inside this process, so a local model is one more OpenAI-compatible endpoint.
Settings matter on small machines: one thread less than there are processors and no busy waiting, or generation may
take ten times as long when anything else runs; answers always have a limit, or a weak model may never stop.

Must not download: the file is the user's, or is part of an installed package (`gguf:PACKAGE`).
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ondol.base import errors
from ondol.llm import openai_compatible
from ondol.records.chat import ChatAnswer, ChatDelta, ChatRequest

DEFAULT_CONTEXT = 4096  # tokens of prompt and answer together, per request in flight
DEFAULT_OUTPUT = 512  # tokens, when the caller sets no limit
_MAGIC = b"GGUF"


def find(place: str, base: Path | None = None) -> Path:
    """Return the model file for `gguf:PLACE`: a path (relative to `base`), or an installed package that carries one.

    :raises InputError: when it is neither, or the file is not GGUF.
    """
    path = Path(place).expanduser()
    if not path.is_absolute() and base is not None and (base / path).is_file():
        path = base / path
    if not path.is_file():
        path = _in_package(place)
    with path.open("rb") as file:
        if file.read(4) != _MAGIC:
            raise errors.InputError(f"{path.name!r} is not a GGUF model", where=str(path), code="INP-162")
    return path


def _in_package(name: str) -> Path:
    try:
        files = importlib.metadata.files(name) or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        files = []
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".gguf")]
    if not found:
        raise errors.InputError(
            f"no model file and no installed package {name!r} with one",
            way_out="Write gguf:PATH/TO/MODEL.gguf, or install the package that carries it.",
            code="INP-163",
        )
    return found[0]


class Gguf:
    """A local model; the file is loaded at the first request (a second or so) and kept."""

    provider = "gguf"
    supports_json_schema = True

    def __init__(self, path: Path, context: int = DEFAULT_CONTEXT, parallel: int = 1) -> None:
        self.path, self.name = path, path.stem
        self._context, self._parallel = context, parallel
        self._guard = threading.Lock()
        self._server: Any = None
        self._model: openai_compatible.OpenAICompatible | None = None

    def _open(self) -> openai_compatible.OpenAICompatible:
        with self._guard:
            model = self._model
            if model is None:
                self._server = self._load()
                endpoint = openai_compatible.Endpoint(f"{self._server.listening_address}/v1", timeout=600.0)
                model = openai_compatible.OpenAICompatible(self.provider, self.name, endpoint)
                self._model = model
            return model

    def _load(self) -> Any:
        try:
            import xllamacpp
        except ImportError as error:
            raise errors.DependencyError(
                "a gguf: model needs xllamacpp", way_out="pip install 'ondol[local-llm]'", code="DEP-160"
            ) from error
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(self.path)
        parameters.n_ctx = self._context * self._parallel
        parameters.n_parallel = self._parallel
        parameters.n_predict = DEFAULT_OUTPUT
        parameters.verbosity = 0
        for cpu in (parameters.cpuparams, parameters.cpuparams_batch):
            cpu.n_threads = max(1, (os.cpu_count() or 2) - 1)
            cpu.poll = 0
        try:
            return xllamacpp.Server(parameters)
        except RuntimeError as error:
            raise errors.UpstreamError(
                f"llama.cpp cannot load {self.path.name!r}: {error}", where=str(self.path), code="UPS-109"
            ) from error

    async def opened(self) -> openai_compatible.OpenAICompatible:
        """Return the running model, loading it when needed."""
        model = self._model
        return model if model is not None else await asyncio.to_thread(self._open)

    async def post(self, path: str, body: bytes) -> Any:
        """Send a request body as it is; see `OpenAICompatible.post`."""
        return await (await self.opened()).post(path, body)

    async def complete(self, request: ChatRequest) -> ChatAnswer:
        """Ask and wait for the whole answer."""
        return await (await self.opened()).complete(_limited(request))

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        """Ask and yield the answer as it is written."""
        model = await self.opened()
        async for delta in model.stream(_limited(request)):
            yield delta

    async def close(self) -> None:
        """Free the model."""
        if self._model is not None:
            await self._model.close()
        self._model = self._server = None


def _limited(request: ChatRequest) -> ChatRequest:
    return request if request.max_tokens is not None else replace(request, max_tokens=DEFAULT_OUTPUT)

"""Flows that only NeMo's runtime can run, in that runtime (extra `nemo`), loaded when first used.

Must not be imported by the fast path. NeMo's usage telemetry is switched off first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ondol.base import errors
from ondol.formats.rails import RailsFile
from ondol.guardrails.decision import PASS, Verdict


def require(file: RailsFile, where: str, colang: list[Path]) -> None:
    """Check that NeMo's runtime is installed.

    :raises UnsupportedError: naming the flows or Colang files that need it when it is not.
    """
    import importlib.util

    if importlib.util.find_spec("nemoguardrails") is not None:
        return
    names = [rail.flow for rail in file.needs_nemo] + [path.name for path in colang]
    raise errors.UnsupportedError(
        f"{', '.join(map(repr, names))} needs NeMo's own runtime, which is not installed",
        where=where,
        way_out="pip install 'ondol[nemo]', or use the flows that are checked in process (`self check input`, …).",
        code="UNS-061",
    )


class Runtime:
    """NeMo's engine over the same folder, with only the flows we hand to it.

    :raises UpstreamError: when NeMo refuses the configuration.
    """

    def __init__(self, folder: Path, file: RailsFile, colang: list[Path]) -> None:
        os.environ.setdefault("NEMO_GUARDRAILS_NO_USAGE_STATS", "1")
        os.environ.setdefault("DO_NOT_TRACK", "1")
        try:
            from nemoguardrails import RailsConfig
            from nemoguardrails.guardrails.guardrails import Guardrails

            config = RailsConfig.from_path(str(folder))
            if not colang:
                for channel in ("input", "output", "retrieval"):
                    kept = [rail.flow for rail in file.needs_nemo if rail.channel == channel]
                    section = getattr(config.rails, channel)
                    section.flows = [flow for flow in section.flows if flow.split(" $")[0].strip() in kept]
            self._engine: Any = Guardrails(config)
        except Exception as error:
            raise errors.UpstreamError(
                f"NeMo Guardrails refuses the folder: {error}", where=str(folder), code="UPS-061"
            ) from error

    async def check(self, text: str, question: str, channel: str) -> Verdict:
        """Run NeMo's rails of one channel on a text.

        :raises UpstreamError: when NeMo fails.
        """
        from nemoguardrails.rails.llm.options import RailType

        messages = [{"role": "user", "content": question or text}]
        if channel == "output":
            messages.append({"role": "assistant", "content": text})
        kind = RailType.OUTPUT if channel == "output" else RailType.INPUT
        try:
            result = await self._engine.check_async(messages, rail_types=[kind])
        except Exception as error:
            raise errors.UpstreamError(f"NeMo Guardrails failed: {error}", code="UPS-062") from error
        status = str(result.status.value)
        if status == "blocked":
            return Verdict("block", f"NeMo: {result.rail or 'blocked'}", 1.0)
        if status == "modified":
            return Verdict("mask", f"NeMo: {result.rail or 'modified'}", 1.0, (), str(result.content))
        return PASS

"""Flows that only NeMo's runtime can run, in that runtime (extra `nemo`), loaded when first used.

Must not be imported by the fast path. NeMo's usage telemetry is switched off first.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from ondol.base import errors
from ondol.formats.rails import RailsFile
from ondol.guardrails.decision import PASS, Verdict


def require(file: RailsFile, where: str) -> None:
    """Check that NeMo's runtime is installed.

    :raises UnsupportedError: naming the flows that need it when it is not.
    """
    import importlib.util

    if importlib.util.find_spec("nemoguardrails") is not None:
        return
    names = [rail.flow for rail in file.needs_nemo]
    raise errors.UnsupportedError(
        f"{', '.join(map(repr, names))} needs NeMo's own runtime, which is not installed",
        where=where,
        way_out="pip install 'ondol[nemo]', or use the flows that are checked in process (`self check input`, …).",
        code="UNS-061",
    )


def _colang(folder: Path) -> str:
    return "\n\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.rglob("*.co")))


def _only_ours(folder: Path, file: RailsFile) -> str:
    """The config with only the flows handed to NeMo: it demands prompts and models for the others."""
    path = next(path for path in (folder / "config.yml", folder / "config.yaml", folder) if path.is_file())
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    handed = {rail.flow for rail in file.needs_nemo}
    for section in (data["rails"].get(channel) or {} for channel in ("input", "output", "retrieval")):
        section["flows"] = [flow for flow in section.get("flows") or [] if flow.split(" $")[0].strip() in handed]
    return yaml.safe_dump(data, allow_unicode=True)


class Runtime:
    """NeMo's engine over the same folder, with only the flows we hand to it.

    :raises UpstreamError: when NeMo refuses the configuration.
    """

    def __init__(self, folder: Path, file: RailsFile) -> None:
        os.environ.setdefault("NEMO_GUARDRAILS_NO_USAGE_STATS", "1")
        os.environ.setdefault("DO_NOT_TRACK", "1")
        try:
            from nemoguardrails import RailsConfig
            from nemoguardrails.guardrails.guardrails import Guardrails

            config = RailsConfig.from_content(_colang(folder), _only_ours(folder, file))
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

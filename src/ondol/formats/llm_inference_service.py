"""KServe `LLMInferenceService` v1alpha1 and v1alpha2: a checked manifest as a typed record.

What its fields are is declared in `formats.kserve.llm`. Pure: reads no files, no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ondol.formats.kserve import kinds
from ondol.formats.kserve.common import STOP
from ondol.formats.kserve.llm import LLM_INFERENCE_SERVICE

Json = dict[str, Any]

KIND = LLM_INFERENCE_SERVICE.kind


@dataclass(frozen=True, slots=True)
class LLMInferenceService:
    """What one manifest asks for."""

    name: str
    namespace: str
    path: str
    """The GGUF file; a relative path begins at the project."""

    model: str
    """What clients call it."""

    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def stopped(self) -> bool:
        return self.annotations.get(STOP, "").lower() == "true"


def typed(manifest: Json, source: str = "") -> LLMInferenceService:
    """Return the record of a manifest.

    :raises UnsupportedError: when all that is wrong are fields this backend does not honour; all are listed.
    :raises InputError: when the manifest itself is wrong; all problems are listed.
    """
    problems = kinds.check(manifest).problems
    if problems:
        raise kinds.refusal(manifest, problems, source)
    metadata, model = manifest["metadata"], manifest["spec"]["model"]
    return LLMInferenceService(
        name=metadata["name"],
        namespace=metadata.get("namespace") or "default",
        path=model["uri"].removeprefix("file://"),
        model=model.get("name") or metadata["name"],
        annotations=dict(metadata.get("annotations") or {}),
    )

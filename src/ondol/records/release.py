"""A release: one content-addressed thing that can be served, gated, canaried and rolled back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ondol.records.worker import WorkerSpec

Kind = Literal["model", "application"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ModelManifest:
    """What a model release pins."""

    artifact: str
    """Digest of the model's files (`hashing.of_tree`)."""

    uri: str
    """Where the files are: a path, or `models:/…`, `runs:/…`, `s3://…`."""

    format: str = "sklearn"
    """KServe's model format name."""

    model: str = ""
    """Registered model name in MLflow, if any."""

    version: str = ""
    """Registered model version in MLflow, if any."""

    run: str = ""
    """MLflow run that made it, if any."""

    worker: WorkerSpec | None = None
    """A server of the user's own, which is the model; None: the files are."""


@dataclass(frozen=True, slots=True)
class ApplicationManifest:
    """What a release of an LLM application pins."""

    llm: str
    """Provider and model (`openai/gpt-4o-mini`, `gguf:<digest>`), or `extractive`."""

    prompt: str = ""
    """Prompt name and commit: `qa_prompt@<digest>`."""

    index: str = ""
    """Index name and snapshot: `docs@<digest>`."""

    guardrails: str = ""
    """Digest of the guardrails folder."""

    output: str = ""
    """Output schema: `schemas.py:StructuredResponse@<digest of its JSON schema>`."""

    retrieval: Json = field(default_factory=dict)
    """k, fusion gate, abstain threshold and whatever else changes an answer."""


@dataclass(frozen=True, slots=True)
class Release:
    """A manifest with its address."""

    digest: str
    """Digest of name, kind and manifest: the release's identity."""

    name: str
    """The service or application it is a release of."""

    kind: Kind
    manifest: Json
    """`ModelManifest` or `ApplicationManifest` as plain values."""

    created_at: float
    """Seconds since the epoch; not part of the identity."""

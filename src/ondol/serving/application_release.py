"""From what `ondol.yaml` says of an application to a release that pins it: prompt, index, guardrails, LLM, schema.

Everything that changes an answer is named by content, so that a rollback brings back exactly what was. What lives in
files of the project (guardrails, schema) is copied into the blob store. Must not start anything.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondol.base import errors, hashing, settings
from ondol.guardrails import output_validation, rails
from ondol.llm import gguf, registry
from ondol.prompts.library import Prompts
from ondol.records.project import ApplicationSpec
from ondol.records.release import ApplicationManifest, Release
from ondol.retrieval import index as indexes
from ondol.store import releases
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

Json = dict[str, Any]
RETRIEVAL_OPTIONS = frozenset(
    {"k", "threshold", "gate", "lexical_weight", "rrf_constant", "candidates", "where", "fallback"}
)
DEFAULT_K = 5


@dataclass(frozen=True, slots=True)
class Pinned:
    """The parts of a release that are not in the manifest's own fields; kept in its `retrieval`."""

    llm: Json
    """How the model is called: address, temperature, limit, digest of a local file. Never a key."""

    output_source: str = ""
    """Blob with the schema's Python file."""


def build_release(
    store: Store,
    settings_: settings.Settings,
    name: str,
    spec: ApplicationSpec,
    providers: Mapping[str, Any] | None = None,
) -> Release:
    """Pin an application as it is now and record the release; nothing changed gives the release there is.

    :raises InputError, NotFoundError: when something it names does not exist or does not fit together.
    """
    project = settings_.project
    where = f"ondol.yaml: applications.{name}"
    chosen = _llm(spec, providers)
    details = _check_retrieval(spec.retrieval, where)
    details["llm"] = _pinned_llm(chosen, project)
    if not spec.index and chosen.provider == registry.EXTRACTIVE:
        raise errors.InputError(
            f"application {name!r} has neither an LLM nor an index",
            where=where,
            way_out="Give it `index: NAME` (the extractive reader answers from it) or `llm: PROVIDER/MODEL`.",
            code="INP-173",
        )
    manifest = ApplicationManifest(
        llm=chosen.text,
        prompt=_prompt(store, project, spec.prompt, where),
        index=_index(store, spec.index),
        guardrails=_guardrails(settings_, spec.guardrails, where),
        output=_output(settings_, spec.output, where, details),
        retrieval=details,
    )
    return releases.put(store, name, manifest)


def _llm(spec: ApplicationSpec, providers: Mapping[str, Any] | None) -> registry.LLMSpec:
    if spec.base_url:
        return registry.parse({"model": spec.llm, "base_url": spec.base_url}, providers)
    return registry.parse(spec.llm, providers)


def _check_retrieval(options: Json, where: str) -> Json:
    if unknown := sorted(set(options) - RETRIEVAL_OPTIONS):
        raise errors.UnsupportedError(
            f"retrieval has {unknown[0]!r}", where=where, way_out=f"Known: {', '.join(sorted(RETRIEVAL_OPTIONS))}."
        )
    k = options.get("k", DEFAULT_K)
    if not isinstance(k, int) or not 1 <= k <= 100:
        raise errors.InputError(f"retrieval.k is {k!r}", where=where, way_out="1 to 100.", code="INP-174")
    threshold = options.get("threshold")
    if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, int | float)):
        raise errors.InputError(f"retrieval.threshold is {threshold!r}", where=where, code="INP-174")
    if options.get("fallback", registry.EXTRACTIVE) != registry.EXTRACTIVE:
        raise errors.UnsupportedError(f"retrieval.fallback is {options['fallback']!r}", where=where)
    return {**options, "k": k}


def _pinned_llm(chosen: registry.LLMSpec, project: Path) -> Json:
    pinned: Json = {"timeout": chosen.timeout, "json_schema": chosen.json_schema, "stream_usage": chosen.stream_usage}
    if chosen.base_url:
        pinned["base_url"] = chosen.base_url
    if chosen.key_env:
        pinned["key_env"] = chosen.key_env
    for option in ("temperature", "max_tokens"):
        if (value := getattr(chosen, option)) is not None:
            pinned[option] = value
    if chosen.price:
        pinned["price"] = chosen.price
    if chosen.provider == "gguf":
        path = gguf.find(chosen.name, project)
        pinned["file"], pinned["digest"] = str(path), hashing.of_file(path)
    return pinned


def llm_of(manifest: ApplicationManifest, providers: Mapping[str, Any] | None = None) -> registry.LLMSpec:
    """Return the model a release pins, called as the release says."""
    pinned = dict(manifest.retrieval.get("llm") or {})
    options: Json = {"model": manifest.llm}
    for name in ("timeout", "json_schema", "stream_usage", "base_url", "temperature", "max_tokens", "price"):
        if name in pinned:
            options[name] = pinned[name]
    if manifest.llm in ("", registry.EXTRACTIVE):
        return registry.parse(None)
    if "key_env" in pinned:
        options["key"] = "${" + str(pinned["key_env"]) + "}"
    return registry.parse(options, providers)


def _prompt(store: Store, project: Path, name: str, where: str) -> str:
    if not name:
        return ""
    library = Prompts(store)
    path = project / name
    commit = library.push(path) if path.suffix in (".yaml", ".yml") and path.is_file() else library.get(name)
    known = {"context", "question", "format_instructions"}
    if unknown := [one for one in commit.prompt.input_variables if one not in known]:
        raise errors.InputError(
            f"prompt {name!r} needs {unknown[0]!r}, which an application does not have",
            where=where,
            way_out="An application fills context, question and format_instructions.",
            code="INP-175",
        )
    return commit.address


def _index(store: Store, name: str) -> str:
    if not name:
        return ""
    return f"{name.partition('@')[0]}@{indexes.resolve(name, store)}"


def _guardrails(settings_: settings.Settings, folder: str, where: str) -> str:
    if not folder:
        return ""
    path = settings_.project / folder
    if not path.is_dir():
        raise errors.NotFoundError(f"no guardrails folder {folder!r}", where=where, code="NOF-163")
    rails.Guardrails.load(path)  # refuse a broken one now, not when it is served
    return Blobs(settings_.blobs).put_path(path)


def _output(settings_: settings.Settings, text: str, where: str, details: Json) -> str:
    if not text:
        return ""
    file, _, name = text.partition(":")
    path = settings_.project / file
    if not name or not path.is_file():
        raise errors.InputError(f"output {text!r} is no FILE.py:CLASS of the project", where=where, code="INP-176")
    schema = output_validation.OutputSchema.load(text, settings_.project)
    with tempfile.TemporaryDirectory() as folder:  # kept under its own name, because Python imports it
        (Path(folder) / path.name).write_bytes(path.read_bytes())
        details["output_source"] = Blobs(settings_.blobs).put_path(Path(folder))
    return f"{text}@{hashing.of_json(schema.json_schema)}"

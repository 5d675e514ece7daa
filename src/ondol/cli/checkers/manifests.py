"""Kubernetes manifests: every document of a file, each problem with its line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from ondol.backends.local import containers, serving_runtimes
from ondol.base import errors
from ondol.cli import context
from ondol.cli.checkers.findings import Finding, SourceFile
from ondol.formats import inference_service, serving_runtime
from ondol.formats.resource import documents
from ondol.formats.resource.checking import Problem
from ondol.formats.resource.documents import Document
from ondol.formats.serving_runtime import ServingRuntime

_GROUPS = re.compile(
    r"^\s*-?\s*\"?apiVersion\"?:\s*[\"']?(serving\.kserve|(?:[\w.]+\.)?kubeflow)\.(io|org)/", re.MULTILINE
)
_CORE = ("Namespace", "Secret", "ConfigMap")
"""Kinds that stand beside KServe's; the resource door checks them."""


def claims(file: SourceFile) -> bool:
    """Take standard input, files with resources of the groups that are served, and any manifest that is named."""
    if file.path.suffix not in (".yaml", ".yml", ".json") and str(file.path) != "-":
        return False
    if not {"apiVersion", "kind"} <= file.keys:
        return False
    return file.named or bool(_GROUPS.search(file.text))


def check(file: SourceFile) -> Iterator[Finding]:
    """Say of every document what is wrong, refused, or without effect."""
    listed = documents.parse(file.text, str(file.path))
    runtimes = [*serving_runtime.among(one.manifest for one in listed), *_beside(file), *_applied()]
    for document in listed:
        if document.manifest["kind"] in _CORE:
            continue
        found = serving_runtime.check(document.manifest, lambda: runtimes)
        for problem in found.problems:
            yield _finding(document, problem)
        if not found.problems and document.manifest["kind"] == inference_service.KIND:
            yield from _servers(document, runtimes)
        for note in found.notes:
            field, _, said = note.partition(": ")
            yield Finding(document.source, document.line(field), field, said, "note")


def _servers(document: Document, runtimes: list[ServingRuntime]) -> Iterator[Finding]:
    """Say of every container that would run, a chosen runtime's too, why it cannot: its image has no rule, mostly."""
    settings = context.load_settings()
    service, chosen = serving_runtime.settled(document.manifest, runtimes)
    paths = inference_service.predictors(document.manifest)
    predictors = [service.predictor, *(one.predictor for one in service.canary)]
    parts = [
        (path, part if runtime is None else serving_runtime.as_server(service, part, runtime), runtime)
        for path, part, runtime in zip(paths, predictors, chosen, strict=True)
    ]
    around = (("spec.transformer", service.transformer), ("spec.explainer", service.explainer))
    parts += [(path, part, None) for path, part in around if part is not None]
    for path, part, runtime in parts:
        if part.server is None:
            continue
        place = f"{runtime.kind} {runtime.name!r}: " if runtime else ""
        try:
            containers.worker(service, path.rpartition(".")[2], part, settings, f"{path}.containers[0]")
        except errors.InputError as error:
            field = f"{path}.model" if runtime else error.where
            message = f"{place}{error.message}"
            yield Finding(
                document.source, document.line(field), field, message, "error", error.way_out, error.code
            )  # fmt: skip


def _beside(file: SourceFile) -> Iterator[ServingRuntime]:
    """Yield the runtimes in other files of the same folder; what is wrong with those is said of themselves."""
    for path in sorted(file.path.parent.glob("*.y*ml")) if str(file.path) != "-" else ():
        with contextlib.suppress(errors.OndolError, OSError, UnicodeDecodeError):
            text = path.read_text(encoding="utf-8")
            if path.name != file.path.name and "ServingRuntime" in text:
                yield from serving_runtime.among(one.manifest for one in documents.parse(text, str(path)))


def _applied() -> list[ServingRuntime]:
    settings = context.load_settings()
    if not settings.database_url and not Path(settings.database).exists():
        return []
    with context.open_store(settings) as store:
        return serving_runtimes.every(store)


def _finding(document: Document, problem: Problem) -> Finding:
    way_out = problem.state.way_out
    reason = problem.reason.removesuffix(f"; {way_out}") if way_out else problem.reason
    code = ("UNS-012" if problem.path == "kind" else "UNS-010") if problem.unsupported else "INP-011"
    return Finding(document.source, document.line(problem.path), problem.path, reason, "error", way_out, code)

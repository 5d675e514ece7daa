"""Kubernetes manifests: every document of a file, each problem with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ondol.cli.checkers.findings import Finding, SourceFile
from ondol.formats.kserve import kinds
from ondol.formats.resource import documents
from ondol.formats.resource.checking import Problem
from ondol.formats.resource.documents import Document

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
    for document in documents.parse(file.text, str(file.path)):
        if document.manifest["kind"] in _CORE:
            continue
        found = kinds.check(document.manifest)
        for problem in found.problems:
            yield _finding(document, problem)
        for note in found.notes:
            field, _, said = note.partition(": ")
            yield Finding(document.source, document.line(field), field, said, "note")


def _finding(document: Document, problem: Problem) -> Finding:
    way_out = problem.state.way_out
    reason = problem.reason.removesuffix(f"; {way_out}") if way_out else problem.reason
    code = ("UNS-012" if problem.path == "kind" else "UNS-010") if problem.unsupported else "INP-011"
    return Finding(document.source, document.line(problem.path), problem.path, reason, "error", way_out, code)

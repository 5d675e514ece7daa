"""Evaluation suites, with their samples."""

from __future__ import annotations

from collections.abc import Iterator

from ondol.cli.checkers.findings import Finding, SourceFile
from ondol.formats import eval_suite


def claims(file: SourceFile) -> bool:
    """Take YAML with metrics and something to measure them on."""
    return file.path.suffix in (".yaml", ".yml") and "metrics" in file.keys and bool({"dataset", "samples"} & file.keys)


def check(file: SourceFile) -> Iterator[Finding]:
    """Read the suite as `ondol eval` does."""
    eval_suite.load(file.path)
    yield from ()

"""NeMo Guardrails' `config.yml`, with the flows of the Colang files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ondol.cli.checkers.findings import Finding, SourceFile
from ondol.formats import rails


def claims(file: SourceFile) -> bool:
    """Take `config.yml` with rails in it."""
    return file.path.name in ("config.yml", "config.yaml") and "rails" in file.keys


def check(file: SourceFile) -> Iterator[Finding]:
    """Say of every flow and option what cannot be honoured."""
    found = rails.problems(file.text, str(file.path), _own_flows(file))
    for problem in found:
        line = re.search(r":(\d+)$", problem.where)
        yield Finding(
            str(file.path), int(line[1]) if line else 0, "", problem.message, "error", problem.way_out, "UNS-060"
        )


def fix(file: SourceFile) -> str:
    """Return the text with every unknown flow replaced by the one that is meant."""
    return rails.suggest(file.text, str(file.path))


def _own_flows(file: SourceFile) -> frozenset[str]:
    scripts = [path.read_text(encoding="utf-8", errors="replace") for path in file.path.parent.rglob("*.co")]
    return frozenset[str]().union(*(rails.colang_flows(text) for text in scripts))

"""Prompt files: template and variables must agree."""

from __future__ import annotations

from collections.abc import Iterator

from ondol.cli.checkers.findings import Finding, SourceFile
from ondol.formats import prompt


def claims(file: SourceFile) -> bool:
    """Take YAML with a template or messages and the name or variables of a prompt."""
    if file.path.suffix not in (".yaml", ".yml"):
        return False
    return bool({"template", "messages"} & file.keys) and bool({"input_variables", "_type", "name"} & file.keys)


def check(file: SourceFile) -> Iterator[Finding]:
    """Read the prompt as `ondol prompt push` does."""
    prompt.parse(file.text, str(file.path))
    yield from ()

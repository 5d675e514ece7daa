"""`ondol.yaml`: the file itself, and whether what it names is there."""

from __future__ import annotations

from collections.abc import Iterator

from ondol.base import settings
from ondol.cli.checkers.findings import Finding, SourceFile
from ondol.formats import project
from ondol.records.project import Project


def claims(file: SourceFile) -> bool:
    """Take the project file."""
    return file.path.name == settings.PROJECT_FILE


def check(file: SourceFile) -> Iterator[Finding]:
    """Read it as every command does, and look for the files it names."""
    found = project.parse(file.text, str(file.path))
    for field, name in _named(found):
        if not (file.path.parent / name).exists():
            yield Finding(
                str(file.path), _line(file.text, name), field, f"there is no {name!r}", "error",
                "Paths begin at the folder of ondol.yaml.", "INP-301",
            )  # fmt: skip


def _named(found: Project) -> Iterator[tuple[str, str]]:
    for name, model in found.models.items():
        yield f"models.{name}.pipeline", model.pipeline
    for index, path in enumerate(found.serving):
        yield f"serving[{index}]", path
    for index, path in enumerate(found.evaluations):
        yield f"evaluations[{index}]", path
    for field, path in (("prompts", found.prompts), ("guardrails", found.guardrails)):
        if path:
            yield field, path


def _line(text: str, name: str) -> int:
    return next((number for number, line in enumerate(text.splitlines(), 1) if name in line), 0)

"""KFP pipelines: a `.py` with a `@dsl.pipeline`, compiled by the user's own kfp, or what its compiler wrote."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ondol.cli import context
from ondol.cli.checkers.findings import Finding, SourceFile
from ondol.store.connection import Store

_DEFINES = re.compile(r"^\s*@(?:\w+\.)*pipeline\b", re.MULTILINE)


def claims(file: SourceFile) -> bool:
    """Take Python files that define a pipeline with kfp, and compiled pipelines."""
    if file.path.suffix == ".py":
        return "kfp" in file.text and bool(_DEFINES.search(file.text))
    return file.path.suffix in (".yaml", ".yml", ".json") and "pipelineInfo" in file.keys


def check(file: SourceFile) -> Iterator[Finding]:
    """Compile it, or read what was compiled."""
    from ondol.pipelines import compiling

    settings = context.load_settings()
    if settings.database_url or Path(settings.database).exists():
        with context.open_store(settings) as store:
            compiled = compiling.load(file.path, store)
    else:  # a check leaves nothing behind
        with tempfile.TemporaryDirectory(prefix="ondol-check-") as folder, Store(f"{folder}/check.db") as store:
            compiled = compiling.load(file.path, store)
    for note in compiled.pipeline.notes:
        yield Finding(str(file.path), 0, "", note, "note")

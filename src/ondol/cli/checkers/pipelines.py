"""KFP pipelines: a `.py` with a `@dsl.pipeline`, compiled by the user's own kfp, or what its compiler wrote."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ondol.base import errors
from ondol.cli import context
from ondol.cli.checkers.findings import Finding, SourceFile, of_error
from ondol.store.connection import Store

if TYPE_CHECKING:
    from ondol.pipelines.compiling import Compiled

_DEFINES = re.compile(r"^\s*@(?:\w+\.)*pipeline\b", re.MULTILINE)


def claims(file: SourceFile) -> bool:
    """Take Python files that define a pipeline with kfp, and compiled pipelines."""
    if file.path.suffix == ".py":
        return "kfp" in file.text and bool(_DEFINES.search(file.text))
    return file.path.suffix in (".yaml", ".yml", ".json") and "pipelineInfo" in file.keys


def check(file: SourceFile) -> Iterator[Finding]:
    """Compile it, or read what was compiled."""
    settings = context.load_settings()
    if settings.database_url or Path(settings.database).exists():
        with context.open_store(settings) as store:
            yield from _each(file, store)
    else:  # a check leaves nothing behind
        with tempfile.TemporaryDirectory(prefix="ondol-check-") as folder, Store(f"{folder}/check.db") as store:
            yield from _each(file, store)


def _each(file: SourceFile, store: Store) -> Iterator[Finding]:
    """Check the one pipeline of a file, or each of several by its name."""
    from ondol.pipelines import compiling

    try:
        yield from _notes(file, compiling.load(file.path, store))
    except compiling.SeveralPipelines as several:
        for name in several.names:
            try:
                yield from _notes(file, compiling.load(file.path, store, name))
            except errors.OndolError as error:
                yield replace(of_error(error, file), field=name)


def fix(file: SourceFile) -> str:
    """Write `.output` behind importers that are passed on as they are, which kfp demands."""
    from ondol.pipelines import mending

    return mending.mended(file.text) if file.path.suffix == ".py" else file.text


def _notes(file: SourceFile, compiled: Compiled) -> Iterator[Finding]:
    from ondol.pipelines import containers
    from ondol.pipelines.walk import project_of

    containers.images(compiled.pipeline, project_of(context.load_settings()), str(file.path))
    for note in compiled.pipeline.notes:
        yield Finding(str(file.path), 0, compiled.pipeline.name, note, "note")

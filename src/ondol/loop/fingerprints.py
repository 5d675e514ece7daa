"""Whether the files or tables that a model or application is made of have changed: one digest for all of them.

A file is read again only when its size or time changed, and a table is counted, not read. Must not run user code.
"""

from __future__ import annotations

import functools
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from ondol.base import errors, hashing
from ondol.records import codec
from ondol.records.project import Project
from ondol.store import counters
from ondol.store.connection import Store

_SPEC = "spec:"  # what ondol.yaml itself says, beside the files


def sources(project: Project, name: str) -> tuple[str, ...]:
    """Return what a change of would make another release: files, folders, and what ondol.yaml says of it."""
    if name in project.models:
        model = project.models[name]
        said = hashing.of_json(codec.plain([model.pipeline_name, model.parameters, model.model]))
        return (model.pipeline, _SPEC + said)
    if name not in project.applications:
        return ()
    application = project.applications[name]
    prompt = application.prompt if application.prompt.endswith((".yaml", ".yml")) else ""
    index = project.indexes.get(application.index.partition("@")[0])
    said = hashing.of_json(codec.plain([application, index, project.llms]))
    files = (prompt, application.guardrails, application.output.partition(":")[0], index.path if index else "")
    return (*(one for one in files if one), _SPEC + said)


def is_spec(source: str) -> bool:
    """Whether one of `sources` is what ondol.yaml says, and no file."""
    return source.startswith(_SPEC)


def put(store: Store, kind: str, name: str, fingerprint: str) -> None:
    """Remember the fingerprint of the last walk, and when that was."""
    counters.put_fact(store, f"fingerprint/{kind}/{name}", [fingerprint, time.time()])


def known(store: Store, kind: str, name: str) -> tuple[str, float] | None:
    """Return what `put` was given last, and when."""
    found = counters.fact(store, f"fingerprint/{kind}/{name}")
    return (str(found[0]), float(found[1])) if found else None


def walked(store: Store, root: Path, project: Project, name: str) -> None:
    """Remember what a walk that begins now is made of: taken before it, so that a change during it is another one."""
    found = {"change": sources(project, name), "data": project.retrain.data if name in project.models else ()}
    for kind, what in found.items():
        if kind in project.retrain.on and what:
            put(store, kind, name, of(root, what))


def of(root: Path, what: Sequence[str]) -> str:
    """Return one digest of files, folders, globs (relative to `root`) and tables.

    :raises InputError: INP-454 for a table that cannot be counted.
    """
    return hashing.of_json({one: _one(root, one) for one in what})


def _one(root: Path, text: str) -> object:
    if text.startswith(_SPEC):
        return text
    if "://" in text:
        return _table(root, text)
    return {path.relative_to(root).as_posix(): _file(path) for path in sorted(set(_files(root, text)))}


def _files(root: Path, text: str) -> Iterator[Path]:
    path = root / text
    if path.is_dir():
        yield from hashing.files_below(path)
    elif path.is_file():
        yield path
    elif any(one in text for one in "*?["):
        yield from (one for one in root.glob(text) if one.is_file())


def _file(path: Path) -> str:
    found = path.stat()
    return _digest(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=10_000)
def _digest(path: Path, size: int, changed: int) -> str:
    return hashing.of_file(path)


def _table(root: Path, text: str) -> list[object]:
    """Count a table, and take its largest key where it has one in its first column."""
    address, _, table = text.partition("#")
    if not table.isidentifier():
        raise errors.InputError(f"{text!r} names no table", way_out="Write sqlite:///FILE#TABLE.", code="INP-454")
    query = f"SELECT count(*) FROM {table}"  # an identifier: checked above
    try:
        if address.startswith("sqlite:///"):
            path = root / address.removeprefix("sqlite:///")
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
            try:
                return [*connection.execute(query).fetchone(), *connection.execute(_newest(table)).fetchone()]
            finally:
                connection.close()
        return _postgres(address, query)
    except sqlite3.Error as error:
        raise errors.InputError(f"{text!r}: {error}", code="INP-454") from None


def _newest(table: str) -> str:
    return f"SELECT max(rowid) FROM {table}"  # an identifier: checked by the caller


def _postgres(address: str, query: str) -> list[object]:
    import os

    try:
        import psycopg
    except ImportError as error:
        raise errors.DependencyError(
            "a postgresql:// table needs psycopg", way_out="pip install 'ondol[postgres]'", code="DEP-002"
        ) from error
    try:
        with psycopg.connect(os.path.expandvars(address), connect_timeout=5) as connection:
            row = connection.execute(query.encode()).fetchone()
            return list(row or ())
    except psycopg.Error as error:
        raise errors.InputError(f"a table cannot be counted: {type(error).__name__}", code="INP-454") from None

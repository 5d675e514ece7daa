"""`ondol doctor`: what this machine and environment have, what is missing or wrong, and the remedy of each."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from ondol.base.settings import Address, Settings
from ondol.cli import context, output

Level = Literal["ok", "warning", "broken", "missing"]
_MARKS = {"ok": "ok", "warning": "!", "broken": "BROKEN", "missing": "-"}
_DISK_WARNING, _DISK_BROKEN = 5_000_000_000, 500_000_000  # bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    """`missing` is an optional part that is not there."""

    what: str
    found: str
    remedy: str = ""


def _version(package: str) -> tuple[int, ...] | None:
    try:
        text = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    parts = text.split(".")[:3]
    return tuple(int("".join(char for char in part if char.isdigit()) or 0) for part in parts)


def check_python(_: Settings) -> Iterator[Finding]:
    """Python and bytecode."""
    found = f"{platform.python_version()} ({sys.executable})"
    yield Finding("ok", "python", found)
    if sys.dont_write_bytecode and not _has_bytecode("mlflow"):
        remedy = "Unset PYTHONDONTWRITEBYTECODE or compile once: python -m compileall -q $(python -c 'import mlflow,os;"
        remedy += "print(os.path.dirname(mlflow.__file__))')"
        yield Finding("warning", "bytecode", "none for mlflow: every start takes 7 s longer", remedy)


def _has_bytecode(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    folder = Path(spec.origin).parent if spec and spec.origin else None
    return folder is None or any((folder / "__pycache__").glob("*.pyc"))


def check_uv(_: Settings) -> Iterator[Finding]:
    """uv builds the environments of components."""
    beside = Path(sys.executable).with_name("uv")
    where = str(beside) if beside.exists() else shutil.which("uv")
    if where:
        yield Finding("ok", "uv", where)
    else:
        yield Finding("broken", "uv", "not found", "pip install uv   (components with packages_to_install need it)")


def check_sqlite(_: Settings) -> Iterator[Finding]:
    """SQLite's version and full-text search."""
    if sqlite3.sqlite_version_info < (3, 35):
        yield Finding("broken", "sqlite", sqlite3.sqlite_version, "Ondol needs 3.35 (RETURNING): use a newer Python.")
        return
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE t USING fts5(x)")
        yield Finding("ok", "sqlite", f"{sqlite3.sqlite_version} with full-text search")
    except sqlite3.OperationalError:
        remedy = "Document search needs FTS5: use a Python from python.org, conda or uv."
        yield Finding("broken", "sqlite", f"{sqlite3.sqlite_version} without FTS5", remedy)
    finally:
        connection.close()


def check_mlflow(_: Settings) -> Iterator[Finding]:
    """MLflow and the one package whose versions break it."""
    mlflow, skops = _version("mlflow"), _version("skops")
    shown = ".".join(map(str, mlflow or ()))
    if mlflow is None:
        yield Finding("broken", "mlflow", "not installed", "pip install 'mlflow>=3.17,<3.18'")
    elif not (3, 17) <= mlflow < (3, 18):
        remedy = "pip install 'mlflow>=3.17,<3.18'   (its server is embedded through names that change)"
        yield Finding("broken", "mlflow", f"{shown}, tested with 3.17", remedy)
    else:
        yield Finding("ok", "mlflow", shown)
    if skops is None:
        yield Finding("broken", "skops", "not installed", "pip install 'skops>=0.11,<0.15'")
    elif skops >= (0, 15):
        found = f"{'.'.join(map(str, skops))}: mlflow.sklearn.log_model fails on forests and other tree models"
        remedy = (
            "pip install 'skops<0.15'   (or in each call: serialization_format='cloudpickle', "
            "or skops_trusted_types=['sklearn.tree._tree.Tree'])"
        )
        yield Finding("broken", "skops", found, remedy)
    else:
        yield Finding("ok", "skops", ".".join(map(str, skops)))


def check_ports(settings: Settings) -> Iterator[Finding]:
    """The two ports: free, or ours already."""
    from ondol.app import listen, running
    from ondol.base import errors

    found = running.find(settings.home)
    if found:
        addresses = (("control", found.control), ("data plane", found.data))
        for name, address in addresses:
            if running.is_ready(address):
                yield Finding("ok", f"port of {name}", f"{address}, ours, ready")
            else:
                log = settings.logs / f"{'control' if name == 'control' else 'data'}.log"
                yield Finding("broken", f"port of {name}", f"{address}, ours, not ready", f"Look into {log}")
        return
    ports: tuple[tuple[str, str, Address], ...] = (
        ("control", "--control", settings.control),
        ("data plane", "--data", settings.data),
    )
    for name, option, address in ports:
        try:
            listen.bind(address, option).close()
            yield Finding("ok", f"port of {name}", f"{address} is free")
        except errors.OndolError as error:
            yield Finding("warning", f"port of {name}", error.message, error.way_out)


def check_home(settings: Settings) -> Iterator[Finding]:
    """The home's folder, database and disk."""
    from ondol.base import errors
    from ondol.store.connection import Store

    existing = next(folder for folder in (settings.home, *settings.home.parents) if folder.exists())
    if not os.access(existing, os.W_OK):
        yield Finding("broken", "home", f"{settings.home} cannot be written", "Set ONDOL_HOME to another folder.")
        return
    free = shutil.disk_usage(existing).free
    level: Level = "broken" if free < _DISK_BROKEN else "warning" if free < _DISK_WARNING else "ok"
    remedy = "" if level == "ok" else "Free some disk space, or set ONDOL_HOME to a folder with room."
    yield Finding(level, "disk", f"{free / 1e9:.1f} GB free in {existing}", remedy)
    if settings.database_url or (settings.home / "ondol.db").exists():
        try:
            Store(settings.database).close()
            yield Finding("ok", "database", settings.database.rpartition("@")[2])
        except errors.OndolError as error:
            yield Finding("broken", "database", error.message, error.way_out)


_OPTIONAL = {
    "postgres": ("psycopg", "state in Postgres"),
    "s3": ("s3fs", "artifacts in S3"),
    "local-llm": ("xllamacpp", "local language models (GGUF)"),
    "langchain": ("langchain_openai", "LangChain models"),
    "nemo": ("nemoguardrails", "Colang flows in guardrails"),
    "ragas": ("ragas", "Ragas' own metrics"),
}


def check_extras(settings: Settings) -> Iterator[Finding]:
    """Optional parts; one that the settings ask for must be there."""
    wanted = {"postgres": bool(settings.database_url), "s3": settings.artifacts.startswith("s3://")}
    for extra, (module, what) in _OPTIONAL.items():
        if importlib.util.find_spec(module):
            yield Finding("ok", extra, what)
        else:
            level: Level = "broken" if wanted.get(extra) else "missing"
            yield Finding(level, extra, f"{what}: not installed", f"pip install 'ondol[{extra}]'")


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    check_python,
    check_uv,
    check_sqlite,
    check_mlflow,
    check_home,
    check_ports,
    check_extras,
)


@click.command(
    "doctor", epilog="\b\nExamples:\n  ondol doctor\n  ondol doctor --json | jq '.[] | select(.level==\"broken\")'"
)
@output.json_option
def command(as_json: bool) -> int:
    """Check this machine and environment. Exit code 1 when something is broken."""
    settings = context.load_settings()
    findings = [finding for check in CHECKS for finding in check(settings)]

    def show() -> None:
        output.table(("", "what", "found"), [(_MARKS[one.level], one.what, one.found) for one in findings])
        for one in findings:
            if one.remedy and one.level != "missing":
                click.echo(f"\n{one.what}: {one.found}\n  way out: {one.remedy}")
        missing = [one.what for one in findings if one.level == "missing"]
        if missing:
            click.echo(f"\nOptional and not installed: pip install 'ondol[{','.join(missing)}]'")

    output.emit(findings, as_json, show)
    return 1 if any(one.level == "broken" for one in findings) else 0

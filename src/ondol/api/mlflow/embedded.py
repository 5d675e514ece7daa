"""MLflow's server application, configured and loaded into this process.

One MLflow per process: it is configured by environment variables that it reads while it is imported, and its stores
are module-level singletons. Job runners and telemetry are off; authentication is our own door's work.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import warnings
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from ondol.base import errors
from ondol.base.settings import Settings

_log = logging.getLogger(__name__)
_SQLITE = "sqlite:///"
_SCHEMA = "mlflow"


def database_uri(settings: Settings) -> str:
    """Return the SQLAlchemy URL of MLflow's database: `mlflow.db` in the home, or a schema in the configured Postgres.

    SQLAlchemy's default driver for `postgresql://` depends on its version, so psycopg 3 is named. MLflow has its own
    schema there: both of us have a table called `runs`.
    """
    url = settings.database_url
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            join = "&" if "?" in url else "?"
            return f"postgresql+psycopg://{url.removeprefix(scheme)}{join}options=-csearch_path%3D{_SCHEMA}"
    return f"{_SQLITE}{settings.home / 'mlflow.db'}"


def sqlite_file(settings: Settings) -> Path | None:
    """Return MLflow's database file, or None when it is in Postgres."""
    uri = database_uri(settings)
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def environment(settings: Settings) -> dict[str, str]:
    """Return what MLflow's server must find in the environment before it is imported."""
    uri = database_uri(settings)
    return {
        "_MLFLOW_SERVER_FILE_STORE": uri,
        "_MLFLOW_SERVER_REGISTRY_STORE": uri,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": settings.artifacts_root,
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        # The door in front has checked host and key when we are reachable from elsewhere.
        **({} if settings.control.is_loopback else {"MLFLOW_SERVER_ALLOWED_HOSTS": "*"}),
    }


def load(settings: Settings) -> ASGIApp:
    """Import MLflow's server (about 3 s), bring its schema up to date and return its ASGI application.

    :raises StateError: when its database cannot be opened or belongs to another version of MLflow.
    """
    os.environ.update(environment(settings))
    if file := sqlite_file(settings):
        _use_wal(file)
    else:
        _make_schema(settings.database_url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports a deprecated Starlette module of its own accord
        _tune_sqlite()
        from mlflow.server.fastapi_app import app
        from mlflow.server.handlers import initialize_backend_stores

        uri = database_uri(settings)
        try:
            initialize_backend_stores(uri, uri, "mlflow-artifacts:/")
        except Exception as error:  # SQLAlchemy's, alembic's and MLflow's own have no common base
            raise errors.StateError(
                f"MLflow cannot open its database: {error}",
                where=uri.rpartition("@")[2],
                way_out="If another MLflow wrote it: mlflow db upgrade; else check the file and the disk.",
                code="STA-010",
            ) from error
    application: ASGIApp = app
    return application


def _make_schema(url: str) -> None:
    try:
        import psycopg
    except ImportError as error:
        raise errors.DependencyError(
            "a postgresql:// database needs psycopg", way_out="pip install 'ondol[postgres]'", code="DEP-002"
        ) from error
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}")
    except psycopg.Error as error:
        raise errors.StateError(
            f"cannot make MLflow's schema in Postgres: {error}".strip(),
            way_out=f"Check ONDOL_DATABASE_URL, or have it made once: CREATE SCHEMA {_SCHEMA};",
            code="STA-010",
        ) from error


def _use_wal(file: Path) -> None:
    """Put the file in WAL mode: a property of the file that MLflow never sets; readers and the writer stop waiting."""
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = sqlite3.connect(file, timeout=20)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise errors.StateError(
            f"cannot open MLflow's database: {error}",
            where=str(file),
            way_out="Check the folder's permissions and free space, or set ONDOL_HOME elsewhere.",
            code="STA-010",
        ) from error


def _tune_sqlite() -> None:
    """Let every SQLite connection of this process commit without an fsync of its own (safe in WAL against kill -9)."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def on_connect(connection: Any, _record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=NORMAL")

    event.listen(Engine, "connect", on_connect)

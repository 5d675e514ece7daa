"""One database behind one small port: SQLite in WAL mode, or Postgres, with the same SQL.

SQL here is written for SQLite with `?` parameters and the portable types TEXT, BIGINT, DOUBLE PRECISION and BLOB;
for Postgres the parameters become `%s` and BLOB becomes BYTEA. Statements must stay inside what both understand
(`INSERT … ON CONFLICT … DO UPDATE`, `RETURNING`, no AUTOINCREMENT).

Durability: SQLite runs with `synchronous=NORMAL` in WAL mode. A committed transaction is in the operating system's
hands, so it survives kill -9 of every process; only a power cut may lose the last commits, never corrupt the file.
`ONDOL_SYNCHRONOUS=FULL` buys the power cut too, for one fsync a commit.

Several processes and threads may use the same database. Writers queue up inside the database: `BEGIN IMMEDIATE` takes
the write lock at the start, so that a transaction never fails half-way with "database is locked".
"""

from __future__ import annotations

import os
import select
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ondol.base import errors
from ondol.store import migrate

Row = dict[str, Any]
_BUSY_SECONDS = 60.0  # how long a writer waits for its turn; longer means a process died holding a debugger open


class Tx(Protocol):
    """A transaction: statements and their rows."""

    dialect: str

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Run a statement and return the number of rows it touched."""
        ...

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Run a statement once per row of parameters."""
        ...

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Return all rows of a query, each as a dict."""
        ...

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """Return the first row of a query, or None."""
        ...


class _SqliteTx:
    dialect = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return self._connection.execute(sql, parameters).rowcount

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        self._connection.executemany(sql, rows)

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        cursor = self._connection.execute(sql, parameters)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, values, strict=True)) for values in cursor.fetchall()]

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        rows = self.rows(sql, parameters)
        return rows[0] if rows else None


class _PostgresTx:
    dialect = "postgres"

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @staticmethod
    def _translate(sql: str) -> str:
        return sql.replace("%", "%%").replace("?", "%s")

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return int(self._connection.execute(self._translate(sql), tuple(parameters)).rowcount)

    def execute_many(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        with self._connection.cursor() as cursor:
            cursor.executemany(self._translate(sql), [tuple(row) for row in rows])

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        cursor = self._connection.execute(self._translate(sql), tuple(parameters))
        return [dict(row) for row in cursor.fetchall()]

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        rows = self.rows(sql, parameters)
        return rows[0] if rows else None


class _Held:
    """One thread's connection, which goes with the thread: servers' threads come and go, and files are limited."""

    __slots__ = ("__weakref__", "connection")

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class Store:
    """A database that several threads and processes may use at once.

    :param database: a path (SQLite) or a `postgresql://` URL.
    :raises DependencyError: for a Postgres URL without psycopg installed.
    :raises StateError: when the database cannot be opened or was written by a newer Ondol.
    """

    def __init__(self, database: str | Path) -> None:
        self.database = str(database)
        self.dialect = "postgres" if self.database.startswith(("postgresql://", "postgres://")) else "sqlite"
        self._local = threading.local()
        self._held: weakref.WeakSet[_Held] = weakref.WeakSet()
        self._guard = threading.Lock()
        if self.dialect == "sqlite":
            Path(self.database).parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.write() as tx:
                migrate.apply_pending(tx)
        except BaseException:
            self.close()
            raise

    def _connect_sqlite(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self.database, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            _switch_to_wal(connection)
        except sqlite3.Error as error:
            raise errors.StateError(
                f"cannot open the database: {error}",
                where=self.database,
                way_out="Check the folder's permissions and free space, or set ONDOL_HOME elsewhere.",
                code="STA-002",
            ) from error
        connection.execute(f"PRAGMA synchronous={_synchronous()}")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _connect_postgres(self) -> Any:
        try:
            import psycopg
            from psycopg.rows import dict_row
        except ImportError as error:
            raise errors.DependencyError(
                "a postgresql:// database needs psycopg", way_out="pip install 'ondol[postgres]'", code="DEP-002"
            ) from error
        try:
            return psycopg.connect(self.database, autocommit=True, row_factory=dict_row)
        except psycopg.Error as error:
            raise errors.StateError(
                f"cannot connect to Postgres: {error}".strip(), way_out="Check ONDOL_DATABASE_URL.", code="STA-002"
            ) from error

    def _connection(self) -> Any:
        held: _Held | None = getattr(self._local, "held", None)
        if held is None or (self.dialect == "postgres" and _is_gone(held.connection)):
            held = _Held(self._connect_sqlite() if self.dialect == "sqlite" else self._connect_postgres())
            self._local.held = held
            with self._guard:
                self._held.add(held)
        return held.connection

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """Open one consistent view: all queries inside see the same state.

        :raises StateError: when Postgres goes away; the next view is opened on a new connection.
        """
        connection = self._connection()
        if self.dialect == "postgres":
            with _told_of_postgres(), connection.transaction():
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                yield _PostgresTx(connection)
            return
        connection.execute("BEGIN")
        try:
            yield _SqliteTx(connection)
        finally:
            connection.execute("ROLLBACK")

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """Open a transaction that holds the write lock; commits at the end, rolls back on any exception.

        :raises StateError: when the disk is full, the file cannot be written or Postgres goes away; nothing is
            half-written.
        """
        connection = self._connection()
        if self.dialect == "postgres":
            with _told_of_postgres(), connection.transaction():
                # One writer at a time, as in SQLite: the rooms may rely on read-then-write inside a transaction.
                connection.execute("SELECT pg_advisory_xact_lock(7072676)")
                yield _PostgresTx(connection)
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield _SqliteTx(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise errors.StateError(
                f"the database refused a write: {error}",
                where=self.database,
                way_out="Free some disk space or check the folder's permissions, then run the command again.",
                code="STA-003",
            ) from error

    def data_version(self) -> int:
        """Return a number that changes when another connection commits; cheap enough to poll every few milliseconds.

        SQLite's own counter (a shared-memory read); for Postgres the id of the newest committed transaction.

        :raises StateError: when Postgres goes away.
        """
        connection = self._connection()
        if self.dialect == "sqlite":
            return int(connection.execute("PRAGMA data_version").fetchone()[0])
        with _told_of_postgres():
            return int(connection.execute("SELECT txid_snapshot_xmax(txid_current_snapshot()) AS v").fetchone()["v"])

    def close(self) -> None:
        """Close every connection this store opened, in all threads."""
        with self._guard:
            for held in list(self._held):
                held.connection.close()
            self._held.clear()
        self._local = threading.local()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_gone(connection: Any) -> bool:
    """Say whether Postgres has left an idle connection: it has something to say that nobody asked for."""
    if connection.closed:
        return True
    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    return bool(waiting.poll(0))


@contextmanager
def _told_of_postgres() -> Iterator[None]:
    """Turn what goes wrong with the server, and not with a statement, into an error that loops know how to outlast."""
    import psycopg

    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise errors.StateError(
            f"Postgres does not answer: {error}".strip(),
            way_out="Start it again: what was under way was rolled back, and the next attempt connects anew.",
            code="STA-740",
        ) from error


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Put the file in WAL mode. It stays so; SQLite's busy timeout does not cover the switch, so that waits here."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _synchronous() -> str:
    level = os.environ.get("ONDOL_SYNCHRONOUS", "NORMAL").upper()
    if level not in ("NORMAL", "FULL", "EXTRA"):
        raise errors.UsageError(f"ONDOL_SYNCHRONOUS is {level!r}", way_out="Use NORMAL, FULL or EXTRA.", code="USE-003")
    return level

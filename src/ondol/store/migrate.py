"""Append-only migrations: modules `mNNN_name` in `ondol.store.migrations`, each with `apply(tx)`.

A migration and the record of it are one transaction. A migration that has landed is never edited: write the next one.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from typing import TYPE_CHECKING

from ondol.base import errors

if TYPE_CHECKING:
    from ondol.store.connection import Tx


def known() -> list[str]:
    """Return the names of all migrations in the order they are applied."""
    from ondol.store import migrations

    return sorted(module.name for module in pkgutil.iter_modules(migrations.__path__) if module.name.startswith("m"))


def apply_pending(tx: Tx) -> list[str]:
    """Apply what is missing inside the given transaction and return the names applied.

    :raises StateError: when the database has migrations this version does not know.
    """
    tx.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, applied_at DOUBLE PRECISION NOT NULL)")
    applied = {row["name"] for row in tx.rows("SELECT name FROM migrations")}
    names = known()
    if unknown := sorted(applied - set(names)):
        raise errors.StateError(
            f"the database was written by a newer Ondol (it has {unknown[0]!r})",
            way_out="Upgrade ondol, or point ONDOL_HOME at another folder.",
            code="STA-004",
        )
    pending = [name for name in names if name not in applied]
    for name in pending:
        importlib.import_module(f"ondol.store.migrations.{name}").apply(tx)
        tx.execute("INSERT INTO migrations (name, applied_at) VALUES (?, ?)", (name, time.time()))
    return pending


def blob_type(tx: Tx) -> str:
    """Return the column type for bytes in the transaction's dialect."""
    return "BYTEA" if tx.dialect == "postgres" else "BLOB"

"""What most commands need: the settings and an open store."""

from __future__ import annotations

from ondol.base import settings
from ondol.store.connection import Store


def load_settings() -> settings.Settings:
    """Return the settings of the project around the working folder."""
    return settings.load()


def open_store(chosen: settings.Settings | None = None) -> Store:
    """Open this home's database, making it when it is not there yet."""
    return Store((chosen or load_settings()).database)

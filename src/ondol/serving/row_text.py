"""Rows as text for the request log. Must not be imported where a model runs in an environment of its own."""

from __future__ import annotations

import msgspec

from ondol.serving import rows as rows_module
from ondol.serving.rows import Rows

MAX_FEATURES_CHARS = 262_144
"""Requests with more JSON than this are logged without their features."""

_encode = msgspec.json.Encoder().encode


def text_of(rows: Rows) -> str:
    """Return rows as JSON text for the log; empty when they are too many to be kept."""
    if len(rows) * len(rows[0]) * 2 > MAX_FEATURES_CHARS:  # a value and its comma
        return ""
    return _encode(rows_module.cells_of(rows)).decode()

"""Rows as text for the request log. Must not be imported where a model runs in an environment of its own."""

from __future__ import annotations

from typing import Any

import msgspec

MAX_FEATURES_CHARS = 262_144
"""Requests with more JSON than this are logged without their features."""

_encode = msgspec.json.Encoder().encode


def text_of(rows: list[list[Any]]) -> str:
    """Return rows as JSON text for the log; empty when they are too many to be kept."""
    if len(rows) * len(rows[0]) * 2 > MAX_FEATURES_CHARS:  # a value and its comma
        return ""
    return _encode(rows).decode()

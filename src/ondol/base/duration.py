"""Spans of time as people write them: `30s`, `15m`, `8h`, `30d`."""

from __future__ import annotations

import re

from ondol.base import errors

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def seconds(text: str, where: str = "") -> float:
    """Return a span of time in seconds.

    :raises InputError: INP-451 for anything else than a number and one of s, m, h, d.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", text.strip())
    if found is None:
        raise errors.InputError(
            f"{text!r} is no span of time", where=where, way_out="Write it like 30s, 15m, 8h or 30d.", code="INP-451"
        )
    return float(found.group(1)) * _UNITS[found.group(2)]


def said(value: float) -> str:
    """Return seconds as people read them, in the largest unit that leaves at least one."""
    for unit in ("d", "h", "m"):
        if value >= _UNITS[unit]:
            return f"{value / _UNITS[unit]:.3g} {'min' if unit == 'm' else unit}"
    return f"{value:.3g} s"

"""Evidence of any shape as tables that people can read: pure, from plain JSON to blocks a template draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SKIP = {
    "findings",
    "facts",
    "judge",
    "positions",
    "split",
    "route",
    "step_times",
}  # drawn elsewhere, or the judge's own bookkeeping
_MAX_ROWS, _MAX_TEXT = 40, 120


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table; a mapping of plain values is a table of two columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    cut: int = 0
    """Rows left out."""


def shown(value: Any) -> str:
    """Return a plain value as text."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(one) for one in value)[:_MAX_TEXT] or "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {shown(one)}" for key, one in value.items())[:_MAX_TEXT]
    text = str(value).removeprefix("sha256:")
    text = text[:12] if len(text) == 64 and set(text) <= set("0123456789abcdef") else text
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return len(value) <= 8 and not any(isinstance(one, (Mapping, list, tuple)) for one in value)
    return not isinstance(value, Mapping)


def tables(value: Mapping[str, Any], title: str = "") -> list[Table]:
    """Return the tables of an evidence object: its own plain values first, then each nested part."""
    plain = tuple((key, shown(one)) for key, one in value.items() if _is_plain(one) and key not in _SKIP)
    found = [Table(title, ("", ""), plain)] if plain else []
    for key, one in value.items():
        if key in _SKIP or _is_plain(one):
            continue
        name = f"{title} · {key}" if title else key
        if isinstance(one, Mapping):
            found.extend(tables(one, name))
        elif all(isinstance(row, Mapping) for row in one):
            found.append(_of_rows(name, one))
    return found


def _of_rows(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = tuple(dict.fromkeys(key for row in rows for key, one in row.items() if _is_plain(one)))
    kept = tuple(tuple(shown(row.get(column)) for column in columns) for row in rows[:_MAX_ROWS])
    return Table(title, columns, kept, max(0, len(rows) - _MAX_ROWS))

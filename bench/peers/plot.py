"""The serving benchmarks as SVG: requests a second as bars on a logarithmic axis, memory over time as a line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _BAR, _GAP, _HEAD = 760, 130, 15, 4, 34
_COLOURS = {"ondol": "#d9480f"}
_GREY = "#868e96"


def write(target: Path, cells: list[dict[str, Any]]) -> None:
    """Write one panel for each model and load."""
    groups: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["model"], cell["rows"], cell["connections"]), []).append(cell)
    top = max((cell["requests_per_second"] for cell in cells), default=1.0)
    parts: list[str] = []
    y = 10
    for (model, rows, connections), here in groups.items():
        title = f"{model}, {rows} row{'s' if rows > 1 else ''} a request, {connections} connection" + "s" * (
            connections > 1
        )
        parts.append(f'<text x="10" y="{y + 16}" class="title">{escape(title)}: requests a second (logarithmic)</text>')
        y += _HEAD - 8
        for cell in sorted(here, key=lambda one: -float(one["requests_per_second"])):
            parts.append(_bar(cell, y, top))
            y += _BAR + _GAP
        y += 14
    style = "text{font:12px sans-serif;fill:#343a40}.title{font-weight:bold}"
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" role="img" '
        f'aria-label="Requests a second, logarithmic"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n',
        encoding="utf-8",
    )


def memory(target: Path, megabytes: list[float], seconds: float, title: str) -> None:
    """Write memory over time, from zero."""
    height, top = 220, 1.15 * max(megabytes)
    room, base = _WIDTH - _LEFT - 20, height - 30
    points = " ".join(
        f"{_LEFT + room * place / max(1, len(megabytes) - 1):.1f},{base - (base - _HEAD) * value / top:.1f}"
        for place, value in enumerate(megabytes)
    )
    marks = "".join(
        f'<text x="{_LEFT - 8}" y="{base - (base - _HEAD) * value / top + 4:.1f}" text-anchor="end">{value:.0f}</text>'
        for value in (0.0, max(megabytes))
    )
    target.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="Memory over time"><style>text{{font:12px sans-serif;fill:#343a40}}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/><text x="10" y="20">{escape(title)}</text>{marks}'
        f'<line x1="{_LEFT}" y1="{base}" x2="{_WIDTH - 20}" y2="{base}" stroke="{_GREY}"/>'
        f'<polyline points="{points}" fill="none" stroke="{_COLOURS["ondol"]}" stroke-width="2"/>'
        f'<text x="{_LEFT}" y="{height - 10}">0 s</text>'
        f'<text x="{_WIDTH - 20}" y="{height - 10}" text-anchor="end">{seconds:.0f} s</text></svg>\n',
        encoding="utf-8",
    )


def _bar(cell: dict[str, Any], y: int, top: float) -> str:
    value = float(cell["requests_per_second"])
    room = _WIDTH - _LEFT - 90
    width = max(1.0, room * math.log10(max(1.0, value)) / math.log10(max(10.0, top)))
    colour = _COLOURS.get(cell["server"], _GREY)
    return (
        f'<text x="{_LEFT - 6}" y="{y + 12}" text-anchor="end">{escape(cell["server"])}</text>'
        f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>'
        f'<text x="{_LEFT + width + 5:.1f}" y="{y + 12}">{value:,.0f}</text>'
    )

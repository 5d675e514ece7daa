"""Small multiples: many small lines side by side, over the same scale, as inline SVG.

Must not read the store: numbers in, text out. Colours come from the page's style sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 220, 64
_PAD = 6


@dataclass(frozen=True, slots=True)
class Spark:
    """One small line."""

    name: str
    values: tuple[float, ...]
    """Oldest first."""

    marked: tuple[bool, ...]
    """Which of them are findings."""

    said: str = ""
    """What the newest one says, for people."""

    svg: str = ""


def line(
    values: Sequence[float], marked: Sequence[bool], *, top: float, limit: float | None = None, label: str = ""
) -> str:
    """Draw values over time; findings are dots, `limit` is a dashed line.

    :param top: the value at the upper edge, the same for all lines that are compared.
    """
    if not values:
        return ""
    across, up = WIDTH - 2 * _PAD, HEIGHT - 2 * _PAD
    step = across / max(len(values) - 1, 1)

    def place(index: int, value: float) -> tuple[float, float]:
        return _PAD + step * index, _PAD + up * (1 - min(value / (top or 1.0), 1.0))

    points = [place(index, value) for index, value in enumerate(values)]
    parts = [f'<svg class="chart spark" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    if limit is not None and limit <= top:
        y = _PAD + up * (1 - limit / top)
        parts.append(f'<line class="grid limit" x1="{_PAD}" x2="{WIDTH - _PAD}" y1="{y:.1f}" y2="{y:.1f}"/>')
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    parts.append(f'<polyline class="line stable" points="{path}"/>')
    last = len(points) - 1
    for index, (x, y) in enumerate(points):
        if marked[index] or index == last:
            style = "harm" if marked[index] else "stable"
            parts.append(f'<circle class="dot {style}" r="3" cx="{x:.1f}" cy="{y:.1f}"/>')
    return "".join([*parts, "</svg>"])


def bars(values: Sequence[float], *, label: str = "") -> str:
    """Draw counts as bars."""
    if not values:
        return ""
    top, across, up = max(values) or 1.0, WIDTH - 2 * _PAD, HEIGHT - 2 * _PAD
    width = across / len(values)
    drawn = "".join(
        f'<rect class="bar volume" x="{_PAD + width * index:.1f}" y="{_PAD + up * (1 - value / top):.1f}" '
        f'width="{max(width - 1.5, 1):.1f}" height="{up * value / top:.1f}" rx="1.5"/>'
        for index, value in enumerate(values)
    )
    svg = f'<svg class="chart spark" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
    return f"{svg}{drawn}</svg>"
